"""Firing frequencies are per token, above any cut; own quantiles are those of the activations."""

import math
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.fake_features import QUANTILES
from faithful_sae.firing import (
    firing_frequencies,
    firing_histogram,
    firing_table,
    firings,
    own_quantile,
)

# The latents ARE the activations: counts can be read off the input.
IDENTITY = SimpleNamespace(d_sae=3, W_dec=torch.eye(3), encode=lambda x: x)


def frequencies_of(batches, *cuts):
    thresholds = torch.tensor([[cut] * 3 for cut in cuts])
    return firing_frequencies(firings(IDENTITY, batches), thresholds)


def relu_normal(n, width=3, seed=0):
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed)).relu()


def test_frequencies_by_hand_count_tokens_strictly_above_each_cut():
    x = torch.tensor([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0]])
    assert frequencies_of([x], 0.0, 1.0).tolist() == [[0.0, 1.0, 1.0], [0.0, 0.5, 0.5]]


def test_frequencies_are_those_of_a_count_over_every_latent_of_every_token():
    x, cuts = relu_normal(50), torch.tensor([[0.0, 0.5, 1.0], [0.1, 0.1, 2.0]])
    found = firing_frequencies(firings(IDENTITY, [x]), cuts)
    assert torch.equal(found, torch.stack([(x > cut).double().mean(0) for cut in cuts]))


def test_frequencies_do_not_depend_on_the_batches(monkeypatch):
    x = relu_normal(23)
    whole = frequencies_of([x], 0.0, 0.5)
    for size in (1, 4, 22):
        assert torch.equal(frequencies_of(x.split(size), 0.0, 0.5), whole)
    monkeypatch.setattr("faithful_sae.firing.ENCODE_TOKENS", 5)
    assert torch.equal(frequencies_of([x], 0.0, 0.5), whole)


def test_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="no tokens"):
        frequencies_of([], 0.0)


def test_own_quantiles_by_hand_are_observed_activations_and_0_for_a_latent_that_never_fires():
    x = torch.tensor([[4.0, 0.0, 7.0], [1.0, 0.0, 0.0], [3.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    fired = list(firings(IDENTITY, x.split(3)))
    assert own_quantile(fired, 3, 0.5).tolist() == [2.0, 0.0, 7.0]
    assert own_quantile(fired, 3, 0.75).tolist() == [3.0, 0.0, 7.0]
    assert own_quantile(fired, 3, 0.9).tolist() == [4.0, 0.0, 7.0]
    assert own_quantile(list(firings(IDENTITY, [x * 0])), 3, 0.5).tolist() == [0.0] * 3


@given(st.integers(0, 2**16), st.integers(1, 60), st.sampled_from([0.1, 0.5, 0.7, 0.9]))
def test_own_quantiles_are_numpys_inverse_of_the_empirical_distribution(seed, n, quantile):
    x = relu_normal(n, seed=seed).round(decimals=1)  # with ties
    found = own_quantile(list(firings(IDENTITY, x.split(7))), 3, quantile)
    for latent, cut in enumerate(found.tolist()):
        positive = x[:, latent][x[:, latent] > 0].numpy()
        expected = np.quantile(positive, quantile, method="inverted_cdf") if len(positive) else 0
        assert cut == expected


@pytest.mark.parametrize("quantile", QUANTILES)
def test_on_the_text_they_are_taken_from_the_rest_of_the_activations_lies_above(quantile):
    x = relu_normal(200)
    fired = list(firings(IDENTITY, [x]))
    above = firing_frequencies(fired, own_quantile(fired, 3, quantile)[None])[0]
    n = (x > 0).sum(0)
    rest = [int(m) - math.ceil(Fraction(str(quantile)) * int(m)) for m in n]
    assert (above * 200).tolist() == pytest.approx(rest)


def test_firing_table_has_one_row_per_latent_and_a_column_per_input():
    random, heldout = torch.tensor([0.5, 0.25]), torch.tensor([0.125, 0.0])
    table = firing_table({"uniform-tokens": random, "x": random / 2}, heldout, 1.0)
    assert table.columns == ["latent", "min_activation", "heldout", "uniform-tokens", "x"]
    assert table.rows() == [(0, 1.0, 0.125, 0.5, 0.25), (1, 1.0, 0.0, 0.25, 0.125)]
    assert table["x"].dtype == pl.Float32


def test_firing_histogram_counts_each_latent_once_in_quarters_of_a_decade():
    # 0.1 begins the bin [0.1, 0.178): log10 is -1. 1 belongs to the last bin, from -0.25 on.
    heldout = torch.tensor([0.1, 0.17, 0.18, 1.0, 0.6, 0.0], dtype=torch.float64)
    table = firing_histogram({"uniform-tokens": torch.zeros(6)}, heldout, 2.0)
    assert table.columns == ["random_input", "min_activation", "log10_frequency", "latents"]
    assert table.rows() == [
        (None, 2.0, None, 1),
        (None, 2.0, -1.0, 2),
        (None, 2.0, -0.75, 1),
        (None, 2.0, -0.25, 2),
        ("uniform-tokens", 2.0, None, 6),
    ]
