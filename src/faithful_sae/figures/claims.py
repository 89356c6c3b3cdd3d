"""The figure of the paper's claims: a table with an interval drawn on every line."""

from __future__ import annotations

import math
from itertools import groupby
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path

from faithful_sae.claims import CLAIMS, DOSE_CLAIMS
from faithful_sae.figures.layout import COMBINATION, LINE, Grid, canvas, heading, legend
from faithful_sae.figures.style import NEUTRAL, STYLE, Look, describe, styled
from faithful_sae.statistics import Interval

VERDICTS = {
    "holds": Look("#009E73", "o"),
    "mixed": Look("#E69F00", "s"),
    "does not": Look("#D55E00", "X"),
    "undecided": Look(NEUTRAL, "d"),
}
GAP = 12  # points between columns
FONT = FontProperties(family=STYLE["font.family"], size=STYLE["font.size"])


@styled
def claims(table: pl.DataFrame) -> Figure:
    """Every claim of the paper: our estimate with its interval, and the verdict as its colour.

    Under each claim stand the metrics that test it. Each line has a scale of its own, turned so
    that the right of the middle line speaks for the claim; the numbers stand beside it.
    """
    order = [(claim.claim, claim.definition) for claim in (*CLAIMS, *DOSE_CLAIMS)]
    rows = sorted(
        table.iter_rows(named=True), key=lambda row: order.index((row["claim"], row["definition"]))
    )
    widths = _widths(rows)

    def grid(part: pl.DataFrame) -> Grid:
        return Grid(1, 1, 0.25 + LINE * (part.height + part["claim"].n_unique() + 1.5))

    figure, combinations = canvas(table, COMBINATION, grid)
    for combination in combinations:
        here = combination.where.row(0)
        mine = [row for row in rows if tuple(row[name] for name in COMBINATION) == here]
        _claims(combination.axes[0, 0], mine, widths)
    known = table.filter(pl.col("seeds").is_not_null())
    drawn = [Interval(*row) for row in known.select("estimate", "low", "high", "seeds").iter_rows()]
    note = "each on a scale of its own: right of the middle speaks for the claim"
    heading(figure, "What the paper claims, and what this study finds", describe(drawn), note)
    lines = [
        Line2D([], [], color=look.colour, marker=look.marker, label=f"verdict: {verdict}")
        for verdict, look in VERDICTS.items()
    ]
    legend(figure, lines)
    return figure


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Column -> what stands in this line."""
    texts = {"for / against": "", "texts": ""}
    if row["texts_for"] is not None:
        texts = {
            "for / against": f"{row['texts_for']} / {row['texts_against']}",
            "texts": f"{row['texts']}",
        }
    estimate = {"estimate": _number(row, "estimate"), "interval": _bounds(row)}
    return {"metric": row["definition"], "claimed": row["expected"]} | estimate | texts


def _widths(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Points that each column needs, over all combinations, so that they stand in line."""
    widths: dict[str, float] = {}
    for row in rows:
        for column, words in _cells(row).items():
            widths[column] = max(_points(words), _points(column), widths.get(column, 0))
    return widths


def _points(words: str) -> float:
    width, _, _ = text_to_path.get_text_width_height_descent(words, FONT, ismath=False)
    return float(width)


LEFT = ("metric", "claimed")  # columns on the left of the intervals; the others on the right


def _places(widths: dict[str, float]) -> dict[str, float]:
    """Column -> points from the nearer side of the panel to where its words begin."""
    places, x = {}, 0.0
    for column in reversed(LEFT):
        x -= widths[column] + GAP
        places[column] = x
    x = float(GAP)
    for column in widths:
        if column not in LEFT:
            places[column] = x
            x += widths[column] + GAP
    return places


def _claims(axes: Axes, rows: list[dict[str, Any]], widths: dict[str, float]) -> None:
    places = _places(widths)

    def write(column: str, y: float, words: str, **look: Any) -> None:
        axes.annotate(
            words,
            (0 if column in LEFT else 1, y),
            xycoords=("axes fraction", "data"),
            xytext=(places[column] - (GAP / 2 if look.get("weight") else 0), 0),
            textcoords="offset points",
            va="center",
            parse_math=False,
            **look,
        )

    for column in widths:
        write(column, 0, column, color=NEUTRAL)
    y = 0
    for claim, group in groupby(rows, key=lambda row: row["claim"]):
        y += 1
        write("metric", y, claim, weight="bold")
        for row in group:
            y += 1
            _interval(axes, y, row)
            for column, words in _cells(row).items():
                write(column, y, words)
    axes.axvline(0, color=NEUTRAL, linewidth=0.8)
    axes.set_ylim(y + 0.5, -0.5)
    axes.set_xlim(-1.1, 1.1)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _interval(axes: Axes, y: float, row: dict[str, Any]) -> None:
    centre = 0.5 if row["expected"] == "most models" else 0.0
    turn = -1 if row["expected"] in ("lower", "falls") else 1
    reach = np.array([row["low"], row["estimate"], row["high"]], float) - centre
    scale = np.max(np.abs(reach), where=np.isfinite(reach), initial=0) or 1.0
    low, middle, high = turn * reach / scale
    look = VERDICTS[row["verdict"]]
    axes.plot([low, high], [y, y], color=look.colour)
    axes.plot([middle], [y], look.marker, color=look.colour)


def _decimals(row: dict[str, Any]) -> int:
    """As many as show two significant digits of the interval's half-width (else of the number)."""
    half = (row["high"] - row["low"]) / 2 if _known(row) else abs(row["estimate"])
    # Seeds that agree but for rounding would fill the line with digits.
    return min(max(0, 1 - math.floor(math.log10(half))), 5) if 0 < half < math.inf else 2


def _known(row: dict[str, Any]) -> bool:
    return row["low"] is not None and math.isfinite(row["low"])


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.{_decimals(row)}f}".replace("-", "\N{MINUS SIGN}")


def _bounds(row: dict[str, Any]) -> str:
    return f"[{_number(row, 'low')}, {_number(row, 'high')}]" if _known(row) else "none"
