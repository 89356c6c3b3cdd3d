"""Similarity of two dictionaries: what is read off a one-to-one matching of their latents.

Shared Feature Ratio: FaithfulSAE (Cho et al. 2025); mean matched cosine: Song et al. 2025;
agreement of encoder and decoder: Paulo & Belrose 2025.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import polars as pl
import torch
from torch import Tensor

from faithful_sae.matching import Matching, match, match_smaller
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

# Paulo & Belrose count an agreement at this cosine; FaithfulSAE uses the same cut for the SFR.
AGREEMENT_THRESHOLD = 0.7
SCHEMA = {
    "latents": pl.String,
    "metric": pl.String,
    "threshold": pl.Float64,
    "value": pl.Float64,
}


def shared_feature_ratio(cosine: Tensor, threshold: float) -> float:
    """Share of matched latents whose cosine is strictly above `threshold`.

    SFR = #{i : cosine_i > threshold} / n  (FaithfulSAE; code of the authors: decoder, 0.7).
    cosine: [n] of a `Matching`. NaN when n is 0.
    """
    return (cosine > threshold).double().mean().item()


def mean_matched_cosine(cosine: Tensor) -> float:
    """Mean cosine of matched latents: stability without a threshold (Song et al. 2025, PW-MCC).

    Its null is far from 0 at small d_in, about sqrt(2 ln n / d_in): compare with `covariance_null`.
    cosine: [n] of a `Matching`. NaN when n is 0.
    """
    return cosine.double().mean().item()


def encoder_decoder_agreement(decoder: Matching, encoder: Matching, threshold: float) -> float:
    """Share of latents that decoder and encoder match to the same partner, both above `threshold`.

    #{i : decoder.partner_i = encoder.partner_i, both cosines > threshold} / n  (Paulo & Belrose
    2025). decoder, encoder: matchings of the same latents by W_dec rows and by W_enc columns.
    NaN when n is 0.
    """
    both = torch.minimum(decoder.cosine, encoder.cosine) > threshold
    return ((decoder.partner == encoder.partner) & both).double().mean().item()


def similarity(
    a: SAE, b: SAE, alive_a: Tensor, alive_b: Tensor, thresholds: Sequence[float]
) -> pl.DataFrame:
    """Similarity of two SAEs of the same shape: columns latents, metric, threshold, value.

    "all": every latent is matched; the denominator is d_sae, dead latents included (the paper's).
    "alive": only alive latents are matched, with each other; the denominator is the SMALLER of
    the two alive counts, since no more pairs can exist. NaN where no latent is alive.

    alive_a, alive_b: [d_sae] bool.  thresholds: cosines for the SFR; must contain 0.7.
    Raises ValueError for another shape, non-finite weights, or thresholds without 0.7.
    """
    if AGREEMENT_THRESHOLD not in thresholds:
        raise ValueError(
            f"similarity thresholds {list(thresholds)} do not contain {AGREEMENT_THRESHOLD}, "
            "the headline cut: add it"
        )
    frames = []
    for latents, decoder, encoder in (
        ("all", match(a.W_dec, b.W_dec), match(a.W_enc.T, b.W_enc.T)),
        (
            "alive",
            match_smaller(a.W_dec[alive_a], b.W_dec[alive_b]),
            match_smaller(a.W_enc.T[alive_a], b.W_enc.T[alive_b]),
        ),
    ):
        agreement = encoder_decoder_agreement(decoder, encoder, AGREEMENT_THRESHOLD)
        row = (latents, "encoder_decoder_agreement", AGREEMENT_THRESHOLD, agreement)
        frames.append(_cosine_rows(latents, decoder.cosine, thresholds))
        frames.append(pl.DataFrame([row], schema=SCHEMA, orient="row"))
    return pl.concat(frames)


def _cosine_rows(latents: str, cosine: Tensor, thresholds: Sequence[float]) -> pl.DataFrame:
    rows: list[tuple[str, str, float | None, float]] = [
        (latents, "shared_feature_ratio", threshold, shared_feature_ratio(cosine, threshold))
        for threshold in thresholds
    ]
    rows.append((latents, "mean_matched_cosine", None, mean_matched_cosine(cosine)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def covariance_null(
    covariance: Tensor, n: int, seed: int, thresholds: Sequence[float]
) -> pl.DataFrame:
    """Similarity of two dictionaries that share nothing but the activations' covariance.

    Two independent sets of n rows from N(0, covariance) are matched like decoders: what anisotropy
    alone yields. Rows as `similarity` gives them for "all" latents (no encoder, so no agreement).

    covariance: [d, d], centred.  Raises ValueError when it is not symmetric positive semi-definite.
    """
    matrix = covariance.double().cpu()
    values = torch.linalg.eigvalsh(matrix)
    if not torch.allclose(matrix, matrix.T) or values[0] < -1e-6 * values[-1]:
        raise ValueError(
            "the covariance is not symmetric positive semi-definite: "
            "build it with activation_covariance"
        )
    generator = torch.Generator().manual_seed(seed)
    # Cosines do not change with the axes, so rows are drawn along the eigenvectors; rounding leaves
    # eigenvalues a little below zero where the covariance is singular.
    deviations = values.clamp(min=0).sqrt()
    a, b = (
        torch.randn(n, len(matrix), dtype=torch.float64, generator=generator) * deviations
        for _ in range(2)
    )
    return _cosine_rows("all", match(a, b).cosine, thresholds)


def activation_covariance(batches: Iterable[Tensor]) -> Tensor:
    """Covariance of activations about their per-dimension mean, [d, d] float64.

    sum_t (x_t - mean)(x_t - mean)^T / (tokens - 1), in one pass over batches [n, d].
    Raises ValueError for fewer than two tokens.
    """
    tokens = 0
    origin = total = products = torch.zeros(())
    for batch in batches:
        rows = batch.double()
        if tokens == 0:
            # Sums about a rough mean: about zero, a large mean would cancel the variance away.
            origin = rows.mean(0)
            total, products = torch.zeros_like(origin), torch.zeros_like(rows.T @ rows)
        rows = rows - origin
        tokens += len(rows)
        total = total + rows.sum(0)
        products += rows.T @ rows
    if tokens < 2:
        raise ValueError(f"a covariance needs at least 2 tokens, found {tokens}: extract more")
    return (products - torch.outer(total, total) / tokens) / (tokens - 1)


def similarity_of_seeds(
    saes: Mapping[int, SAE], heldout: Shards, thresholds: Sequence[float]
) -> pl.DataFrame:
    """All pairs of seeds of one corpus, the same pairs untrained, and the covariance null.

    One covariance null is drawn for each pair, from the held-out activations.
    Columns seed, seed_b, null, latents, metric, threshold, value.
    """
    alive = {seed: alive_latents(sae, heldout) for seed, sae in saes.items()}
    covariance = activation_covariance(heldout.batches())
    frames = []
    # A single seed has no pair, but its nulls can still be drawn.
    pairs = list(combinations(sorted(saes), 2)) or [(seed, seed) for seed in saes]
    for number, (a, b) in enumerate(pairs):
        sae = saes[a]
        d_sae = sae.d_sae
        fresh_a, fresh_b = (
            SAE.untrained(d_in=sae.d_in, d_sae=d_sae, k=sae.k, seed=seed)
            for seed in (a, b if b != a else a + 1)
        )
        every = torch.ones(d_sae, dtype=torch.bool)
        tables = {
            "untrained": similarity(fresh_a, fresh_b, every, every, thresholds),
            "covariance": covariance_null(covariance, d_sae, number, thresholds),
        }
        if a != b:
            tables["none"] = similarity(sae, saes[b], alive[a], alive[b], thresholds)
        for null, table in tables.items():
            frames.append(_pair(table, {"seed": a, "seed_b": b, "null": null}))
    return pl.concat(frames)


def similarity_of_corpora(
    saes: Mapping[tuple[str, int], SAE],
    heldout: Mapping[str, Shards],
    thresholds: Sequence[float],
) -> pl.DataFrame:
    """SAEs of equal seed trained on different corpora; each corpus's own text says who is alive.

    saes: by (corpus, seed). Columns corpus, corpus_b, seed, seed_b, null, latents, metric,
    threshold, value.
    """
    alive = {key: alive_latents(sae, heldout[key[0]]) for key, sae in saes.items()}
    frames = []
    for a, b in combinations(saes, 2):
        if a[1] == b[1]:
            table = similarity(saes[a], saes[b], alive[a], alive[b], thresholds)
            pair: dict[str, int | str] = {
                "corpus": a[0],
                "corpus_b": b[0],
                "seed": a[1],
                "seed_b": b[1],
                "null": "none",
            }
            frames.append(_pair(table, pair))
    if not frames:  # a study of one corpus
        kinds: dict[str, Any] = {"seed": pl.Int32, "seed_b": pl.Int32}
        kinds |= dict.fromkeys(["corpus", "corpus_b", "null"], pl.String)
        return pl.DataFrame(schema=SCHEMA | kinds)
    return pl.concat(frames)


def alive_latents(sae: SAE, heldout: Shards) -> Tensor:
    """Latents [d_sae] bool that fire at least once on held-out text."""
    alive = torch.zeros(sae.d_sae, dtype=torch.bool)
    for x in heldout.batches():
        alive |= (sae.encode(x) > 0).any(0)
    return alive


def _pair(table: pl.DataFrame, coordinates: Mapping[str, int | str]) -> pl.DataFrame:
    return table.with_columns(pl.lit(value).alias(name) for name, value in coordinates.items())
