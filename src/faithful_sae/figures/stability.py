"""Figures on how alike the SAEs of different seeds are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    COMBINATION,
    NEUTRAL,
    canvas,
    corpus_lines,
    draw_band,
    draw_interval,
    heading,
    legend,
    looks,
    name_corpora,
    pair_intervals,
    present,
    styled,
)
from faithful_sae.headline import SHARED_THRESHOLD, close_to
from faithful_sae.statistics import Interval

BETWEEN: Any = {"color": NEUTRAL, "marker": "D", "markersize": 4, "mfc": "white", "linestyle": ""}


@styled
def shared_features(
    similarity: pl.DataFrame, summary: pl.DataFrame, corpora: Sequence[str]
) -> Figure:
    """Shared Feature Ratio and mean matched cosine by corpus, with their nulls.

    Large marks: mean over pairs of seeds and the interval of `summary` (the seed is the unit);
    small dots: the pairs; diamonds: mean similarity to SAEs of the other corpora, or to the other
    pretrained ones; for the nulls see `mark_nulls`. A study of one seed has no pairs: its nulls
    stand alone.
    """
    every = similarity.filter(pl.col("latents") == "all")
    within = within_corpora(every, corpora)
    ratio = (pl.col("metric") == "shared_feature_ratio") & close_to("threshold", SHARED_THRESHOLD)
    panels = {
        "shared_feature_ratio": (ratio, f"latents with a partner\nof cosine > {SHARED_THRESHOLD}"),
        "mean_matched_cosine": (
            pl.col("metric") == "mean_matched_cosine",
            "mean cosine\nof matched latents",
        ),
    }
    # Not from the summary: it has no row on similarity in a study of one seed, the nulls have.
    figure, rows = canvas(within, COMBINATION, (1, 2), 2.7)
    drawn: list[Interval] = []
    for row in rows:
        for axes, (metric, (values, label)) in zip(row.axes[0], panels.items(), strict=True):
            part = row.of(summary).filter(pl.col("metric") == metric)
            drawn += _corpus_marks(axes, part, row.of(every).filter(values), corpora)
            axes.set_ylabel(label)
            axes.set_ylim(bottom=-0.03 * axes.get_ylim()[1])  # a null of 0 stays in sight
    heading(figure, "Do SAEs of different seeds find the same latents?", note(drawn))
    pair = Line2D([], [], color=NEUTRAL, marker=".", linestyle="", label="one pair of seeds")
    other = Line2D([], [], **BETWEEN, label="with SAEs of other training")
    shown = [*([pair] if drawn else []), *([other] if every.height > within.height else [])]
    legend(figure, [*shown, *null_marks(within)], columns=3)
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
        colour, marker = looks(corpora)[corpus]
        mark_nulls(axes, x, within, corpus)
        rows = summary.filter(pl.col("corpus") == corpus).select("mean", "low", "high", "seeds")
        for values in rows.iter_rows():
            drawn.append(Interval(*values))
            draw_interval(axes, x, drawn[-1], colour, marker)
        pairs = of(within, corpus, "none")["value"].sort().to_numpy()
        axes.plot(np.full(len(pairs), x + 0.3), pairs, ".", color=colour, alpha=0.6)
        others = between.filter((pl.col("corpus") == corpus) | (pl.col("corpus_b") == corpus))
        if not others.is_empty():
            axes.plot([x - 0.3], [others["value"].sort().to_numpy().mean()], **BETWEEN)
    name_corpora(axes, names)
    return drawn


@styled
def threshold_curves(similarity: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Shared Feature Ratio against the cosine that counts as shared, one line per corpus.

    Band: jackknife interval over seeds; dashed: the corpus' covariance null; dotted: untrained SAEs
    and pale: permuted partners, both means over corpora.
    A study of one seed has no pairs: its nulls stand alone.
    """
    ratios = within_corpora(similarity, corpora).filter(
        pl.col("latents") == "all", pl.col("metric") == "shared_feature_ratio"
    )
    figure, rows = canvas(ratios, COMBINATION, (1, 1), 3.0)
    drawn: list[Interval] = []
    for row in rows:
        axes, table = row.axes[0, 0], row.of(ratios)
        for corpus in present(corpora, table):
            colour = looks(corpora)[corpus].colour
            curve = pair_intervals(of(table, corpus, "none"), ["threshold"])
            draw_band(axes, [x for (x,) in curve], *_columns(curve.values()), colour)
            drawn += curve.values()
            _null_curve(axes, of(table, corpus, "covariance"), "covariance", colour)
        for null in [null for null in NULLS if null != "covariance"]:
            _null_curve(axes, table.filter(pl.col("null") == null), null)
        axes.axvline(SHARED_THRESHOLD, color=NEUTRAL, linewidth=0.6)
        axes.set_xlabel(f"cosine that counts as shared (thin line: {SHARED_THRESHOLD})")
        axes.set_ylabel("shared feature ratio")
        axes.set_ylim(-0.02, 1.02)
    heading(figure, "Shared latents at every cosine threshold", note(drawn))
    lines = corpus_lines(corpora, ratios)
    for line in lines if not drawn else ():
        line.set(linestyle="--")  # the only lines in these colours are the covariance nulls
    legend(figure, [*lines, *null_lines(ratios).values()], columns=4)
    return figure


def _columns(intervals: Iterable[Interval]) -> tuple[list[float], list[float], list[float]]:
    rows = list(intervals)
    return [row.mean for row in rows], [row.low for row in rows], [row.high for row in rows]


def _null_curve(axes: Axes, table: pl.DataFrame, null: str, colour: str | None = None) -> None:
    curve = table.group_by("threshold").agg(pl.col("value").mean()).sort("threshold")
    style = {"linewidth": 1} | NULLS[null] | {"label": ""} | ({"color": colour} if colour else {})
    axes.plot(curve["threshold"], curve["value"], **style)
