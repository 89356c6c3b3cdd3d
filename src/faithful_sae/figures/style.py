"""The look that all figures share: palette, grid of panels, intervals, legend and saving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.files import written_whole
from faithful_sae.statistics import Interval, pair_interval, seed_interval

# Okabe and Ito (2008), told apart with every common colour blindness; without the yellow, which
# vanishes on white, and the black, which marks what belongs to no corpus.
PALETTE = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9"]
# Nine markers, so that colour and marker together tell 18 corpora apart.
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
NEUTRAL = "#555555"
WIDTH = 7.0  # inches: the text width of a journal page, so 8 pt stays 8 pt in print

# Corpora's names that fit across all panels: in characters side by side, in names if slanted by 30.
CHARACTERS, NAMES = 72, 24

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same glyphs on every machine
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "figure.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "hatch.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType: journals reject the default Type 3
}
styled = rc_context(STYLE)
# What gets panels of its own in a figure about SAEs.
COMBINATION = ["model", "hook", "sae"]


class Look(NamedTuple):
    """How a corpus is drawn in every figure."""

    colour: str
    marker: str


class Row(NamedTuple):
    """One combination of coordinates (model, hook, sae) and the panels that show it."""

    where: pl.DataFrame
    axes: np.ndarray[Any, Any]

    def of(self, table: pl.DataFrame) -> pl.DataFrame:
        """Rows of `table` that belong here, by the coordinates that it has."""
        shared = [name for name in self.where.columns if name in table.columns]
        return table.join(self.where, on=shared, how="semi", maintain_order="left")


def looks(corpora: Sequence[str]) -> dict[str, Look]:
    """Corpus -> colour and marker, fixed by its place in `corpora`."""
    return {
        corpus: Look(PALETTE[i % len(PALETTE)], MARKERS[i % len(MARKERS)])
        for i, corpus in enumerate(corpora)
    }


def present(corpora: Sequence[str], table: pl.DataFrame, column: str = "corpus") -> list[str]:
    """The corpora that have rows in `table`, in the order of `corpora`."""
    found = set(table[column])
    return [corpus for corpus in corpora if corpus in found]


def panels(
    corpora: Sequence[str], table: pl.DataFrame, axes: np.ndarray[Any, Any]
) -> Iterator[tuple[str, Any]]:
    """A column of `axes` (of one row: a panel) for each corpus in `table`; the others are emptied.

    A model or an SAE may be studied on some of the corpora alone.
    """
    names = present(corpora, table)
    for unused in axes.T[len(names) :].flat:
        unused.set_axis_off()
    yield from zip(names, axes.T, strict=False)


def canvas(
    table: pl.DataFrame, keys: list[str], shape: tuple[int, int], height: float, **share: Any
) -> tuple[Figure, list[Row]]:
    """A figure with `shape` panels for each combination of `keys` in `table`.

    height: inches for each combination. Raises ValueError for a table without rows.
    """
    if table.is_empty():
        raise ValueError("nothing to draw: no row of the table is about a corpus of this study")
    combinations = table.select(keys).unique().sort(keys)
    width = max(WIDTH, 1.6 * shape[1])
    figure = Figure(figsize=(width, height * combinations.height + 0.8), layout="constrained")
    parts = figure.subfigures(combinations.height, 1, squeeze=False)[:, 0]
    rows = []
    for i, part in enumerate(parts):
        where = combinations[i]
        part.suptitle(" · ".join(where.row(0)), fontsize=8, color=NEUTRAL, parse_math=False)
        rows.append(Row(where, part.subplots(*shape, squeeze=False, **share)))
    return figure, rows


def heading(figure: Figure, title: str, *notes: str) -> None:
    """Title in plain words, and under it what the marks are."""
    figure.suptitle("\n".join([title, *notes]))


def describe(intervals: Iterable[Interval]) -> str:
    """What the marks show: mean and interval, with the number of seeds."""
    shown = list(intervals)
    if not shown:
        return "too few seeds to compare"
    counts = sorted({interval.seeds for interval in shown})
    span = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    seeds = f"n = {span} seed{'' if counts == [1] else 's'}"
    known = [math.isfinite(interval.low) for interval in shown]
    if all(known):
        return f"mean and 95 % interval, {seeds}"
    if any(known):
        return f"mean and 95 % interval where one can be given, {seeds}"
    return f"mean, {seeds}, too few for an interval"


def describe_range(table: pl.DataFrame) -> str:
    """The note of a figure that shows the seeds themselves, not an interval."""
    seeds = table["seed"].n_unique()
    return "one line, n = 1 seed" if seeds == 1 else f"mean and range over n = {seeds} seeds"


def seed_intervals(table: pl.DataFrame, by: list[str]) -> dict[tuple[Any, ...], Interval]:
    """Interval of `value` over seeds for each combination of `by`, sorted."""
    found = {}
    for key, part in table.group_by(by):
        values = dict(part.select("seed", "value").iter_rows())
        _require_one_value(len(values), part, key)
        found[key] = seed_interval(values)
    return dict(sorted(found.items()))


def pair_intervals(table: pl.DataFrame, by: list[str]) -> dict[tuple[Any, ...], Interval]:
    """Interval of `value` over pairs of seeds for each combination of `by`, sorted."""
    found = {}
    for key, part in table.group_by(by):
        values = {(a, b): v for a, b, v in part.select("seed", "seed_b", "value").iter_rows()}
        _require_one_value(len(values), part, key)
        found[key] = pair_interval(values)
    return dict(sorted(found.items()))


def _require_one_value(distinct: int, part: pl.DataFrame, key: tuple[Any, ...]) -> None:
    if distinct != part.height:
        raise ValueError(f"several values for the same seed at {key}: gather every table once")


def draw_interval(
    axes: Axes, x: float, interval: Interval, colour: str, marker: str, **look: Any
) -> None:
    """Mean as a marker (none: only the bar) and the interval as a vertical bar with caps."""
    reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
    axes.errorbar([x], [interval.mean], yerr=reach, color=colour, fmt=marker, capsize=2.5, **look)


def draw_band(
    axes: Axes,
    x: Sequence[float],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    colour: str,
) -> None:
    """A line with a band around it; the band is empty where its bounds are NaN."""
    axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(x, middle, color=colour)


def name_corpora(axes: Axes, corpora: Sequence[str]) -> None:
    """Corpora as the categories of the x axis, one place each from 0; slanted where they crowd."""
    grid = axes.get_subplotspec()
    panels = grid.get_gridspec().ncols if grid else 1
    slanted: dict[str, Any] = {"ha": "right", "rotation_mode": "anchor"}
    slanted["rotation"] = 60 if panels * len(corpora) > NAMES else 30
    crowded = panels * sum(map(len, corpora)) > CHARACTERS
    axes.set_xticks(range(len(corpora)), corpora, parse_math=False, **(slanted if crowded else {}))
    axes.set_xlim(-0.6, len(corpora) - 0.4)


def legend(
    figure: Figure,
    handles: Sequence[Artist],
    columns: int = 5,
    where: Any = "outside lower center",
) -> None:
    """A legend for all panels, below them."""
    figure.legend(handles=handles, loc=where, ncols=min(columns, len(handles)))


def corpus_lines(corpora: Sequence[str], table: pl.DataFrame, marker: bool = False) -> list[Artist]:
    """Legend entries of the corpora that have rows in `table`."""
    line: Any = {"linestyle": ""} if marker else {"marker": ""}
    return [
        Line2D([], [], **{"color": look.colour, "marker": look.marker, "label": corpus} | line)
        for corpus, look in looks(corpora).items()
        if corpus in set(table["corpus"])
    ]


def save(figure: Figure, pdf: Path, png: Path, dpi: int) -> None:
    """Figure as PDF (fonts embedded as Type 42) and as PNG, each whole or not at all.

    Neither carries a date or a version: the same table gives the same bytes.
    """
    dateless = {"CreationDate": None, "Creator": None, "Producer": None}
    with rc_context(STYLE):
        with written_whole(pdf) as temporary:
            figure.savefig(temporary, format="pdf", metadata=dateless)
        with written_whole(png) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
