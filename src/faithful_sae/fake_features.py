"""Fake features: latents that fire often on random tokens (FaithfulSAE, Cho et al. 2025).

A latent as frequent on held-out real text is dense rather than fake (Sun et al. 2025), so every
rate on random tokens stands beside the same rate on held-out text.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import polars as pl
import torch
from torch import Tensor

from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

FREQUENCIES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5)  # of the curve


def firing_frequencies(
    sae: SAE, batches: Iterable[Tensor], min_activations: Sequence[float]
) -> Tensor:
    """Share of tokens on which each latent is active: [len(min_activations), d_sae] float64.

    Entry [c, i] = #{tokens : latents_i > min_activations[c]} / tokens, counted per token seen.
    batches: activations [n, d_in]; positions that do not count are left out by the caller.
    Raises ValueError when there is no token.
    """
    counts = torch.zeros(len(min_activations), sae.d_sae, dtype=torch.int64)
    tokens = 0
    for batch in batches:
        with torch.inference_mode():
            latents = sae.encode(batch.to(sae.W_dec.device))
            for row, cut in zip(counts, min_activations, strict=True):
                row += (latents > cut).sum(0).cpu()
        tokens += len(batch)
    if tokens == 0:
        raise ValueError("firing frequencies of no tokens: the batches of activations are empty")
    return counts.double() / tokens


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


def fake_features(
    random: Tensor,
    heldout: Tensor,
    k: int,
    min_activations: Sequence[float],
    frequencies: Sequence[float],
) -> pl.DataFrame:
    """Fake-feature metrics over both cuts: columns min_activation, frequency, metric, value.

    fake_feature_ratio: latents above `frequency` on random tokens.  fake_feature_ceiling: its
    maximum.  dense_feature_ratio: latents above `frequency` on held-out text.
    fake_not_dense_ratio: above it on random tokens but not on held-out text. All over d_sae.

    random, heldout: [len(min_activations), d_sae] from `firing_frequencies`.
    """
    rows = []
    for cut, on_random, on_heldout in zip(min_activations, random, heldout, strict=True):
        for frequency in frequencies:
            fake_only = (on_random > frequency) & (on_heldout <= frequency)
            for metric, value in (
                ("fake_feature_ratio", fake_feature_ratio(on_random, frequency)),
                ("fake_feature_ceiling", fake_feature_ceiling(k, frequency, len(on_random))),
                ("dense_feature_ratio", fake_feature_ratio(on_heldout, frequency)),
                ("fake_not_dense_ratio", fake_only.double().mean().item()),
            ):
                rows.append((float(cut), float(frequency), metric, value))
    schema = {
        "min_activation": pl.Float64,
        "frequency": pl.Float64,
        "metric": pl.String,
        "value": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")


def firing_table(random: Tensor, heldout: Tensor, min_activations: Sequence[float]) -> pl.DataFrame:
    """Firing frequency of every latent: columns latent, min_activation, random, heldout.

    random, heldout: [len(min_activations), d_sae] from `firing_frequencies`.
    """
    return pl.concat(
        pl.DataFrame(
            {
                "latent": range(len(on_random)),
                "min_activation": [float(cut)] * len(on_random),
                "random": on_random.float().numpy(),
                "heldout": on_heldout.float().numpy(),
            }
        )
        for cut, on_random, on_heldout in zip(min_activations, random, heldout, strict=True)
    )


def fake_features_of_seeds(
    saes: Mapping[int, SAE],
    random: Shards,
    heldout: Shards,
    min_activation: float,
    frequency: float,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """`fake_features` over FREQUENCIES and `firing_table` of every seed, with a column `seed`.

    The metrics are measured at the study's `min_activation` and at 0, which needs no scale; the
    table of every latent at the study's alone.
    """
    cuts = sorted({0.0, min_activation})
    frequencies = sorted({*FREQUENCIES, frequency})
    metrics, firing = [], []
    for seed, sae in saes.items():
        on_random, on_heldout = (
            firing_frequencies(sae, shards.batches(), cuts) for shards in (random, heldout)
        )
        seed_column = pl.lit(seed).alias("seed")
        table = fake_features(on_random, on_heldout, sae.k, cuts, frequencies)
        metrics.append(table.with_columns(seed_column))
        cut = cuts.index(min_activation)
        table = firing_table(on_random[[cut]], on_heldout[[cut]], [min_activation])
        firing.append(table.with_columns(seed_column))
    return pl.concat(metrics), pl.concat(firing)
