"""Firing frequencies are per token; the ceiling is exact; dense is told from fake."""

from fractions import Fraction
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.fake_features import (
    fake_feature_ceiling,
    fake_feature_ratio,
    fake_features,
    firing_frequencies,
    firing_table,
)

# The latents ARE the activations: counts can be read off the input.
IDENTITY = SimpleNamespace(d_sae=3, W_dec=torch.eye(3), encode=lambda x: x)


def test_frequencies_by_hand_count_tokens_strictly_above_each_cut():
    x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    frequencies = firing_frequencies(IDENTITY, [x], [0.0, 1.0])
    assert frequencies.tolist() == [[0.0, 1.0, 1.0], [0.0, 0.5, 0.5]]


def test_frequencies_do_not_depend_on_the_batches():
    x = torch.randn(23, 3, generator=torch.Generator().manual_seed(0)).relu()
    whole = firing_frequencies(IDENTITY, [x], [0.0, 0.5])
    for size in (1, 4, 22):
        assert torch.equal(firing_frequencies(IDENTITY, x.split(size), [0.0, 0.5]), whole)


def test_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="no tokens"):
        firing_frequencies(IDENTITY, [], [0.0])


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


def test_a_latent_dense_on_real_text_is_not_counted_as_fake_only():
    random = torch.tensor([[0.9, 0.9, 0.0, 0.0], [0.2, 0.0, 0.0, 0.0]])
    heldout = torch.tensor([[0.9, 0.0, 0.9, 0.9], [0.2, 0.0, 0.0, 0.0]])
    table = fake_features(random, heldout, k=2, min_activations=[0.0, 1.0], frequencies=[0.1, 0.5])
    assert table.columns == ["min_activation", "frequency", "metric", "value"]
    values = {row[:3]: row[3] for row in table.iter_rows()}
    assert len(values) == 16
    assert values[0.0, 0.1, "fake_feature_ratio"] == 0.5
    assert values[0.0, 0.1, "dense_feature_ratio"] == 0.75
    assert values[0.0, 0.1, "fake_not_dense_ratio"] == 0.25
    assert values[1.0, 0.1, "fake_feature_ratio"] == 0.25
    assert values[1.0, 0.1, "fake_not_dense_ratio"] == 0
    assert values[1.0, 0.5, "fake_feature_ratio"] == 0
    assert values[0.0, 0.5, "fake_feature_ceiling"] == 0.75


def test_ratios_fall_as_the_frequency_rises():
    generator = torch.Generator().manual_seed(0)
    random, heldout = (torch.rand(1, 50, generator=generator) for _ in range(2))
    table = fake_features(random, heldout, 5, [0.0], [0.05, 0.1, 0.3, 0.6])
    for metric in ("fake_feature_ratio", "dense_feature_ratio", "fake_feature_ceiling"):
        values = table.filter(pl.col("metric") == metric)["value"].to_list()
        assert values == sorted(values, reverse=True)


def test_firing_table_has_one_row_per_latent_and_cut():
    random = torch.tensor([[0.5, 0.25], [0.125, 0.0]])
    table = firing_table(random, random / 2, [0.0, 1.0])
    assert table.rows() == [
        (0, 0.0, 0.5, 0.25),
        (1, 0.0, 0.25, 0.125),
        (0, 1.0, 0.125, 0.0625),
        (1, 1.0, 0.0, 0.0),
    ]
