"""The look that all figures share: palette, marks of corpora, intervals and saving."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

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


class Look(NamedTuple):
    """How a corpus is drawn in every figure."""

    colour: str
    marker: str
    line: Any = "-"


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
