"""The contexts in which a latent is strongest, to be read by people."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from faithful_sae.latents import TOKENS_PER_BATCH
from faithful_sae.sae import SAE
from faithful_sae.shard_format import read_column
from faithful_sae.shards import Shards

# Where latents are active: rows of the shards in file order, which latent, how strongly; each [n].
Active: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]


def strongest_contexts(
    sae: SAE, shards: Shards, latents: NDArray[np.int64], contexts: int, window: int
) -> pl.DataFrame:
    """For each latent the `contexts` contexts in which it is strongest, around their peak.

    A context of the model counts once, with its strongest token, and is cut to `window` tokens, two
    thirds of them before the peak where there are so many. Cuts of equal tokens are shown once.

    Columns latent, rank (0 first), peak (index into the lists), tokens (ids), activations (null
    where the positions policy leaves a token out). A latent that never fires has no row.
    """
    rows, which, values = _active(sae, shards, latents)
    token = np.concatenate([read_column(path, "token") for path in shards.paths])
    starts = np.append(np.flatnonzero(shards.position == 0), len(token))
    found: list[tuple[int, int, int, list[int], list[float | None]]] = []
    for number, latent in enumerate(latents.tolist()):
        mine = which == number
        fires, strength = rows[mine], values[mine]  # in file order
        order = np.argsort(-strength, kind="stable")
        seen: set[int | bytes] = set()
        rank = 0
        for row in fires[order].tolist():
            context = int(np.searchsorted(starts, row, side="right")) - 1
            low, high = _window(row, int(starts[context]), int(starts[context + 1]), window)
            cut = token[low:high]
            if context in seen or cut.tobytes() in seen:
                continue
            seen |= {context, cut.tobytes()}
            activations = np.zeros(high - low)
            inside = slice(*np.searchsorted(fires, [low, high]))
            activations[fires[inside] - low] = strength[inside]
            kept = shards.kept[low:high]
            shown = [float(a) if k else None for a, k in zip(activations, kept, strict=True)]
            found.append((latent, rank, row - low, cut.tolist(), shown))
            rank += 1
            if rank == contexts:
                break
    schema: dict[str, Any] = {
        "latent": pl.Int64,
        "rank": pl.Int64,
        "peak": pl.Int64,
        "tokens": pl.List(pl.Int64),
        "activations": pl.List(pl.Float32),
    }
    return pl.DataFrame(found, schema=schema, orient="row")


def _active(sae: SAE, shards: Shards, latents: NDArray[np.int64]) -> Active:
    parts: list[Active] = []
    chosen = torch.from_numpy(latents)
    for numbers, x in shards.blocks():
        for start in range(0, len(x), TOKENS_PER_BATCH):
            some = sae.encode(x[start : start + TOKENS_PER_BATCH])[:, chosen]
            row, which = (found.numpy() for found in torch.nonzero(some, as_tuple=True))
            parts.append((numbers[start + row], which, some.numpy()[row, which]))
    rows, which, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return rows, which, values


def _window(row: int, start: int, end: int, window: int) -> tuple[int, int]:
    """Rows [low, high) around `row` within [start, end), `window` of them where there are."""
    low = max(start, min(row - 2 * (window - 1) // 3, end - window))
    return low, min(end, low + window)
