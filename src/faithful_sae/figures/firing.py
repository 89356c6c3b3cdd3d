"""The figure of how often latents fire, on real text and on random tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.figures.layout import COMBINATION, Grid, across, canvas, heading, legend, panels
from faithful_sae.figures.style import NEUTRAL, describe_range, looks, styled
from faithful_sae.headline import close_to
from faithful_sae.random_inputs import SHUFFLED, UNIFORM, UNIGRAM

# Random input -> legend, marker and line of its histogram.
LINES: dict[str, tuple[str, str, Any]] = {
    UNIFORM: ("uniform ids", "o", "-"),
    UNIGRAM: ("ids as frequent as in text", "^", "--"),
    SHUFFLED: ("shuffled text", "s", ":"),
}


@styled
def firing_frequencies(
    table: pl.DataFrame, corpora: Sequence[str], min_activation: float
) -> Figure:
    """Histograms of how often latents fire, on held-out text and on random tokens.

    Share of latents by log10 of the share of tokens on which they exceed `min_activation`, filled
    for held-out text and as lines through the middles of the bins for random tokens; those that
    never do stand apart at the left. Mean over seeds, bands and bars: lowest to highest seed.
    """
    table = table.filter(
        close_to("min_activation", min_activation), pl.col("corpus").is_in(corpora)
    )
    lines = {name: look for name, look in LINES.items() if name in set(table["random_input"])}
    lowest = math.floor(table["log10_frequency"].min() or -1)  # type: ignore[arg-type]
    edges = np.linspace(lowest, 0, -lowest * 4 + 1)
    never = lowest * (1 + 0.08 * np.arange(4, 0, -1))  # places of those that never fire
    columns = across(table)

    def grid(part: pl.DataFrame) -> Grid:
        deep = math.ceil(part["corpus"].n_unique() / columns)
        return Grid(deep, columns, 1.45 * deep + 0.4)

    figure, rows = canvas(table, COMBINATION, grid, sharey=True)
    for row in rows:
        for corpus, (axes,) in panels(corpora, row.of(table), row.axes):
            part = row.of(table).filter(pl.col("corpus") == corpus)
            colour = looks(corpora)[corpus].colour
            mean, low, high = _histogram(part, None, edges)
            axes.stairs(mean[1:], edges, fill=True, color=colour, alpha=0.4)
            axes.stairs(high[1:], edges, baseline=low[1:], fill=True, color=colour, alpha=0.4)
            _draw_range(axes, never[0], mean[0], low[0], high[0], colour, "D")
            for x, (name, (_, marker, line)) in zip(never[1:], lines.items(), strict=False):
                mean, low, high = _histogram(part, name, edges)
                middles = (edges[1:] + edges[:-1]) / 2
                axes.fill_between(middles, low[1:], high[1:], color="black", alpha=0.1, linewidth=0)
                axes.plot(middles, mean[1:], line, color="black", linewidth=1)
                _draw_range(axes, x, mean[0], low[0], high[0], "black", marker)
            axes.set_title(corpus, parse_math=False)
            ticks = np.arange(0, lowest, -max(1, round(-lowest / 3)))
            axes.set_xticks([never.mean(), *ticks], ["never", *(f"{tick:.0f}" for tick in ticks)])
        # The panels share their scale, which is fixed from here on: all of them must be drawn.
        row.axes[0, 0].set_yscale("symlog", linthresh=1e-3)
        row.axes[0, 0].set_ylim(bottom=0)
        row.axes[0, 0].figure.supylabel("share of latents", fontsize=8)
        row.axes[0, 0].figure.supxlabel(
            f"log10 of the share of tokens with activation > {min_activation:g}", fontsize=8
        )
    heading(figure, "How often latents fire", describe_range(table))
    text = Line2D(
        [], [], color=NEUTRAL, alpha=0.5, linewidth=6, marker="D", markeredgewidth=0,
        label="held-out text (corpus colour)",
    )  # fmt: skip
    random = [
        Line2D([], [], color="black", linestyle=line, marker=marker, markersize=3, linewidth=1,
               label=label)
        for label, marker, line in lines.values()
    ]  # fmt: skip
    legend(figure, [text, *random])
    return figure


def _histogram(table: pl.DataFrame, random_input: str | None, edges: Any) -> Any:
    """Share of latents that never fire and of those in each bin: mean, lowest and highest seed."""
    table = table.filter(pl.col("random_input").eq_missing(pl.lit(random_input)))
    shares = []
    for _, part in table.group_by("seed", maintain_order=True):
        latents = dict(part.select("log10_frequency", "latents").iter_rows())
        counts = np.array([latents.get(edge, 0) for edge in (None, *edges[:-1].tolist())])
        shares.append(counts / counts.sum())
    return np.mean(shares, 0), np.min(shares, 0), np.max(shares, 0)


def _draw_range(
    axes: Axes, x: float, mean: float, low: float, high: float, colour: str, marker: str
) -> None:
    axes.plot([x, x], [low, high], color=colour, linewidth=1)
    axes.plot([x], [mean], marker, color=colour, markersize=3, clip_on=False)
