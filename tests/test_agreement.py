"""What two SAEs do on the same tokens, against numpy on dense matrices and by hand."""

import math
import tracemalloc
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from faithful_sae.agreement import (
    ROWS,
    centred_products,
    contribution_cka,
    correlations,
    matched_correlations,
    shifted,
)

TOKENS = 60


def latents(seed: int, n: int, tokens: int = TOKENS) -> sparse.csr_array:
    """Random latents, about a third of them active."""
    x = np.random.default_rng(seed).normal(size=(tokens, n)).astype(np.float32)
    return sparse.csr_array(np.maximum(x - 0.5, 0))


def rows(seed: int, n: int, d: int = 5) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def test_correlations_are_those_of_numpy_whatever_the_mean():
    a, b = latents(0, 4), latents(1, 3)
    a = sparse.csr_array(a.toarray() + np.float32([0, 0, 0, 50]))  # never silent, large mean
    expected = np.corrcoef(a.toarray().T, b.toarray().T)[:4, 4:]
    assert correlations(a, b).numpy() == pytest.approx(expected, abs=1e-5)
    assert correlations(a, a).diagonal().tolist() == pytest.approx([1.0] * 4, abs=1e-3)


def test_products_of_many_latents_hold_little_beside_them():
    a, b = latents(0, 4 * ROWS + 1), latents(1, 700)
    tracemalloc.start()
    found = centred_products(a, b)
    _, peak = tracemalloc.get_traced_memory()  # of numpy and scipy: torch has its own
    tracemalloc.stop()
    x, y = (m.toarray().astype(np.float64) for m in (a, b))
    assert found.numpy() == pytest.approx((x - x.mean(0)).T @ (y - y.mean(0)), abs=1e-6)
    assert peak < found.nbytes


def test_a_latent_that_does_not_vary_correlates_with_nothing():
    a = np.linspace(0, 1, 50, dtype=np.float32).repeat(TOKENS).reshape(50, TOKENS).T
    a[:, 1] = latents(0, 1).toarray()[:, 0]
    found = correlations(sparse.csr_array(a), latents(1, 3))
    assert found[1].all() and not found[2:].any() and not found[0].any()


def test_latents_of_other_tokens_are_an_error():
    with pytest.raises(ValueError, match="60 and 59 tokens: encode the same"):
        correlations(latents(0, 3), latents(0, 3)[:59])


def test_matched_correlations_have_the_largest_total_of_all_assignments():
    for n, m in ((4, 4), (3, 5), (5, 3)):
        matrix = correlations(latents(0, n), latents(1, m))
        wide = matrix if n <= m else matrix.T
        best = max(
            sum(wide[i, j].item() for i, j in enumerate(columns))
            for columns in permutations(range(max(n, m)), min(n, m))
        )
        found = matched_correlations(matrix)
        assert len(found) == min(n, m)
        assert found.sum().item() == pytest.approx(best, abs=1e-6)


def test_latents_that_only_change_place_and_scale_agree_fully():
    a = latents(0, 5)
    b = a[:, [3, 0, 4, 1, 2]] * np.float32([1, 2, 3, 4, 5])
    found = matched_correlations(correlations(a, sparse.csr_array(b)))
    assert found.tolist() == pytest.approx([1.0] * 5, abs=1e-6)


