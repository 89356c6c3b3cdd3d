"""The look that all figures share: palette, grid of panels, intervals, legend and saving."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
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
# Nine markers and three lines, so that colour and either of them tell 18 corpora apart.
MARKERS = ["o", "s", "^", "D", "v", "P", "X", "<", ">"]
LINES: list[Any] = ["-", (0, (4, 1.5)), (0, (1.2, 1.2))]
NEUTRAL = "#555555"
WIDTH = 7.0  # inches: the text width of a journal page, so 8 pt stays 8 pt in print
LINE = 0.165  # inches: a line of 8 pt text
ACROSS = 4  # panels of corpora beside each other: more would be too narrow for their ticks

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
    line: Any = "-"


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


def looks(corpora: Sequence[str]) -> dict[str, Look]:
    """Corpus -> colour, marker and line, fixed by its place in `corpora`."""
    return {
        corpus: Look(
            PALETTE[i % len(PALETTE)],
            MARKERS[i % len(MARKERS)],
            LINES[i // len(PALETTE) % len(LINES)],
        )
        for i, corpus in enumerate(corpora)
    }


def present(corpora: Sequence[str], table: pl.DataFrame, column: str = "corpus") -> list[str]:
    """The corpora that have rows in `table`, in the order of `corpora`."""
    found = set(table[column])
    return [corpus for corpus in corpora if corpus in found]


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


def draw_interval(axes: Axes, x: float, interval: Interval, look: Look, **more: Any) -> None:
    """Mean as a marker and the interval as a vertical bar with caps."""
    reach = [[interval.mean - interval.low], [interval.high - interval.mean]]
    style: dict[str, Any] = {"color": look.colour, "fmt": look.marker, "capsize": 2.5} | more
    axes.errorbar([x], [interval.mean], yerr=reach, **style)


def draw_band(
    axes: Axes,
    x: Sequence[float],
    middle: Sequence[float],
    low: Sequence[float],
    high: Sequence[float],
    look: Look,
) -> None:
    """A line with a band around it; the band is empty where its bounds are NaN."""
    axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
    axes.plot(x, middle, color=look.colour, linestyle=look.line)


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


def corpus_lines(corpora: Sequence[str], table: pl.DataFrame, marker: bool = False) -> list[Artist]:
    """Legend entries of the corpora that have rows in `table`, as lines or as markers."""
    return [
        Line2D([], [], color=look.colour, label=corpus,
               linestyle="" if marker else look.line, marker=look.marker if marker else "")
        for corpus, look in looks(corpora).items()
        if corpus in set(table["corpus"])
    ]  # fmt: skip


def save(figure: Figure, pdf: Path, png: Path, dpi: int) -> None:
    """Figure as PDF (fonts embedded as Type 42) and as PNG, each whole or not at all.

    Neither carries a date or a version: the same table gives the same bytes.
    """
    dateless = {"CreationDate": None, "Creator": None, "Producer": None}
    with rc_context(STYLE):
        if layout := figure.get_layout_engine():
            layout.execute(figure)
            figure.set_layout_engine(None)  # else savefig lays out and draws it twice, twice
        with written_whole(pdf) as temporary:
            figure.savefig(temporary, format="pdf", metadata=dateless)
        with written_whole(png) as temporary:
            figure.savefig(temporary, format="png", dpi=dpi, metadata={"Software": None})
