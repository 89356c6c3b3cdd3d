"""How often latents fire: their activations on tokens, encoded once, counted above any cut."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from faithful_sae.sae import SAE

ENCODE_TOKENS = 1024  # whose latents, [tokens, d_sae] with their zeros, are held at once


class Firings(NamedTuple):
    """Active latents of `tokens` tokens: their numbers and activations (> 0), each [pairs]."""

    latents: Tensor  # int32
    values: Tensor  # float32
    tokens: int


def firings(sae: SAE, batches: Iterable[Tensor]) -> Iterator[Firings]:
    """The active latents of activations [n, d_in], encoded once, 8 bytes a pair.

    Kept whole, those of a TopK SAE take 8 * k * tokens bytes: 50 MB at k = 64 and 1e5 tokens.
    """
    for batch in batches:
        for x in torch.split(batch, ENCODE_TOKENS):
            with torch.inference_mode():
                latents = sae.encode(x.to(sae.W_dec.device))
                rows, columns = torch.nonzero(latents > 0, as_tuple=True)
                values = latents[rows, columns]
            yield Firings(columns.int().cpu(), values.cpu(), len(x))


def own_quantile(fired: Sequence[Firings], d_sae: int, quantile: float) -> Tensor:
    """The quantile of each latent's own positive activations, [d_sae]; 0 where it has none.

    The smallest of a latent's n activations that at least quantile * n of them do not exceed
    (the inverse of the empirical distribution), so that no more than the rest lie above it. It
    scales with the latent: what exceeds it does not depend on any scale.
    """
    latents, values = (torch.cat(column) for column in list(zip(*fired, strict=True))[:2])
    by_value = values.argsort()
    order = by_value[latents[by_value].argsort(stable=True)]
    n = torch.bincount(latents, minlength=d_sae)
    # 0.9 means nine tenths: binary rounding must not move 0.9 * n across an integer.
    share = Fraction(str(quantile))
    rank = -(-n * share.numerator // share.denominator) - 1
    where = torch.where(n > 0, n.cumsum(0) - n + rank, len(order))
    return torch.cat([values[order], values.new_zeros(1)])[where]


def firing_frequencies(fired: Iterable[Firings], cuts: Tensor) -> Tensor:
    """Share of tokens on which each latent exceeds each cut: [n_cuts, d_sae] float64.

    Entry [c, i] = #{tokens : latents_i > cuts[c, i]} / tokens, counted per token seen.
    cuts: [n_cuts, d_sae], none negative. Raises ValueError when there is no token.
    """
    counts = torch.zeros(cuts.shape, dtype=torch.int64)
    total = 0
    for latents, values, tokens in fired:
        for row, cut in zip(counts, cuts, strict=True):
            row += torch.bincount(latents[values > cut[latents]], minlength=len(row))
        total += tokens
    if total == 0:
        raise ValueError("firing frequencies of no tokens: the batches of activations are empty")
    return counts.double() / total


def firing_table(
    random: Mapping[str, Tensor], heldout: Tensor, min_activation: float
) -> pl.DataFrame:
    """Firing frequency of every latent above `min_activation`: columns latent, min_activation,
    heldout and one for each random input.

    random: random input -> [d_sae]; heldout: [d_sae].
    """
    on = {"heldout": heldout, **random}
    return pl.DataFrame(
        {"latent": range(len(heldout)), "min_activation": [min_activation] * len(heldout)}
        | {name: frequencies.float().numpy() for name, frequencies in on.items()}
    )


def firing_histogram(
    random: Mapping[str, Tensor], heldout: Tensor, min_activation: float
) -> pl.DataFrame:
    """How many latents fire how often: columns random_input, min_activation, log10_frequency,
    latents.

    random_input is null for held-out text. log10_frequency is the lower edge of a bin a quarter of
    a decade wide, the last of which holds 1 too; null counts the latents that never fire. Empty
    bins have no row.  random: random input -> [d_sae] firing frequencies; heldout: [d_sae].
    """
    rows: list[tuple[str | None, float, float | None, int]] = []
    for name, frequencies in ((None, heldout), *random.items()):
        fires = frequencies > 0
        quarters = (4 * frequencies[fires].log10()).floor().clamp(max=-1)
        bins, latents = np.unique(quarters.numpy(), return_counts=True)
        counts = [
            (quarter / 4, n) for quarter, n in zip(bins.tolist(), latents.tolist(), strict=True)
        ]
        silent = int((~fires).sum())
        for edge, n in [(None, silent)] * (silent > 0) + counts:
            rows.append((name, min_activation, edge, n))
    schema = {
        "random_input": pl.String,
        "min_activation": pl.Float64,
        "log10_frequency": pl.Float64,
        "latents": pl.Int64,
    }
    return pl.DataFrame(rows, schema=schema, orient="row")