def test_shifting_moves_tokens_by_half_and_changes_nothing_else():
    a = latents(0, 3)
    dense = a.toarray()
    assert np.array_equal(shifted(a).toarray(), np.roll(dense, TOKENS // 2, axis=0))
    assert np.array_equal(shifted(shifted(a)).toarray(), dense)
    # Active on the first half alone: on shifted tokens exactly when the other is silent.
    half = sparse.csr_array(np.repeat([[1.0], [0.0]], TOKENS // 2, axis=0))
    assert correlations(half, half).item() == pytest.approx(1)
    assert correlations(half, shifted(half)).item() == pytest.approx(-1)


def test_on_shifted_tokens_equal_latents_agree_no_more_than_independent_ones():
    a, b = (latents(seed, 20, 4000) for seed in (0, 1))
    null, chance = (matched_correlations(correlations(a, x)).mean() for x in (shifted(a), b))
    assert null.item() == pytest.approx(chance.item(), abs=0.005)
    assert 0 < null < 0.05  # the best of 20 x 20 chance correlations of about 1 / sqrt(4000)


def slow_cka(x: np.ndarray, y: np.ndarray) -> float:
    """By the Gram matrices of tokens: <K, L> / (|K| |L|), both centred (Kornblith et al. 2019)."""
    gram_x, gram_y = (c @ c.T for c in (m - m.mean(0) for m in (x, y)))
    return float((gram_x * gram_y).sum() / np.linalg.norm(gram_x) / np.linalg.norm(gram_y))


def test_cka_is_that_of_the_gram_matrices():
    (a, W_a), (b, W_b) = (latents(0, 4), rows(0, 4)), (latents(1, 3), rows(1, 3))
    expected = slow_cka(a @ W_a.numpy(), b @ W_b.numpy())
    assert contribution_cka(a, W_a, b, W_b) == pytest.approx(expected, abs=1e-5)
    assert contribution_cka(b, W_b, a, W_a) == pytest.approx(expected, abs=1e-5)
    assert contribution_cka(a, W_a, a, W_a) == pytest.approx(1)


def test_cka_does_not_see_rotations_of_the_stream_nor_a_factor_nor_an_offset():
    a, W = latents(0, 4), rows(0, 4)
    turn, _ = torch.linalg.qr(rows(9, 5))
    assert contribution_cka(a, W, a, 3 * W @ turn) == pytest.approx(1)
    always = sparse.csr_array(np.hstack([a.toarray(), np.ones((TOKENS, 1), np.float32)]))
    assert contribution_cka(a, W, always, torch.cat([W, 100 * rows(3, 1)])) == pytest.approx(1)


def test_one_content_cut_up_differently_has_no_matching_latents_but_a_cka_of_one():
    # a writes x along the first axis and y along the second; b writes both as sums and differences.
    x, y = np.abs(np.random.default_rng(0).normal(size=(2, TOKENS))).astype(np.float32)
    a, W_a = sparse.csr_array(np.stack([x, y], 1)), torch.eye(5)[:2]
    parts = np.stack([np.maximum(x - y, 0), np.maximum(y - x, 0), np.minimum(x, y)], 1)
    W_b = torch.stack([W_a[0], W_a[1], W_a.sum(0)])
    b = sparse.csr_array(parts)
    assert np.allclose(a @ W_a.numpy(), b @ W_b.numpy())
    assert contribution_cka(a, W_a, b, W_b) == pytest.approx(1)
    assert matched_correlations(correlations(a, b)).max() < 0.95


def test_a_turn_that_changes_the_sum_lowers_cka_though_the_space_is_the_same():
    a = latents(0, 2)
    W = torch.eye(5)[:2]
    other = torch.tensor([[1.0, 0, 0, 0, 0], [0.6, 0.8, 0, 0, 0]])
    assert contribution_cka(a, W, a, other) < 0.95


def test_unrelated_contributions_have_a_cka_near_zero_and_shifted_tokens_as_well():
    a, b = (latents(seed, 4, 4000) for seed in (0, 1))
    W = rows(0, 4)
    assert contribution_cka(a, W, b, rows(1, 4)) < 0.01
    assert contribution_cka(a, W, shifted(a), W) < 0.01


def test_cka_of_no_latent_or_of_a_constant_is_nan():
    a, W = latents(0, 3), rows(0, 3)
    assert math.isnan(contribution_cka(a[:, []], W[:0], a, W))
    assert math.isnan(contribution_cka(a * 0, W, a, W))
