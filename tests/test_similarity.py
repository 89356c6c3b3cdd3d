"""Ratios read off a matching mean what they say; nulls are nulls."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from torch import Tensor

from faithful_sae.matching import Matching, match
from faithful_sae.similarity import (
    activation_covariance,
    covariance_null,
    encoder_decoder_agreement,
    mean_matched_cosine,
    shared_feature_ratio,
    similarity,
)

THRESHOLDS = [0.3, 0.7, 0.95]


def rows(seed: int, n: int = 6, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def sae(seed: int, n: int = 6, d: int = 4) -> SimpleNamespace:
    return SimpleNamespace(W_dec=rows(seed, n, d), W_enc=rows(seed + 100, n, d).T)


def alive(*flags: int) -> Tensor:
    return torch.tensor(flags, dtype=torch.bool)


ALL = torch.ones(6, dtype=torch.bool)


def value(table: pl.DataFrame, latents: str, metric: str, threshold: float | None = None) -> float:
    same = pl.col("threshold").eq_missing(pl.lit(threshold, dtype=pl.Float64))
    return table.filter(pl.col("latents") == latents, pl.col("metric") == metric, same)[
        "value"
    ].item()


def test_orthogonal_and_opposite_rows_share_nothing():
    eye = torch.eye(4)
    assert shared_feature_ratio(match(eye[:2], eye[2:]).cosine, 0.0) == 0
    assert match(eye[:1], -eye[:1]).cosine.item() == -1


def test_shared_feature_ratio_is_strictly_above_the_threshold():
    cosine = torch.tensor([0.2, 0.7, 0.75, 1.0])
    assert shared_feature_ratio(cosine, 0.7) == 0.5
    assert mean_matched_cosine(torch.tensor([0.25, 0.75])) == 0.5


def test_agreement_needs_the_same_partner_and_both_cosines():
    decoder = Matching(torch.tensor([0, 1, 2, 3]), torch.tensor([0.9, 0.9, 0.5, 0.9]))
    encoder = Matching(torch.tensor([0, 2, 1, 3]), torch.tensor([0.9, 0.9, 0.9, 0.5]))
    assert encoder_decoder_agreement(decoder, encoder, 0.7) == 0.25


def test_an_sae_against_itself_is_fully_similar():
    table = similarity(sae(0), sae(0), ALL, ALL, THRESHOLDS)
    assert table["value"].to_list() == pytest.approx([1.0] * 10)


def test_encoders_that_disagree_show_only_in_the_agreement():
    other = sae(0)
    other.W_enc = other.W_enc.flip(1)
    table = similarity(sae(0), other, ALL, ALL, THRESHOLDS)
    assert value(table, "all", "shared_feature_ratio", 0.7) == 1
    assert value(table, "all", "encoder_decoder_agreement", 0.7) == 0


def test_alive_rows_match_alive_latents_only_over_the_smaller_count():
    # Latents 0-2 of b are those of a, the rest point elsewhere; b's latent 2 is dead.
    a, b = (SimpleNamespace(W_dec=torch.eye(8)[:6], W_enc=torch.eye(8)[:, :6]) for _ in range(2))
    other = torch.eye(8)[[0, 1, 2, 6, 7, 7]]
    b = SimpleNamespace(W_dec=other, W_enc=other.T)
    flags = alive(1, 1, 1, 1, 0, 0), alive(1, 1, 0, 1, 0, 0)
    table = similarity(a, b, *flags, THRESHOLDS)
    assert value(table, "all", "shared_feature_ratio", 0.7) == pytest.approx(3 / 6)
    for pair, masks in (((a, b), flags), ((b, a), flags[::-1])):
        table = similarity(*pair, *masks, THRESHOLDS)
        for metric in ("shared_feature_ratio", "encoder_decoder_agreement"):
            assert value(table, "alive", metric, 0.7) == pytest.approx(2 / 3)
        assert value(table, "alive", "mean_matched_cosine") == pytest.approx(2 / 3)


def test_dead_latents_do_not_move_the_alive_rows():
    a, b, changed = sae(0), sae(1), sae(1)
    flags = alive(1, 1, 1, 1, 0, 0)
    changed.W_dec = torch.cat([b.W_dec[:4], rows(9)[4:]])
    before, after = (similarity(a, x, ALL, flags, THRESHOLDS) for x in (b, changed))
    same = before.filter(pl.col("latents") == "alive").equals(
        after.filter(pl.col("latents") == "alive")
    )
    assert same and not before.equals(after)


def test_no_alive_latent_gives_nan_not_zero():
    table = similarity(sae(0), sae(1), ALL, ~ALL, THRESHOLDS)
    assert table.filter(pl.col("latents") == "alive")["value"].is_nan().all()


def test_thresholds_without_the_headline_cut_are_an_error():
    with pytest.raises(ValueError, match="do not contain 0.7"):
        similarity(sae(0), sae(1), ALL, ALL, [0.5])


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
    isotropic, anisotropic = (covariance_null(c, 64, 0, THRESHOLDS) for c in (flat, steep))
    rise = [value(table, "all", "mean_matched_cosine") for table in (isotropic, anisotropic)]
    assert rise[1] > rise[0] + 0.05
    assert covariance_null(flat, 64, 0, THRESHOLDS).equals(isotropic)
    assert not covariance_null(flat, 64, 1, THRESHOLDS).equals(isotropic)


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
    null = covariance_null(covariance, 200, 0, THRESHOLDS)
    expected = mean_matched_cosine(match(a, b).cosine)
    assert value(null, "all", "mean_matched_cosine") == pytest.approx(expected, abs=0.03)


def test_rows_of_the_covariance_null_have_that_covariance():
    # Of rank one, every row is a multiple of (1, 2, 3): cosines are all 1 or -1.
    line = torch.tensor([1.0, 2.0, 3.0])
    table = covariance_null(torch.outer(line, line), 200, 0, THRESHOLDS)
    assert value(table, "all", "mean_matched_cosine") > 0.7
    shared = [value(table, "all", "shared_feature_ratio", t) for t in THRESHOLDS]
    assert (
        shared[0]
        == shared[2]
        == pytest.approx((1 + value(table, "all", "mean_matched_cosine")) / 2)
    )


def test_the_covariance_null_does_not_depend_on_the_axes():
    spectrum = torch.diag(torch.tensor([9.0, 4.0, 1.0, 0.25]))
    turn, _ = torch.linalg.qr(rows(0, 4, 4))
    straight, turned = (
        covariance_null(c, 32, 0, THRESHOLDS) for c in (spectrum, turn @ spectrum @ turn.T)
    )
    assert straight["value"].to_list() == pytest.approx(turned["value"].to_list(), abs=1e-5)


@pytest.mark.parametrize("matrix", [[[1.0, 2.0], [2.0, 1.0]], [[1.0, 0.5], [0.0, 1.0]]])
def test_a_matrix_that_is_no_covariance_is_an_error(matrix):
    with pytest.raises(ValueError, match="not symmetric positive semi-definite"):
        covariance_null(torch.tensor(matrix), 4, 0, THRESHOLDS)
