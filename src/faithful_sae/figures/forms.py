"""Similarity of seeds in all its forms, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.figures.layout import (
    COMBINATION,
    Grid,
    canvas,
    heading,
    height,
    keep_zero_in_sight,
    legend,
    name_corpora,
)
from faithful_sae.figures.nulls import mark_nulls, note, null_marks, within_corpora
from faithful_sae.figures.style import (
    NEUTRAL,
    draw_interval,
    looks,
    pair_intervals,
    present,
    styled,
)
from faithful_sae.headline import SHARED_THRESHOLD, close_to
from faithful_sae.statistics import Interval

# Title -> metric and latents; all are shares of latents.
SHARES = {
    "decoder cosine": ("shared_feature_ratio", "all"),
    "decoder cosine, alive latents": ("shared_feature_ratio", "alive"),
    "decoder cosine, by firing": ("shared_feature_ratio", "firing_weighted"),
    "encoder and decoder agree": ("encoder_decoder_agreement", "all"),
    "correlation of activations": ("correlated_feature_ratio", "alive"),
}
HOLLOW: dict[str, Any] = {"markerfacecolor": "white"}
# Latents -> where they are drawn beside the corpus' place, and how.
GROUPS: dict[str, tuple[float, dict[str, Any]]] = {
    "matched": (-0.2, {}),
    "unmatched": (0.2, HOLLOW),
}


@styled
def similarity_forms(similarity: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Five shares of latents that two seeds have in common, and what the groups write, by corpus.

    Large marks: mean over pairs of seeds and the jackknife interval over seeds; the nulls that a
    form has are drawn at its corpus. Last panel: linear CKA of the contributions of latents with a
    partner above SHARED_THRESHOLD (filled) and of the others (hollow). The five shares have one
    scale. A study of one seed has no pairs: its nulls stand alone.
    """
    within = within_corpora(similarity, corpora)
    figure, rows = canvas(
        within, COMBINATION, lambda part: Grid(2, 3, height(part, 3.1, 4.6)), sharex=True
    )
    drawn: list[Interval] = []
    for row in rows:
        table = row.of(within)
        names = present(corpora, table)
        *panels, last = row.axes.flat
        for axes in panels[1:]:
            axes.sharey(panels[0])
        for axes, (title, (metric, latents)) in zip(panels, SHARES.items(), strict=True):
            part = table.filter(
                pl.col("metric") == metric,
                pl.col("latents") == latents,
                close_to("threshold", SHARED_THRESHOLD),
            )
            drawn += _by_corpus(axes, part, names, corpora, 0, {})
            axes.set_title(title)
        for latents, (offset, look) in GROUPS.items():
            part = table.filter(
                pl.col("metric") == "contribution_cka", pl.col("latents") == latents
            )
            drawn += _by_corpus(last, part, names, corpora, offset, look)
        last.set_title("contributions of matched\nand of other latents")
        last.set_ylabel("linear CKA")
        last.set_ylim(-0.04, 1.04)
        keep_zero_in_sight(panels[0])
        for axes in row.axes[:, 0]:
            axes.set_ylabel(f"share of latents\nabove {SHARED_THRESHOLD}")
    heading(figure, "Do SAEs of different seeds agree, whatever one counts?", note(drawn))
    group = {"color": NEUTRAL, "marker": "o", "ls": ""}
    groups = [
        Line2D([], [], label=f"{name} latents (CKA)", **group | look)
        for name, (_, look) in GROUPS.items()
    ]
    permuted = "null: permuted partners, shifted tokens"
    legend(figure, [*(groups if drawn else []), *null_marks(within, permuted)], columns=2)
    return figure


def _by_corpus(
    axes: Axes,
    table: pl.DataFrame,
    names: Sequence[str],
    corpora: Sequence[str],
    offset: float,
    look: dict[str, Any],
) -> list[Interval]:
    intervals = pair_intervals(table.filter(pl.col("null") == "none"), ["corpus"])
    for x, corpus in enumerate(names):
        mark_nulls(axes, x + offset, table, corpus)
        if (corpus,) in intervals:
            draw_interval(axes, x + offset, intervals[corpus,], looks(corpora)[corpus], **look)
    name_corpora(axes, names)
    return list(intervals.values())
