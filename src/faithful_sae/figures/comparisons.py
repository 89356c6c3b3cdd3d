"""Figures that set corpora beside each other: differences and doses."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithful_sae.claims import DOSE
from faithful_sae.comparisons import corpus_doses
from faithful_sae.figures.layout import COMBINATION, LINE, Grid, Row, canvas, heading, legend
from faithful_sae.figures.style import (
    NEUTRAL,
    corpus_lines,
    describe,
    draw_interval,
    looks,
    present,
    styled,
)
from faithful_sae.headline import SHARED_THRESHOLD
from faithful_sae.statistics import CORPORA_FOR_A_CORRELATION, Interval

# Headline metric -> words on its axis, with the direction that speaks for a corpus.
METRICS = {
    "shared_feature_ratio": f"shared feature ratio, cosine\n> {SHARED_THRESHOLD}, higher is better",
    "mean_matched_cosine_above_null": "mean matched cosine above\nthe null, higher is better",
    "fake_feature_ratio": "fake feature ratio,\nlower is better",
    "probing_accuracy": "probing accuracy,\nhigher is better",
    # On other text than the SAE's own: an easy corpus would make its SAEs look good.
    "ce_loss_increase:foreign": "CE loss increase on foreign\ntext (nats), lower is better",
    "explained_variance:foreign": "explained variance on foreign\ntext, higher is better",
}

ROUNDING = 1e-12  # differences up to this are none


def _grid(part: pl.DataFrame, height: float) -> Grid:
    """Panels for the metrics of one combination, three beside each other; `height` for each."""
    deep = math.ceil(part["metric"].n_unique() / 3)
    return Grid(deep, 3, height * deep + 0.15)


def _panels(row: Row, table: pl.DataFrame) -> Iterator[tuple[str, Any]]:
    """Every headline metric that this combination has, and its panel; the others are emptied."""
    metrics = present(list(METRICS), row.of(table), "metric")
    for unused in row.axes.flat[len(metrics) :]:
        unused.set_axis_off()
    yield from zip(metrics, row.axes.flat, strict=False)


@styled
def differences(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """The first corpus minus each other one, in every headline metric, with intervals over seeds.

    Filled marks: different after correction for all comparisons (p_adjusted < 0.05).
    """
    table = table.filter(pl.col("metric").is_in(list(METRICS)), pl.col("corpus_b").is_in(corpora))

    def grid(part: pl.DataFrame) -> Grid:
        return _grid(part, 0.75 + LINE * part["corpus_b"].n_unique())

    figure, rows = canvas(table, COMBINATION, grid, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        others = present(corpora, row.of(table), "corpus_b")
        for metric, axes in _panels(row, table):
            part = row.of(table).filter(pl.col("metric") == metric)
            drawn += _differences(axes, part, others, corpora)
            axes.set_xlabel(METRICS[metric])
    title = f"SAEs of {corpora[0]} minus SAEs of every other corpus"
    heading(figure, title, f"{describe(drawn)}; filled: p < 0.05 after correction")
    return figure


def _differences(
    axes: Axes, table: pl.DataFrame, others: list[str], corpora: Sequence[str]
) -> list[Interval]:
    drawn = []
    for y, corpus in enumerate(others):
        colour, marker, _ = looks(corpora)[corpus]
        for row in table.filter(pl.col("corpus_b") == corpus).iter_rows(named=True):
            interval = Interval(row["mean"], row["low"], row["high"], row["seeds"])
            drawn.append(interval)
            sure = row["p_adjusted"] is not None and row["p_adjusted"] < 0.05
            axes.plot([interval.low, interval.high], [y, y], color=colour)
            face = colour if sure else "white"
            axes.plot([interval.mean], [y], marker, color=colour, markerfacecolor=face)
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_yticks(range(len(others)), others, parse_math=False)
    axes.set_ylim(len(others) - 0.5, -0.5)
    bounds = [bound for interval in drawn for bound in interval[:3] if math.isfinite(bound)]
    if any(abs(bound) > ROUNDING for bound in bounds):
        axes.locator_params(axis="x", nbins=4)
    else:  # an axis of its own scale would be one of rounding errors
        axes.set_xlim(-1, 1)
        axes.set_xticks([0], ["0: no difference" if bounds else "no number"])
    return drawn


@styled
def dose_response(
    summary: pl.DataFrame,
    corpus_statistics: pl.DataFrame,
    correlations: pl.DataFrame,
    corpora: Sequence[str],
) -> Figure:
    """Headline metrics against how far the corpus is from what the model would write.

    Dose: the size of the settled surprise gap, NLL minus predictive entropy past the first
    positions (nats/token; 0 for the model's own samples). From five corpora on a least-squares
    line guides the eye and Spearman's correlation stands above it: through fewer points almost
    anything looks like a trend. Where one combination has so many, those with fewer are left out.
    """
    gaps = (
        corpus_doses(corpus_statistics)
        .filter(pl.col("dose") == DOSE, pl.col("corpus").is_in(corpora))
        .select("model", "corpus", gap="amount")
    )
    shown = summary.filter(pl.col("metric").is_in(list(METRICS))).join(gaps, on=["model", "corpus"])
    doses = pl.col("corpus").n_unique().over(COMBINATION)
    enough = shown.filter(doses >= CORPORA_FOR_A_CORRELATION)
    shown = shown if enough.is_empty() else enough
    correlations = correlations.filter(pl.col("dose") == DOSE)
    figure, rows = canvas(shown, COMBINATION, lambda part: _grid(part, 2.1))
    drawn: list[Interval] = []
    for row in rows:
        for metric, axes in _panels(row, shown):
            of_metric = pl.col("metric") == metric
            drawn += _responses(axes, row.of(shown).filter(of_metric), corpora)
            axes.set_title(_correlation(row.of(correlations).filter(of_metric)))
            axes.set_ylabel(METRICS[metric])
        part = row.axes[0, 0].figure
        part.supxlabel("size of the corpus' surprise gap (nats/token)", fontsize=8)
    heading(figure, "SAEs against how surprising their corpus is to the model", describe(drawn))
    legend(figure, corpus_lines(corpora, shown, marker=True))
    return figure


def _correlation(table: pl.DataFrame) -> str:
    for row in table.iter_rows(named=True):
        if row["corpora"] >= CORPORA_FOR_A_CORRELATION:
            return f"ρ = {row['spearman']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"
    return ""


def _responses(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    drawn = []
    table = table.sort("gap")
    points = table.select("corpus", "gap", "mean", "low", "high", "seeds").iter_rows()
    for corpus, gap, *interval in points:
        drawn.append(Interval(*interval))
        draw_interval(axes, gap, drawn[-1], looks(corpora)[corpus])
    known = table.filter(pl.col("mean").is_finite())
    if known["gap"].n_unique() >= CORPORA_FOR_A_CORRELATION:
        x = known["gap"].to_numpy()
        slope, offset = np.polyfit(x, known["mean"].to_numpy(), 1)
        axes.plot([x[0], x[-1]], [slope * x[0] + offset, slope * x[-1] + offset], "--", c=NEUTRAL)
    axes.margins(x=0.12, y=0.15)
    return drawn
