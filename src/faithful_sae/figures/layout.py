"""Where things stand in a figure: panels for each combination, headings, names and legends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from faithful_sae.figures.style import NEUTRAL, present

WIDTH = 7.0  # inches: the text width of a journal page, so 8 pt stays 8 pt in print
LINE = 0.165  # inches: a line of 8 pt text
ACROSS = 4  # panels of corpora beside each other: more would be too narrow for their ticks

# Corpora's names that fit across all panels: in characters side by side, in names if slanted by 30.
CHARACTERS, NAMES = 72, 24
# What gets panels of its own in a figure about SAEs.
COMBINATION = ["model", "hook", "sae"]


class Grid(NamedTuple):
    """The panels of one combination, and inches for all of them together."""

    rows: int
    columns: int
    height: float


class Row(NamedTuple):
    """One combination of coordinates (model, hook, sae) and the panels that show it."""

    where: pl.DataFrame
    axes: np.ndarray[Any, Any]

    def of(self, table: pl.DataFrame) -> pl.DataFrame:
        """Rows of `table` that belong here, by the coordinates that it has."""
        shared = [name for name in self.where.columns if name in table.columns]
        return table.join(self.where, on=shared, how="semi", maintain_order="left")


def height(part: pl.DataFrame, few: float, many: float) -> float:
    """Inches for panels that hold all corpora of `part`: `few` for two, up to `many` for twelve."""
    share = (min(part["corpus"].n_unique(), 12) - 2) / 10
    return few + (many - few) * max(share, 0)


def across(table: pl.DataFrame) -> int:
    """How many panels of one corpus each stand beside each other, full rows preferred."""
    most = table["corpus"].n_unique()
    return math.ceil(most / math.ceil(most / ACROSS))


def panels(
    corpora: Sequence[str], table: pl.DataFrame, axes: np.ndarray[Any, Any], deep: int = 1
) -> Iterator[tuple[str, Any]]:
    """The `deep` panels above each other of each corpus in `table`; the others are emptied.

    A model or an SAE may be studied on some of the corpora alone.
    """
    names = present(corpora, table)
    columns = axes.shape[1]
    stacks = axes.reshape(-1, deep, columns).swapaxes(1, 2).reshape(-1, deep)
    for unused in stacks[len(names) :].flat:
        unused.set_axis_off()
    yield from zip(names, stacks, strict=False)


def canvas(
    table: pl.DataFrame, keys: list[str], grid: Callable[[pl.DataFrame], Grid], **share: Any
) -> tuple[Figure, list[Row]]:
    """A figure with panels for each combination of `keys` in `table`.

    grid: rows of the table of one combination -> its panels; a control on two corpora needs less
    room than a study of twelve. Combinations on the most corpora come first, then models on the
    most, then by name: so controls stand last. Raises ValueError for a table without rows.
    """
    if table.is_empty():
        raise ValueError("nothing to draw: no row of the table is about a corpus of this study")
    named = [name for name in ("corpus", "corpus_b") if name in table.columns]
    size = pl.struct(named).n_unique() if named else pl.len()
    sizes = table.group_by(keys).agg(size=size)
    sizes = sizes.with_columns(of_model=pl.col("size").max().over("model"))
    falling = [True, True, *(False for _ in keys)]
    combinations = sizes.sort("size", "of_model", *keys, descending=falling).select(keys)
    rows = [Row(combinations[i], np.empty(0)) for i in range(combinations.height)]
    grids = [grid(row.of(table)) for row in rows]
    heights = [each.height for each in grids]
    figure = Figure(figsize=(WIDTH, sum(heights)), layout="constrained")
    parts = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for i, (part, (down, beside, _)) in enumerate(zip(parts, grids, strict=True)):
        title = " · ".join(rows[i].where.row(0))
        part.suptitle(title, fontsize=8, color=NEUTRAL, parse_math=False)
        rows[i] = Row(rows[i].where, part.subplots(down, beside, squeeze=False, **share))
    return figure, rows


def heading(figure: Figure, title: str, *notes: str) -> None:
    """Title in plain words, and under it what the marks are, in room of their own."""
    figure.suptitle("\n".join([title, *notes]))
    _make_room(figure, 1 + len(notes))


def _make_room(figure: Figure, lines: int) -> None:
    figure.set_figheight(figure.get_figheight() + LINE * (lines + 0.5))


def keep_zero_in_sight(axes: Axes) -> None:
    """Room below 0, so that marks and lines there do not lie on the x axis."""
    axes.set_ylim(bottom=-0.04 * axes.get_ylim()[1])


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
    """A legend for all panels, below them, in room of its own."""
    figure.legend(handles=handles, loc=where, ncols=min(columns, len(handles)), handlelength=2.6)
    _make_room(figure, math.ceil(len(handles) / columns))
