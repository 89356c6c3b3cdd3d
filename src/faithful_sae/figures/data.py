"""Figures on the corpora, their activations and the course of training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import EngFormatter, LogFormatter

from faithful_sae.figures.layout import (
    COMBINATION,
    Grid,
    across,
    canvas,
    heading,
    height,
    keep_zero_in_sight,
    legend,
    panels,
)
from faithful_sae.figures.style import (
    NEUTRAL,
    Look,
    corpus_lines,
    describe_range,
    draw_band,
    looks,
    present,
    styled,
)

TOP_TOKENS = 10
# As many of the model's likeliest tokens as the table holds (corpus_statistics.FIRST_TOKENS, which
# is not imported because figures need no torch).
FIRST_TOKENS = 1000
NORMS = {
    "median_norm": "median",
    "p95_norm": "95th percentile",
    "max_norm": "largest",
}


@styled
def first_tokens(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """What documents begin with: the model's own distribution against each corpus.

    Upper: the ten tokens likeliest under either; lower: both distributions, each sorted by itself,
    on log axes (tokens of probability zero are left out).
    """
    table = table.filter(pl.col("corpus").is_in(corpora))
    columns = across(table)

    def grid(part: pl.DataFrame) -> Grid:
        deep = math.ceil(part["corpus"].n_unique() / columns)
        return Grid(2 * deep, columns, 3.7 * deep + 0.4)

    figure, rows = canvas(table, ["model"], grid)
    for row in rows:
        row.axes[0, 0].get_gridspec().set_height_ratios([9, 5] * (len(row.axes) // 2))
        for corpus, (upper, lower) in panels(corpora, row.of(table), row.axes, deep=2):
            part = row.of(table).filter(pl.col("corpus") == corpus)
            colour = looks(corpora)[corpus].colour
            _top_tokens(upper, part, colour)
            upper.set_title(corpus, parse_math=False)
            if lower is not row.axes[1, 0]:
                lower.sharey(row.axes[1, 0])
            _sorted_curves(lower, part, colour)
            lower.set_xlabel("rank of the token")
        for axes in row.axes[1::2, 0]:
            axes.set_ylabel("share")
        words = "bars: share of first tokens; curves: all tokens, each sorted by itself"
        row.axes[0, 0].figure.supxlabel(words, fontsize=8)
    heading(figure, "First tokens of documents: what the model would write, and each corpus")
    handles = [
        Patch(color=NEUTRAL, label="model's probability after the start token"),
        Patch(facecolor="white", edgecolor="black", label="frequency in the corpus (its colour)"),
    ]
    legend(figure, handles)
    return figure


def _top_tokens(axes: Axes, table: pl.DataFrame, colour: str) -> None:
    top = table.sort(
        pl.max_horizontal("model_probability", "corpus_frequency"), "token", descending=True
    ).head(TOP_TOKENS)
    y = np.arange(top.height)
    axes.barh(y - 0.2, top["model_probability"], 0.4, color=NEUTRAL)
    axes.barh(y + 0.2, top["corpus_frequency"], 0.4, color=colour)
    # parse_math off: a token may well be a dollar sign.
    axes.set_yticks(y, [_visible(text) for text in top["text"]], parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.invert_yaxis()


def _visible(text: str, longest: int = 12) -> str:
    """Token in quotes and in ASCII, so that blanks, line ends and missing glyphs are seen."""
    whole = text
    while len(ascii(text)) > longest:
        text = text[:-1]
    escaped = ascii(text)
    return escaped if text == whole else f"{escaped[:-1]}…{escaped[-1]}"


def _sorted_curves(axes: Axes, table: pl.DataFrame, colour: str) -> None:
    for name, hue in [("model_probability", NEUTRAL), ("corpus_frequency", colour)]:
        # Beyond FIRST_TOKENS the table holds only the tokens that the corpus has.
        shares = table.filter(pl.col(name) > 0)[name].sort(descending=True).head(FIRST_TOKENS)
        axes.plot(np.arange(1, len(shares) + 1), shares, color=hue)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.minorticks_off()


@styled
def norms(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Activation norm by position in the context: median, 95th percentile and largest.

    Attention sinks are the tokens whose norm towers over the median, mostly at the first
    positions. Both axes are logarithmic, the position's one linear below 1.
    """
    table = table.filter(pl.col("corpus").is_in(corpora))
    figure, rows = canvas(table, ["model", "hook"], lambda _: Grid(1, len(NORMS), 2.4), sharey=True)
    for row in rows:
        for axes, (column, label) in zip(row.axes[0], NORMS.items(), strict=True):
            for corpus in present(corpora, row.of(table)):
                part = row.of(table).filter(pl.col("corpus") == corpus).sort("position")
                look = looks(corpora)[corpus]
                style: Any = {"color": look.colour, "linestyle": look.line, "linewidth": 1}
                axes.plot(part["position"], part[column], **style)
            axes.set_title(f"{label} over tokens")
            axes.set_yscale("log")
            axes.yaxis.set_minor_formatter(LogFormatter())  # within a decade: 22, not 2.2 × 10¹
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_major_formatter("{x:g}")
            axes.set_xlim(left=0)
        row.axes[0, 0].set_ylabel("norm of the activation")
        row.axes[0, 0].figure.supxlabel("position in the context (0 = start)", fontsize=8)
    heading(figure, "Activation norm by position: attention sinks stand out")
    legend(figure, corpus_lines(corpora, table))
    return figure


@styled
def training_curves(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Course of training: fraction of variance unexplained and share of dead latents.

    Lines: mean over seeds; bands: lowest to highest seed.
    """
    table = table.filter(pl.col("corpus").is_in(corpora))
    shown = {
        "fvu": "fraction of variance unexplained on training batches",
        "dead_fraction": "share of dead latents",
    }
    figure, rows = canvas(table, COMBINATION, lambda part: Grid(1, 2, height(part, 1.9, 2.6)))
    for row in rows:
        for axes, (column, label) in zip(row.axes[0], shown.items(), strict=True):
            for corpus in present(corpora, row.of(table)):
                part = row.of(table).filter(pl.col("corpus") == corpus)
                _band_over_seeds(axes, part, column, looks(corpora)[corpus])
            axes.set_title(label)
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))  # 100k, 1M
            keep_zero_in_sight(axes)
        row.axes[0, 0].figure.supxlabel("training tokens", fontsize=8)
    heading(figure, "Training of the SAEs, by corpus", describe_range(table))
    legend(figure, corpus_lines(corpora, table))
    return figure


def _band_over_seeds(axes: Axes, table: pl.DataFrame, column: str, look: Look) -> None:
    value = pl.col(column)
    curve = table.group_by("tokens").agg(mean=value.mean(), low=value.min(), high=value.max())
    curve = curve.sort("tokens")
    x, mean, low, high = (curve[name].to_list() for name in ("tokens", "mean", "low", "high"))
    draw_band(axes, x, mean, low, high, look)
