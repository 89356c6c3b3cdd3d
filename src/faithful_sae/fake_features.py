"""Fake features: latents that fire often on random tokens (FaithfulSAE, Cho et al. 2025).

The paper's Fake Feature Ratio (FFR) counts the latents that are dense on uniformly random ids:
active, at an absolute cut, on more than `frequency` of the tokens. It does not ask that they be
rarer on real text, so a latent dense everywhere (Sun et al. 2025, arXiv 2506.15679) counts in full;
k latents a token cannot bring it above k / (frequency * d_sae), however unfaithful the SAE; and the
cut is in the units of the activations, so that FFR changes when they are rescaled. Beside it stand
therefore the same rate on held-out text and how many latents are dense on both, other random
inputs (random_tokens.py), and cuts at a quantile of each latent's own activations on text, which
no scale can change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction

import polars as pl
import torch
from torch import Tensor

from faithful_sae.firing import (
    firing_frequencies,
    firing_histogram,
    firing_table,
    firings,
    own_quantile,
)
from faithful_sae.heldout import Heldout
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

FREQUENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the curve
MULTIPLES = (0, 1 / 4, 1 / 2, 1, 2, 4)  # of the study's min_activation: the absolute cuts
QUANTILES = (0.5, 0.9)  # of a latent's own positive activations on held-out text


def fake_feature_ratio(random: Tensor, frequency: float) -> float:
    """Share of latents that fire on strictly more than `frequency` of random tokens (FFR).

    FFR = #{i : random_i > frequency} / d_sae. The paper, as its code is best read: uniform random
    token ids, activation > 1.0, frequency 0.1, 1e6 tokens.  random: [d_sae] firing frequencies.
    """
    return (random > frequency).double().mean().item()


def fake_feature_ceiling(k: int, frequency: float, d_sae: int) -> float:
    """The largest fake_feature_ratio that a TopK SAE can have.

    At most k latents fire per token, so firing frequencies sum to at most k; m of them strictly
    above `frequency` need m * frequency < k, hence m <= ceil(k / frequency) - 1, and m <= d_sae.
    Equal shares reach it. A batch_topk SAE keeps k only on average and may exceed this.

    Raises ValueError unless 0 < frequency < 1.
    """
    if not 0 < frequency < 1:
        raise ValueError(f"frequency is {frequency}: it is a share of tokens, between 0 and 1")
    # 0.1 means one tenth: binary rounding must not move k / frequency across an integer.
    most = math.ceil(k / Fraction(str(frequency))) - 1
    return min(most, d_sae) / d_sae


def contrast_ratio(fake: float, dense: float) -> float:
    """fake_feature_ratio / dense_feature_ratio: how many times as many latents are dense on random
    tokens as on text. NaN where none is dense on text: no ratio to nothing has a size.
    """
    return fake / dense if dense > 0 else math.nan


def mean_random_share(random: Tensor, heldout: Tensor) -> float:
    """Mean over latents of random_i / (random_i + heldout_i): no frequency has to be chosen.

    0.5 where latents fire as often on random tokens as on text, 1 where on random tokens alone.
    Latents that do neither are left out; NaN if none is left. Every latent weighs the same, and a
    rare one's share is noisy.  random, heldout: [d_sae] firing frequencies.
    """
    return (random / (random + heldout)).nanmean().item()


def fake_features(
    random: Mapping[str, Tensor],
    heldout: Tensor,
    k: int,
    cuts: Sequence[tuple[str, float]],
    frequencies: Sequence[float],
) -> pl.DataFrame:
    """Fake-feature metrics: columns random_input, cut, level, frequency, metric, value.

    A coordinate that a metric does not depend on is null. Of each random input, cut and frequency,
    over d_sae: fake_feature_ratio, latents above `frequency` on it; fake_and_dense_ratio and
    fake_not_dense_ratio, those of them above it on held-out text too, and those not. Beside them
    contrast_ratio, and of each random input and cut mean_random_share. Of each cut and frequency
    dense_feature_ratio, latents above it on held-out text. Of each frequency fake_feature_ceiling.

    random: random input -> [len(cuts), d_sae] from `firing_frequencies`; heldout: the same of text;
    cuts: what each row is of, ("absolute", activation) or ("own_quantile", quantile).
    """
    rows: list[tuple[str | None, str | None, float | None, float | None, str, float]] = []
    d_sae = heldout.shape[1]
    for frequency in frequencies:
        ceiling = fake_feature_ceiling(k, frequency, d_sae)
        rows.append((None, None, None, frequency, "fake_feature_ceiling", ceiling))
    for row, (cut, level) in enumerate(cuts):
        for name, on_random in random.items():
            share = mean_random_share(on_random[row], heldout[row])
            rows.append((name, cut, level, None, "mean_random_share", share))
        for frequency in frequencies:
            dense = heldout[row] > frequency
            dense_ratio = dense.double().mean().item()
            rows.append((None, cut, level, frequency, "dense_feature_ratio", dense_ratio))
            for name, on_random in random.items():
                fake = on_random[row] > frequency
                ratio = fake_feature_ratio(on_random[row], frequency)
                for metric, value in (
                    ("fake_feature_ratio", ratio),
                    ("fake_and_dense_ratio", (fake & dense).double().mean().item()),
                    ("fake_not_dense_ratio", (fake & ~dense).double().mean().item()),
                    ("contrast_ratio", contrast_ratio(ratio, dense_ratio)),
                ):
                    rows.append((name, cut, level, frequency, metric, value))
    schema = {
        "random_input": pl.String,
        "cut": pl.String,
        "level": pl.Float64,
        "frequency": pl.Float64,
        "metric": pl.String,
        "value": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def fake_features_of_seeds(
    saes: Mapping[int, SAE],
    random: Mapping[str, Shards],
    heldout: Shards | Heldout,
    min_activation: float,
    frequency: float,
) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    """`fake_features`, `firing_table` and `firing_histogram` of every seed, with a column `seed`.

    Absolute cuts at MULTIPLES of the study's `min_activation`, and the QUANTILES of each latent's
    own activations on held-out text. Over FREQUENCIES and the study's own; the multiples at the
    latter alone, since a row for each pair of cuts would be most of a study's tables. The two
    tables of firing are of the study's cut alone.
    """
    levels = sorted({multiple * float(min_activation) for multiple in MULTIPLES})
    cuts = [("absolute", level) for level in levels] + [("own_quantile", q) for q in QUANTILES]
    frequencies = sorted({*FREQUENCIES, frequency})
    headline = levels.index(min_activation)
    # The ceiling has neither cut nor level: it stays.
    at_multiples = pl.col("cut").eq_missing("absolute") & (pl.col("level") != levels[headline])
    wanted = ~at_multiples | pl.col("frequency").is_null() | (pl.col("frequency") == frequency)
    metrics, firing, histograms = [], [], []
    for seed, sae in saes.items():
        fired = list(firings(sae, heldout.batches()))
        thresholds = torch.stack(
            [torch.full([sae.d_sae], level) for level in levels]
            + [own_quantile(fired, sae.d_sae, q) for q in QUANTILES]
        )
        on_text = firing_frequencies(fired, thresholds)
        on_random = {
            name: firing_frequencies(firings(sae, shards.batches()), thresholds)
            for name, shards in random.items()
        }
        seed_column = pl.lit(seed).alias("seed")
        table = fake_features(on_random, on_text, sae.k, cuts, frequencies)
        metrics.append(table.filter(wanted).with_columns(seed_column))
        at_headline = {name: rows[headline] for name, rows in on_random.items()}
        table = firing_table(at_headline, on_text[headline], levels[headline])
        firing.append(table.with_columns(seed_column))
        table = firing_histogram(at_headline, on_text[headline], levels[headline])
        histograms.append(table.with_columns(seed_column))
    return pl.concat(metrics), pl.concat(firing), pl.concat(histograms)
