"""Cuts scale, the ceiling is exact, dense is told from fake."""

import math
from fractions import Fraction
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_firing import IDENTITY, relu_normal

from faithful_sae.fake_features import (
    contrast_ratio,
    fake_feature_ceiling,
    fake_feature_ratio,
    fake_features,
    fake_features_of_seeds,
    mean_random_share,
)
from faithful_sae.firing import firing_histogram, firing_table
from faithful_sae.sae import SAE

COLUMNS = ["random_input", "cut", "level", "frequency", "metric", "value"]


def shards(x):
    return SimpleNamespace(batches=lambda: iter(x.split(16)))


# Scale-free cuts


@given(st.integers(0, 2**16), st.integers(-8, 8))
def test_scale_free_cuts_give_the_same_of_an_sae_and_activations_that_are_rescaled(seed, exponent):
    # A power of two, so that no rounding differs.
    scale = 2.0**exponent
    sae = SAE.untrained(d_in=3, d_sae=8, k=2, seed=seed)
    scaled = SAE(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec * scale, sae.k)
    generator = torch.Generator().manual_seed(seed)
    text, random = (torch.randn(40, 3, generator=generator) for _ in range(2))
    tables = [
        fake_features_of_seeds({0: s}, {"random": shards(random * c)}, shards(text * c), 1.0, 0.1)[
            0
        ]
        for s, c in ((sae, 1.0), (scaled, scale))
    ]
    first, second = (t.filter(pl.col("cut") == "own_quantile") for t in tables)
    assert first.height and first.equals(second)


def test_absolute_cuts_do_not():
    sae = SAE.untrained(d_in=3, d_sae=8, k=2, seed=0)
    x = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    first, second = (
        fake_features_of_seeds({0: sae}, {"random": shards(x * c)}, shards(x * c), 1.0, 0.1)[0]
        .filter(metric="fake_feature_ratio", cut="absolute", level=1.0, frequency=0.1)["value"]
        .item()
        for c in (0.01, 100)
    )
    assert first == 0 < second


# Ratios


def test_fake_means_strictly_above_the_frequency():
    random = torch.tensor([0.0, 0.1, 0.2, 0.3], dtype=torch.float64)
    assert fake_feature_ratio(random, 0.1) == 0.5


@given(st.integers(1, 40), st.integers(1, 99), st.integers(1, 200))
def test_the_ceiling_is_reached_and_one_more_latent_is_impossible(k, percent, d_sae):
    frequency = Fraction(percent, 100)
    most = round(fake_feature_ceiling(k, float(frequency), d_sae) * d_sae)
    assert most <= d_sae
    # Reached: k firings a token, shared equally, leave each of `most` latents above the cut.
    assert most == 0 or min(Fraction(k, most), Fraction(1)) > frequency
    # One more: their shares would sum to more than k, or there is no such latent.
    assert most == d_sae or (most + 1) * frequency >= k


def test_no_topk_code_exceeds_the_ceiling():
    # k = 2 of 4 latents, each firing on half of the tokens: 3 can stay above 0.5 at best.
    codes = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 1, 1.0]])
    ratio = fake_feature_ratio(codes.double().mean(0), 0.5)
    assert ratio == fake_feature_ceiling(2, 0.5, 4) == 0.75


def test_the_ceiling_at_the_papers_gpt2_setting():
    # 16 / 0.1 = 160 exactly, and strictly above one tenth leaves 159.
    assert fake_feature_ceiling(16, 0.1, 12288) == 159 / 12288


@pytest.mark.parametrize("frequency", [0.0, 1.0, 10.0])
def test_a_frequency_that_is_no_share_is_an_error(frequency):
    with pytest.raises(ValueError, match="between 0 and 1"):
        fake_feature_ceiling(16, frequency, 100)


def test_a_contrast_to_nothing_is_no_number():
    assert contrast_ratio(0.5, 0.25) == 2
    assert contrast_ratio(0.0, 0.25) == 0
    assert math.isnan(contrast_ratio(0.5, 0.0)) and math.isnan(contrast_ratio(0.0, 0.0))


