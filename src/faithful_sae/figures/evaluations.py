"""Figures on what SAEs reconstruct and what probes read of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

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
    seed_intervals,
    styled,
)
from faithful_sae.statistics import Interval

# Metric -> title and colour map; brighter is closer to the model in every panel.
HEATMAPS = {
    "ce_loss_increase": ("CE loss increase\n(nats/token, lower is better)", "cividis_r"),
    "mse": ("squared error, L2\n(activation units², lower is better)", "cividis_r"),
    "explained_variance": ("explained variance\n(share, higher is better)", "cividis"),
}
FEATURES = {
    "raw": "raw",
    "latents": "latents",
    "reconstruction": "recon-\nstruction",
    "random_dictionary": "random\ndictionary",
}


@styled
def reconstruction(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Heatmaps of how well an SAE of each corpus (rows) rebuilds each corpus (columns).

    CE loss increase, mean squared error (the paper's L2) and explained variance on the positions
    that the policy keeps; each cell holds the mean over seeds and half the width of its interval.
    """
    kept = table.filter(pl.col("positions") == "kept", pl.col("corpus").is_in(corpora))
    evaluated = present(corpora, kept, "eval_corpus")
    trained = present(corpora, kept)
    height = 1.3 + 0.42 * len(trained)
    figure, rows = canvas(kept, COMBINATION, (1, 3), height, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        for axes, (metric, (title, colours)) in zip(row.axes[0], HEATMAPS.items(), strict=True):
            cells = seed_intervals(
                row.of(kept).filter(pl.col("metric") == metric), ["corpus", "eval_corpus"]
            )
            _heatmap(axes, cells, trained, evaluated, colours)
            axes.set_title(title)
            drawn += cells.values()
        row.axes[0, 0].set_ylabel("SAE trained on")
        row.axes[0, 0].figure.supxlabel("evaluated on held-out text of", fontsize=8)
    note = describe(drawn).replace("95 % interval", "half-width of the 95 % interval")
    heading(figure, "How well SAEs rebuild their own and other corpora", f"cells: {note}")
    return figure


def _heatmap(
    axes: Axes,
    cells: dict[tuple[Any, ...], Interval],
    trained: list[str],
    evaluated: list[str],
    colours: str,
) -> None:
    grid = np.full((len(trained), len(evaluated)), np.nan)
    for (corpus, eval_corpus), interval in cells.items():
        if eval_corpus in evaluated:
            grid[trained.index(corpus), evaluated.index(eval_corpus)] = interval.mean
    image = axes.imshow(grid, cmap=colormaps[colours], aspect="auto")
    scale = Normalize(*image.get_clim())
    for (corpus, eval_corpus), interval in cells.items():
        if eval_corpus not in evaluated:
            continue
        red, green, blue, _ = image.cmap(scale(interval.mean))
        # A value that is not finite leaves its cell white.
        blank = not np.isfinite(interval.mean)
        bright = blank or 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        axes.text(
            evaluated.index(eval_corpus),
            trained.index(corpus),
            _cell(interval),
            ha="center",
            va="center",
            color="black" if bright else "white",
        )
    slanted: Any = {"rotation": 35, "ha": "right", "rotation_mode": "anchor", "parse_math": False}
    axes.set_xticks(range(len(evaluated)), evaluated, **slanted)
    axes.set_yticks(range(len(trained)), trained, parse_math=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def _cell(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return _short(interval.mean) + ("" if np.isnan(half) else f"\n±{_short(half)}")


def _short(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:.0f}"
    if 0 < abs(value) < 0.001:
        return "<.001"  # a digit more is wider than its cell
    return f"{value:.2f}" if abs(value) >= 0.095 or value == 0 else f"{value:.1g}"


@styled
def probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes on each task: raw activations, latents, reconstruction, random dictionary.

    Full probes only (k null). Dotted: always saying the most frequent class.
    """
    full = table.filter(pl.col("metric") == "accuracy", pl.col("k").is_null())
    of_saes = full.filter(pl.col("corpus").is_in(corpora))
    tasks = sorted(set(of_saes["task"]))
    figure, rows = canvas(of_saes, COMBINATION, (1, len(tasks)), 2.5)
    baselines = full.filter(pl.col("features").is_in(["raw", "majority"])).drop("sae")
    drawn: list[Interval] = []
    for row in rows:
        for axes, task in zip(row.axes[0], tasks, strict=True):
            drawn += _task(axes, row.of(of_saes).filter(pl.col("task") == task), corpora)
            _baselines(axes, row.of(baselines).filter(pl.col("task") == task))
            axes.set_title(task, parse_math=False)
        row.axes[0, 0].set_ylabel("accuracy on test documents")
    heading(figure, "What linear probes read from each kind of feature", describe(drawn))
    majority = Line2D([], [], color=NEUTRAL, linestyle=":", label="most frequent class")
    raw = Line2D([], [], color="black", marker="_", linestyle="", label="raw (needs no SAE)")
    legend(figure, [*corpus_lines(corpora, marker=True), raw, majority], columns=6)
    return figure


def _task(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names = present(corpora, table)
    points = seed_intervals(table, ["features", "corpus"])
    for (features, corpus), interval in points.items():
        shift = (names.index(corpus) - (len(names) - 1) / 2) * 0.8 / len(names)
        draw_interval(
            axes, list(FEATURES).index(features) + shift, interval, *looks(corpora)[corpus]
        )
    axes.set_xticks(range(len(FEATURES)), list(FEATURES.values()), rotation=90)
    axes.set_xlim(-0.6, len(FEATURES) - 0.4)
    return list(points.values())


def _baselines(axes: Axes, table: pl.DataFrame) -> None:
    # Of all seeds: they differ by the probe's validation split alone, the majority by nothing.
    for accuracy in table.filter(pl.col("features") == "majority")["value"].unique():
        axes.axhline(accuracy, linestyle=":", color=NEUTRAL)
    raw = table.filter(pl.col("features") == "raw")["value"].to_numpy()
    if len(raw):
        axes.fill_between([-0.35, 0.35], raw.min(), raw.max(), color="black", alpha=0.2)
        axes.plot([-0.35, 0.35], [raw.mean(), raw.mean()], color="black")
