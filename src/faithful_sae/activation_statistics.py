"""How large activations are, where in a context, and what the positions policy removes."""

import numpy as np
import polars as pl

from faithful_sae.shards import Shards


def activation_statistics(shards: Shards) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables (metric, value) and, by position, (position, tokens, median_norm, p95_norm, max_norm).

    kept_fraction and kept_energy_fraction are the shares of tokens and of their summed squared
    norms that the positions policy keeps; median_norm and max_norm are over all tokens.
    """
    norm = shards.norm.astype(np.float64)
    energy = norm**2
    metrics = {
        "tokens": float(len(norm)),
        "kept_fraction": float(shards.kept.mean()),
        "kept_energy_fraction": float(energy[shards.kept].sum() / energy.sum()),
        "median_norm": float(np.median(norm)),
        "max_norm": float(norm.max()),
    }
    table = pl.DataFrame(
        list(metrics.items()), {"metric": pl.String, "value": pl.Float64}, orient="row"
    )
    norms = (
        pl.DataFrame({"position": shards.position, "norm": norm})
        .group_by("position")
        .agg(
            tokens=pl.len().cast(pl.Int64),
            median_norm=pl.col("norm").median(),
            p95_norm=pl.col("norm").quantile(0.95),
            max_norm=pl.col("norm").max(),
        )
        .sort("position")
    )
    return table, norms