def test_the_mean_random_share_by_hand():
    random, heldout = torch.tensor([0.3, 0.0, 0.2, 0.0]), torch.tensor([0.1, 0.5, 0.0, 0.0])
    assert mean_random_share(random, heldout) == pytest.approx((0.75 + 0 + 1) / 3)
    assert mean_random_share(heldout, random) == pytest.approx(1 - (0.75 + 0 + 1) / 3)
    assert mean_random_share(random, random) == 0.5
    assert math.isnan(mean_random_share(torch.zeros(3), torch.zeros(3)))


# Tables


def values_of(table):
    assert table.columns == COLUMNS
    values = {row[:-1]: row[-1] for row in table.iter_rows()}
    assert len(values) == table.height
    return values


def test_a_latent_dense_on_real_text_is_not_counted_as_fake_only():
    cuts = [("absolute", 0.0), ("own_quantile", 0.5)]
    random = {
        "uniform-tokens": torch.tensor([[0.9, 0.9, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]]),
        "shuffled-tokens": torch.tensor([[0.0, 0.6, 0.6, 0.6], [0.0, 0.0, 0.0, 0.0]]),
    }
    heldout = torch.tensor([[0.9, 0.0, 0.9, 0.9], [0.5, 0.0, 0.0, 0.0]])
    values = values_of(fake_features(random, heldout, 2, cuts, [0.1, 0.5]))
    at = ("absolute", 0.0, 0.1)
    assert values["uniform-tokens", *at, "fake_feature_ratio"] == 0.5
    assert values[None, *at, "dense_feature_ratio"] == 0.75
    assert values["uniform-tokens", *at, "fake_not_dense_ratio"] == 0.25
    assert values["uniform-tokens", *at, "fake_and_dense_ratio"] == 0.25
    assert values["uniform-tokens", *at, "contrast_ratio"] == 0.5 / 0.75
    assert values["shuffled-tokens", *at, "fake_feature_ratio"] == 0.75
    assert values["shuffled-tokens", *at, "fake_not_dense_ratio"] == 0.25
    assert values["shuffled-tokens", *at, "contrast_ratio"] == 1
    at = ("own_quantile", 0.5, 0.1)
    assert values["uniform-tokens", *at, "fake_feature_ratio"] == 0.25
    assert values["uniform-tokens", *at, "fake_and_dense_ratio"] == 0.25
    assert values["uniform-tokens", *at, "fake_not_dense_ratio"] == 0
    assert values["shuffled-tokens", *at, "contrast_ratio"] == 0
    at = ("own_quantile", 0.5, 0.5)
    assert values[None, *at, "dense_feature_ratio"] == 0  # strictly above, as fake is
    assert math.isnan(values["uniform-tokens", *at, "contrast_ratio"])
    assert values[None, None, None, 0.5, "fake_feature_ceiling"] == 0.75
    share = values["uniform-tokens", "absolute", 0.0, None, "mean_random_share"]
    assert share == pytest.approx((0.5 + 1 + 0 + 0) / 4)


def test_ratios_fall_as_the_frequency_rises():
    generator = torch.Generator().manual_seed(0)
    random, heldout = (torch.rand(1, 50, generator=generator) for _ in range(2))
    cuts, grid = [("absolute", 0.0)], [0.05, 0.1, 0.3, 0.6]
    table = fake_features({"uniform-tokens": random}, heldout, 5, cuts, grid)
    for metric in ("fake_feature_ratio", "dense_feature_ratio", "fake_feature_ceiling"):
        values = table.filter(pl.col("metric") == metric)["value"].to_list()
        assert values == sorted(values, reverse=True)


def everything_fires(d_sae=4):
    """An SAE whose latents are all active on every token, and near 10."""
    zeros = torch.zeros(3, d_sae)
    return SAE(zeros, torch.full([d_sae], 10.0), zeros.T, torch.zeros(3), k=d_sae)


