"""Do the measures of a study track what they stand for? Rank correlations with known truth.

A cell is a corpus and an SAE setting, its value the mean over seeds (over pairs of seeds for the
similarities).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import polars as pl
from scipy.stats import rankdata

from faithful_sae.headline import (
    RECOVERED_THRESHOLD,
    SHARED_THRESHOLD,
    absolute_cut,
    close_to,
)
from faithful_sae.random_inputs import UNIFORM
from faithful_sae.statistics import CORPORA_FOR_A_CORRELATION, Interval, rank_interval

CELL = ["model", "hook", "sae", "corpus"]
# What a study can measure, and the truth that it is taken to tell.
TRACKED = [
    ("shared_feature_ratio", "recovered_features"),
    ("shared_feature_ratio", "recovered_features_weighted"),
    ("shared_feature_ratio_alive", "recovered_features"),
    ("mean_matched_cosine", "recovered_features"),
    ("explained_variance", "recovered_features"),
    ("explained_variance_faithful", "recovered_features"),
    ("fake_feature_ratio", "truly_fake_ratio"),
]
# What cells are compared in: all at once, corpora at one SAE setting (as a study of corpora does),
# or SAE settings on one corpus.
COMPARED: dict[str, list[str]] = {"all": [], "corpora": ["sae"], "saes": ["corpus"]}
SCHEMA = {
    "model": pl.String,
    "hook": pl.String,
    "measure": pl.String,
    "frequency": pl.Float64,
    "truth": pl.String,
    "compared": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "cells": pl.Int64,
}


def ground_truth(tables: Mapping[str, pl.DataFrame], min_activation: float) -> pl.DataFrame:
    """Spearman correlation of each measure with its truth over cells: columns of SCHEMA.

    Of every pair in TRACKED and every set of cells in COMPARED; the Fake Feature Ratio at every
    frequency cut that was measured (and at the study's `min_activation`), since no cut is right by
    itself. `tables` are the gathered recovery, similarity and fake_features.
    """
    cells = _cells(
        tables["recovery"], tables["similarity"], tables["fake_features"], min_activation
    )
    rows = []
    for (model, hook), place in cells.group_by("model", "hook", maintain_order=True):
        for measure, truth in TRACKED:
            of_truth = place.filter(pl.col("metric") == truth).select(*CELL, truth="value")
            measured = place.filter(pl.col("metric") == measure).join(of_truth, on=CELL)
            for (frequency,), part in measured.group_by("frequency", maintain_order=True):
                for compared, within in COMPARED.items():
                    found = rank_correlation(part, "value", "truth", within)
                    rows.append(
                        (model, hook, measure, frequency, truth, compared, "spearman", *found)
                    )
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def rank_correlation(table: pl.DataFrame, x: str, y: str, within: list[str]) -> Interval:
    """Spearman correlation of two columns over rows, compared only `within` groups of rows.

    Ranks are taken and centred within each group (mid-ranks for ties) and correlated over all rows
    at once; without groups this is Spearman's rho. The interval is that of
    `statistics.rank_interval` for the rows of the largest group: what is in one order in every
    group (corpora, ever further away, at each SAE setting) is no more evidence than in one. NaN
    bounds for fewer than five. NaN where a column does not vary. The interval's last field is the
    number of rows. Rows that are not finite are left out.
    """
    known = table.filter(pl.col(x).is_finite() & pl.col(y).is_finite())
    if known.is_empty():
        return Interval(math.nan, math.nan, math.nan, 0)
    groups = known.partition_by(within) if within else [known]
    a, b = (
        np.concatenate([_centred_ranks(group[name].to_numpy()) for group in groups])
        for name in (x, y)
    )
    scale = math.sqrt(float(a @ a) * float(b @ b))
    if scale == 0:
        return Interval(math.nan, math.nan, math.nan, known.height)
    r = min(1.0, max(-1.0, float(a @ b) / scale))
    n = max(group.height for group in groups)
    if n < CORPORA_FOR_A_CORRELATION:
        return Interval(r, math.nan, math.nan, known.height)
    return Interval(r, *rank_interval(r, n), known.height)


def _centred_ranks(values: np.ndarray) -> np.ndarray:
    ranks: np.ndarray = rankdata(values)
    ranks -= ranks.mean()
    return ranks


def _cells(
    recovery: pl.DataFrame,
    similarity: pl.DataFrame,
    fake_features: pl.DataFrame,
    min_activation: float,
) -> pl.DataFrame:
    """Mean over seeds, or over pairs of them, of every metric in TRACKED, in every cell."""
    of_seeds = recovery.filter(
        pl.col("threshold").is_null() | close_to("threshold", RECOVERED_THRESHOLD),
        pl.col("frequency").is_null(),
    )
    of_pairs = similarity.filter(
        pl.col("corpus") == pl.col("corpus_b"),
        pl.col("null") == "none",
        pl.col("latents").is_in(["all", "alive"]),
        pl.col("threshold").is_null() | close_to("threshold", SHARED_THRESHOLD),
    )
    of_pairs = of_pairs.with_columns(
        metric=pl.when(pl.col("latents") == "alive")
        .then(pl.format("{}_alive", "metric"))
        .otherwise("metric"),
        frequency=pl.lit(None, pl.Float64),
    )
    fake = fake_features.filter(pl.col("random_input") == UNIFORM, absolute_cut(min_activation))
    columns = [*CELL, "metric", "frequency"]
    tables = [table.select(*columns, "value") for table in (of_seeds, of_pairs, fake)]
    named = {metric for pair in TRACKED for metric in pair}
    whole = pl.concat(tables).filter(pl.col("metric").is_in(named))
    return whole.group_by(columns).agg(pl.col("value").mean()).sort(columns)
