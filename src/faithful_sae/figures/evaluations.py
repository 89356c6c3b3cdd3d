"""The figure of how well SAEs rebuild activations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from faithful_sae.figures.layout import COMBINATION, Grid, canvas, heading
from faithful_sae.figures.style import describe, present, seed_intervals, styled
from faithful_sae.statistics import Interval

# Metric -> title and colour map; brighter is closer to the model in every panel.
HEATMAPS = {
    "ce_loss_increase": ("CE loss increase\n(nats/token, lower is better)", "cividis_r"),
    "mse": ("squared error, L2\n(activation units², lower is better)", "cividis_r"),
    "explained_variance": ("explained variance\n(share, higher is better)", "cividis"),
}
SIDE_BY_SIDE = 5  # columns of cells that a third of the width can hold
CELL = 0.3  # inches: a cell's height, two lines of text


@styled
def reconstruction(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Heatmaps of how well an SAE of each corpus (rows) rebuilds each corpus (columns).

    CE loss increase, mean squared error (the paper's L2) and explained variance on the positions
    that the policy keeps; each cell holds the mean over seeds and half the width of its interval.
    """
    kept = table.filter(pl.col("positions") == "kept", pl.col("corpus").is_in(corpora))
    figure, rows = canvas(kept, COMBINATION, _grid, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        trained = present(corpora, row.of(kept))
        evaluated = present(corpora, row.of(kept), "eval_corpus")
        for axes, (metric, (title, colours)) in zip(row.axes.flat, HEATMAPS.items(), strict=True):
            cells = seed_intervals(
                row.of(kept).filter(pl.col("metric") == metric), ["corpus", "eval_corpus"]
            )
            _heatmap(axes, cells, trained, evaluated, colours)
            axes.set_title(title if len(row.axes) == 1 else title.replace("\n", " "))
            drawn += cells.values()
        row.axes[0, 0].figure.supylabel("SAE trained on", fontsize=8)
        row.axes[0, 0].figure.supxlabel("evaluated on held-out text of", fontsize=8)
    note = describe(drawn).replace("95 % interval", "half-width of the 95 % interval")
    heading(figure, "How well SAEs rebuild their own and other corpora", f"cells: {note}")
    return figure


def _grid(part: pl.DataFrame) -> Grid:
    """Three panels beside each other, or above each other where their cells would be too narrow."""
    trained = part["corpus"].n_unique()
    if part["eval_corpus"].n_unique() <= SIDE_BY_SIDE:
        return Grid(1, len(HEATMAPS), 1.4 + CELL * trained)
    return Grid(len(HEATMAPS), 1, 0.5 + (0.8 + CELL * trained) * len(HEATMAPS))


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
