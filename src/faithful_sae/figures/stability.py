"""Figures on how alike the SAEs of different seeds are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.figures.layout import (
    COMBINATION,
    Grid,
    across,
    canvas,
    heading,
    height,
    keep_zero_in_sight,
    legend,
    name_corpora,
    panels,
)
from faithful_sae.figures.nulls import (
    NULLS,
    mark_nulls,
    note,
    null_lines,
    null_marks,
    of,
    within_corpora,
)
from faithful_sae.figures.style import (
    NEUTRAL,
    PALETTE,
    draw_band,
    draw_interval,
    looks,
    pair_intervals,
    present,
    styled,
)
from faithful_sae.headline import SHARED_THRESHOLD, close_to
from faithful_sae.statistics import Interval

PALE = "#BBBBBB"
Numbers = list[float]
BETWEEN: Any = {"color": NEUTRAL, "marker": "D", "markersize": 4, "mfc": "white", "linestyle": ""}


@styled
def shared_features(
    similarity: pl.DataFrame, summary: pl.DataFrame, corpora: Sequence[str]
) -> Figure:
    """Shared Feature Ratio and mean matched cosine by corpus, with their nulls.

    Large marks: mean over pairs of seeds and the interval of `summary` (the seed is the unit);
    small dots: the pairs; diamonds: mean similarity to SAEs of the other corpora; for the nulls see
    `mark_nulls`. A study of one seed has no pairs: its nulls stand alone.
    """
    every = similarity.filter(pl.col("latents") == "all")
    within = within_corpora(every, corpora)
    ratio = (pl.col("metric") == "shared_feature_ratio") & close_to("threshold", SHARED_THRESHOLD)
    shown = {
        "shared_feature_ratio": (ratio, f"latents with a partner\nof cosine > {SHARED_THRESHOLD}"),
        "mean_matched_cosine": (
            pl.col("metric") == "mean_matched_cosine",
            "mean cosine\nof matched latents",
        ),
    }
    # Not from the summary: it has no row on similarity in a study of one seed, the nulls have.
    figure, rows = canvas(within, COMBINATION, lambda part: Grid(1, 2, height(part, 1.8, 2.7)))
    drawn: list[Interval] = []
    for row in rows:
        for axes, (metric, (values, label)) in zip(row.axes[0], shown.items(), strict=True):
            part = row.of(summary).filter(pl.col("metric") == metric)
            drawn += _corpus_marks(axes, part, row.of(every).filter(values), corpora)
            axes.set_ylabel(label)
            keep_zero_in_sight(axes)
    heading(figure, "Do SAEs of different seeds find the same latents?", note(drawn))
    pair = Line2D([], [], color=NEUTRAL, marker=".", linestyle="", label="one pair of seeds")
    other = Line2D([], [], **BETWEEN, label="with SAEs of other training")
    keys = [*([pair] if drawn else []), *([other] if every.height > within.height else [])]
    legend(figure, [*keys, *null_marks(within)], columns=3)
    return figure


def _corpus_marks(
    axes: Axes, summary: pl.DataFrame, similarity: pl.DataFrame, corpora: Sequence[str]
) -> list[Interval]:
    within = within_corpora(similarity, corpora)
    apart = pl.col("corpus") != pl.col("corpus_b")
    between = similarity.filter(apart, pl.col("null") == "none")
    names = present(corpora, within)
    drawn = []
    for x, corpus in enumerate(names):
        look = looks(corpora)[corpus]
        mark_nulls(axes, x, within, corpus)
        rows = summary.filter(pl.col("corpus") == corpus).select("mean", "low", "high", "seeds")
        for values in rows.iter_rows():
            drawn.append(Interval(*values))
            draw_interval(axes, x, drawn[-1], look)
        pairs = of(within, corpus, "none")["value"].sort().to_numpy()
        axes.plot(np.full(len(pairs), x + 0.3), pairs, ".", color=look.colour, alpha=0.6)
        others = between.filter((pl.col("corpus") == corpus) | (pl.col("corpus_b") == corpus))
        if not others.is_empty():
            axes.plot([x - 0.3], [others["value"].sort().to_numpy().mean()], **BETWEEN)
    name_corpora(axes, names)
    return drawn


@styled
def threshold_curves(similarity: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Shared Feature Ratio against the cosine that counts as shared, a panel for each corpus.

    Band: jackknife interval over seeds; pale: the other corpora; the nulls are those of the corpus.
    A study of one seed has no pairs: its nulls stand alone.
    """
    ratios = within_corpora(similarity, corpora).filter(
        pl.col("latents") == "all", pl.col("metric") == "shared_feature_ratio"
    )
    columns = across(ratios)

    def grid(part: pl.DataFrame) -> Grid:
        deep = math.ceil(part["corpus"].n_unique() / columns)
        return Grid(deep, columns, 1.5 * deep + 0.4)

    figure, rows = canvas(ratios, COMBINATION, grid, sharex=True, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        table = row.of(ratios)
        curves = {
            corpus: pair_intervals(of(table, corpus, "none"), ["threshold"])
            for corpus in present(corpora, table)
        }
        for corpus, (axes,) in panels(corpora, table, row.axes):
            for curve in curves.values():
                axes.plot(*_curve(curve)[:2], color=PALE, linewidth=0.6, zorder=1)
            for null in NULLS:
                _null_curve(axes, of(table, corpus, null), null)
            look = looks(corpora)[corpus]._replace(line="-")
            draw_band(axes, *_curve(curves[corpus]), look)
            drawn += curves[corpus].values()
            axes.axvline(SHARED_THRESHOLD, color=NEUTRAL, linewidth=0.6)
            axes.set_ylim(-0.02, 1.02)
            axes.set_title(corpus, parse_math=False)
        part = row.axes[0, 0].figure
        words = f"cosine that counts as shared (thin line: {SHARED_THRESHOLD})"
        part.supxlabel(words, fontsize=8)
        part.supylabel("shared feature ratio", fontsize=8)
    heading(figure, "Shared latents at every cosine threshold", note(drawn))
    lines = [
        Line2D([], [], color=PALETTE[0], label="corpus of the panel (its colour)"),
        Line2D([], [], color=PALE, linewidth=0.6, label="the other corpora"),
    ]
    legend(figure, [*(lines if drawn else []), *null_lines(ratios).values()], columns=3)
    return figure


def _curve(curve: dict[tuple[Any, ...], Interval]) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    """Thresholds, means and both bounds."""
    found = curve.values()
    x = [threshold for (threshold,) in curve]
    return x, [i.mean for i in found], [i.low for i in found], [i.high for i in found]


def _null_curve(axes: Axes, table: pl.DataFrame, null: str) -> None:
    curve = table.group_by("threshold").agg(pl.col("value").mean()).sort("threshold")
    style = {"linewidth": 1} | NULLS[null] | {"label": ""}
    axes.plot(curve["threshold"], curve["value"], **style)