def test_latents_that_fire_on_everything_are_fake_and_dense_at_every_absolute_cut_below_them():
    text, random = relu_normal(20), {"uniform-tokens": shards(relu_normal(30, seed=1))}
    sae = everything_fires()
    metrics, firing, histogram = fake_features_of_seeds({5: sae}, random, shards(text), 1, 0.1)
    assert set(metrics["seed"]) == {5} and len(firing) == 4
    assert (metrics["metric"] == "fake_feature_ceiling").sum() == 9
    metrics = metrics.filter(pl.col("cut") == "absolute")
    assert sorted(set(metrics["level"])) == [0, 0.25, 0.5, 1, 2, 4]
    assert sorted(set(metrics["frequency"].drop_nulls()))[0] == 0.001
    swept = metrics.filter(pl.col("metric") == "fake_feature_ratio").group_by("level").len()
    assert dict(swept.iter_rows()) == {1: 9, 0: 1, 0.25: 1, 0.5: 1, 2: 1, 4: 1}
    shares = metrics.filter(pl.col("metric") == "mean_random_share")
    assert sorted(shares["level"]) == [0, 0.25, 0.5, 1, 2, 4]
    expected = {
        "fake_feature_ratio": 1,
        "dense_feature_ratio": 1,
        "fake_and_dense_ratio": 1,
        "fake_not_dense_ratio": 0,
        "contrast_ratio": 1,
        "mean_random_share": 0.5,
    }
    assert {m: set(part["value"]) for (m,), part in metrics.group_by("metric")} == {
        metric: {float(value)} for metric, value in expected.items()
    }
    assert firing.select("heldout", "uniform-tokens").unique().rows() == [(1.0, 1.0)]
    assert histogram.rows() == [(None, 1, -0.25, 4, 5), ("uniform-tokens", 1, -0.25, 4, 5)]


def test_how_often_each_latent_fires_is_told_of_the_studys_own_cut():
    text, random = relu_normal(40), relu_normal(50, seed=1)
    sae = SimpleNamespace(**vars(IDENTITY), k=3)
    inputs = {"uniform-tokens": shards(random)}
    _, firing, histogram = fake_features_of_seeds({0: sae}, inputs, shards(text), 0.5, 0.1)
    on_text, on_random = ((x > 0.5).double().mean(0) for x in (text, random))
    expected = firing_table({"uniform-tokens": on_random}, on_text, 0.5)
    assert firing.drop("seed").equals(expected)
    expected = firing_histogram({"uniform-tokens": on_random}, on_text, 0.5)
    assert histogram.drop("seed").equals(expected)


def test_latents_silent_on_text_alone_are_fake_and_not_dense_by_any_cut_even_their_own():
    class Sign:
        """One latent: x where x is positive, so that text below 0 leaves it silent."""

        d_sae, k, W_dec = 1, 1, torch.eye(1)
        encode = staticmethod(lambda x: x.relu())

    text, random = -torch.ones(20, 1), {"uniform-tokens": shards(9 * torch.ones(20, 1))}
    metrics, *_ = fake_features_of_seeds({0: Sign()}, random, shards(text), 1.0, 0.1)
    found = {m: set(part["value"]) for (m,), part in metrics.group_by("metric")}
    assert found["fake_feature_ratio"] == found["fake_not_dense_ratio"] == {1.0}
    assert found["dense_feature_ratio"] == found["fake_and_dense_ratio"] == {0.0}
    assert found["mean_random_share"] == {1.0}
    assert all(math.isnan(value) for value in found["contrast_ratio"])


def test_a_study_that_counts_any_activation_has_one_absolute_cut():
    inputs = {"uniform-tokens": shards(relu_normal(9))}
    metrics, firing, _ = fake_features_of_seeds(
        {0: everything_fires()}, inputs, shards(relu_normal(9)), 0, 0.1
    )
    assert set(metrics.filter(pl.col("cut") == "absolute")["level"]) == {0.0}
    assert set(firing["min_activation"]) == {0.0}
