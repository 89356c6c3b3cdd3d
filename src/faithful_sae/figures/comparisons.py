"""Figures that set corpora beside each other: differences, doses and the paper's claims."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.claims import CLAIMS, DOSE, DOSE_CLAIMS
from faithful_sae.figures.style import (
    COMBINATION,
    NEUTRAL,
    canvas,
    corpus_lines,
    describe,
    draw_interval,
    heading,
    legend,
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
VERDICTS = {"holds": "#009E73", "does not": "#D55E00", "undecided": NEUTRAL}


@styled
def differences(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """The first corpus minus each other one, in every headline metric, with intervals over seeds.

    Filled marks: different after correction for all comparisons (p_adjusted < 0.05).
    """
    table = table.filter(pl.col("metric").is_in(list(METRICS)), pl.col("corpus_b").is_in(corpora))
    metrics = [metric for metric in METRICS if metric in set(table["metric"])]
    others = present(corpora, table, "corpus_b")
    height = 2 * (0.75 + 0.17 * len(others))
    figure, rows = canvas(table, COMBINATION, (2, math.ceil(len(metrics) / 2)), height, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        for axes in row.axes.flat[len(metrics) :]:
            axes.set_axis_off()
        for axes, metric in zip(row.axes.flat, metrics, strict=False):
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
        colour, marker = looks(corpora)[corpus]
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
    return drawn


@styled
def dose_response(
    summary: pl.DataFrame,
    corpus_statistics: pl.DataFrame,
    correlations: pl.DataFrame,
    corpora: Sequence[str],
) -> Figure:
    """Headline metrics against how far the corpus is from what the model would write.

    Dose: the settled surprise gap, NLL minus predictive entropy past the first positions
    (nats/token; 0 for the model's own samples). From five corpora on a least-squares line guides
    the eye and Spearman's correlation stands above it: through fewer points almost anything looks
    like a trend.
    """
    gaps = corpus_statistics.filter(
        pl.col("metric") == DOSE, pl.col("corpus").is_in(corpora)
    ).select("model", "corpus", gap="value")
    shown = summary.filter(pl.col("metric").is_in(list(METRICS))).join(gaps, on=["model", "corpus"])
    metrics = [metric for metric in METRICS if metric in set(shown["metric"])]
    shape = (2, math.ceil(len(metrics) / 2))
    correlations = correlations.filter(pl.col("dose") == DOSE)
    figure, rows = canvas(shown, COMBINATION, shape, 4.6)
    drawn: list[Interval] = []
    for row in rows:
        for axes in row.axes.flat[len(metrics) :]:
            axes.set_axis_off()
        for axes, metric in zip(row.axes.flat, metrics, strict=False):
            of_metric = pl.col("metric") == metric
            drawn += _responses(axes, row.of(shown).filter(of_metric), corpora)
            axes.set_title(_correlation(row.of(correlations).filter(of_metric)))
            axes.set_ylabel(METRICS[metric])
        for axes in row.axes[-1]:
            axes.set_xlabel("surprise gap of the\ncorpus (nats/token)")
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
        draw_interval(axes, gap, drawn[-1], *looks(corpora)[corpus])
    known = table.filter(pl.col("mean").is_finite())
    if known["gap"].n_unique() >= CORPORA_FOR_A_CORRELATION:
        x = known["gap"].to_numpy()
        slope, offset = np.polyfit(x, known["mean"].to_numpy(), 1)
        axes.plot([x[0], x[-1]], [slope * x[0] + offset, slope * x[-1] + offset], "--", c=NEUTRAL)
    axes.margins(x=0.12, y=0.15)
    return drawn


@styled
def claims(table: pl.DataFrame) -> Figure:
    """Every claim of the paper: our estimate with its interval, and the verdict as its colour.

    Each line has a scale of its own, turned so that the right of the middle line speaks for the
    claim; the numbers stand beside it.
    """
    rows_each = table.group_by(COMBINATION).len()["len"].max()
    assert isinstance(rows_each, int)
    figure, rows = canvas(table, COMBINATION, (1, 1), 0.6 + 0.19 * rows_each)
    for row in rows:
        _claims(row.axes[0, 0], row.of(table))
    known = table.filter(pl.col("seeds").is_not_null())
    drawn = [Interval(*row) for row in known.select("estimate", "low", "high", "seeds").iter_rows()]
    note = "each on a scale of its own: right of the middle speaks for the claim"
    heading(figure, "What the paper claims, and what this study finds", describe(drawn), note)
    lines = [
        Line2D([], [], color=colour, marker="o", label=f"verdict: {verdict}")
        for verdict, colour in VERDICTS.items()
    ]
    legend(figure, lines)
    return figure


def _claims(axes: Axes, table: pl.DataFrame) -> None:
    names = []
    order = [(claim.claim, claim.definition) for claim in (*CLAIMS, *DOSE_CLAIMS)]
    rows = list(table.iter_rows(named=True))
    rows.sort(key=lambda row: order.index((row["claim"], row["definition"])))
    for y, row in enumerate(rows):
        centre = 0.5 if row["expected"] == "most models" else 0.0
        turn = -1 if row["expected"] in ("lower", "falls") else 1
        reach = np.array([row["low"], row["estimate"], row["high"]], float) - centre
        scale = np.max(np.abs(reach), where=np.isfinite(reach), initial=0) or 1.0
        low, middle, high = turn * reach / scale
        colour = VERDICTS[row["verdict"]]
        axes.plot([low, high], [y, y], color=colour)
        axes.plot([middle], [y], "o", color=colour)
        axes.text(1.25, y, _numbers(row), va="center", parse_math=False)
        if row["texts_for"] is not None:
            axes.text(
                4.3, y, f"{row['texts_for']} / {row['texts_against']}", ha="center", va="center"
            )
            axes.text(5.35, y, row["texts"], ha="center", va="center")
        names.append(f"{row['claim']} ({row['definition']}): {row['expected']}")
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -1.5)
    axes.set_xlim(-1.05, 5.6)
    for x, words in ((1.25, "estimate and interval"), (4.3, "for / against"), (5.35, "texts")):
        axes.text(x, -1, words, ha="left" if x < 2 else "center", va="center", color=NEUTRAL)
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _numbers(row: dict[str, Any]) -> str:
    known = row["low"] is not None and math.isfinite(row["low"])
    interval = f"[{row['low']:.3g}, {row['high']:.3g}]" if known else "(no interval)"
    return f"{row['estimate']:.3g} {interval}"
