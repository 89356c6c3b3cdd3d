"""Nulls of similarity, marked alike in every figure that shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from faithful_sae.figures.style import NEUTRAL, describe
from faithful_sae.statistics import Interval

NULLS: dict[str, dict[str, Any]] = {
    "covariance": {"label": "null: rows from the covariance", "color": NEUTRAL, "ls": "--"},
    "untrained": {"label": "null: untrained SAEs", "color": "black", "ls": ":", "linewidth": 1},
    # Mostly 0, as all are at high thresholds: wide and pale below the others, so that all show.
    "permuted": {
        "label": "null: permuted partners",
        "color": "#BBBBBB",
        "linewidth": 3,
        "zorder": 1,
    },
}
CROSS: dict[str, Any] = {"color": NEUTRAL, "marker": "x", "markersize": 4, "ls": ""}


def within_corpora(similarity: pl.DataFrame, corpora: Sequence[str]) -> pl.DataFrame:
    """Comparisons of the seeds of one corpus with each other, nulls included."""
    return similarity.filter(
        pl.col("corpus").is_in(corpora), pl.col("corpus") == pl.col("corpus_b")
    )


def of(similarity: pl.DataFrame, corpus: str, null: str) -> pl.DataFrame:
    """One corpus, observed ("none") or one null."""
    return similarity.filter(pl.col("corpus") == corpus, pl.col("null") == null)


def mark_nulls(axes: Axes, x: float, similarity: pl.DataFrame, corpus: str) -> None:
    """The mean of each null of one corpus: lines across x, permuted partners a cross at x."""
    for null, style in NULLS.items():
        values = of(similarity, corpus, null)["value"].drop_nans()
        if values.is_empty():
            continue
        mean = values.sort().to_numpy().mean()
        if null == "permuted":
            axes.plot([x], [mean], **CROSS)
        else:
            axes.plot([x - 0.3, x + 0.3], [mean] * 2, **style | {"label": ""})


def null_lines(similarity: pl.DataFrame) -> dict[str, Line2D]:
    """Legend entries of the nulls that the table has, drawn as curves."""
    found = set(similarity["null"])
    return {null: Line2D([], [], **style) for null, style in NULLS.items() if null in found}


def null_marks(similarity: pl.DataFrame, permuted: str = "null: permuted partners") -> list[Line2D]:
    """Legend entries of `mark_nulls` for the nulls that the table has.

    permuted: what the crosses are called.
    """
    lines = null_lines(similarity)
    if "permuted" in lines:
        lines["permuted"].set(**CROSS, label=permuted)
    return list(lines.values())


def note(drawn: Sequence[Interval]) -> str:
    """What the marks show; in a study of one seed the nulls stand alone."""
    return describe(drawn) if drawn else f"{describe(drawn)}: the nulls alone"
