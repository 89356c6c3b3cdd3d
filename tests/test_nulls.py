"""Dictionaries that share nothing are as alike as theory says, and no more."""

import numpy as np
import pytest
import torch
from torch import Tensor

from faithful_sae.matching import match
from faithful_sae.nulls import activation_covariance, covariance_null


def rows(seed: int, n: int, d: int) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_streamed_covariance_equals_the_direct_one_for_any_batches_and_a_large_mean():
    x = rows(0, 50, 3) * torch.tensor([1.0, 2.0, 3.0]) + 1000
    expected = np.cov(x.double().numpy().T)
    for size in (1, 7, 50):
        assert activation_covariance(x.split(size)).numpy() == pytest.approx(expected, rel=1e-9)


def test_covariance_of_one_token_is_an_error():
    with pytest.raises(ValueError, match="at least 2 tokens, found 1"):
        activation_covariance([torch.ones(1, 3)])


def test_covariance_null_rises_with_anisotropy_and_repeats_with_its_seed():
    flat, steep = torch.eye(16), torch.diag(torch.tensor([9.0] * 4 + [1.0] * 12))
    isotropic, anisotropic = (covariance_null(c, 64, 0) for c in (flat, steep))
    assert anisotropic.mean() > isotropic.mean() + 0.05
    assert torch.equal(covariance_null(flat, 64, 0), isotropic)
    assert not torch.equal(covariance_null(flat, 64, 1), isotropic)


def test_the_covariance_null_agrees_with_rows_drawn_from_that_normal_distribution():
    turn, _ = torch.linalg.qr(rows(0, 16, 16))
    covariance = turn @ torch.diag(torch.tensor([9.0] * 4 + [1.0] * 12)) @ turn.T
    rng = np.random.default_rng(0)
    a, b = (
        torch.from_numpy(
            rng.multivariate_normal(np.zeros(16), covariance.double().numpy(), 200, tol=1e-5)
        )
        for _ in range(2)
    )
    expected = match(a, b).cosine.mean().item()
    assert covariance_null(covariance, 200, 0).mean().item() == pytest.approx(expected, abs=0.03)


def test_rows_of_the_covariance_null_have_that_covariance():
    # Of rank one, every row is a multiple of (1, 2, 3): cosines are all 1 or -1.
    line = torch.tensor([1.0, 2.0, 3.0])
    cosine = covariance_null(torch.outer(line, line), 200, 0)
    assert cosine.abs().tolist() == pytest.approx([1.0] * 200, abs=1e-5)
    assert cosine.mean() > 0.7


def test_the_covariance_null_does_not_depend_on_the_axes():
    spectrum = torch.diag(torch.tensor([9.0, 4.0, 1.0, 0.25]))
    turn, _ = torch.linalg.qr(rows(0, 4, 4))
    straight, turned = (covariance_null(c, 32, 0) for c in (spectrum, turn @ spectrum @ turn.T))
    assert straight.tolist() == pytest.approx(turned.tolist(), abs=1e-5)


@pytest.mark.parametrize(
    "matrix",
    [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1e-4]]],
)
def test_a_matrix_that_is_no_covariance_is_an_error(matrix):
    with pytest.raises(ValueError, match="not symmetric positive semi-definite"):
        covariance_null(torch.tensor(matrix), 4, 0)
