"""Figures drawn of tables made up for tests, and readers of what is drawn."""

import math

import matplotlib
import numpy as np
from figure_tables import CORPORA, CUT, tables

from faithful_sae import figures

OF_KNOWN = ["fake_calls", "recovery"]
OF_EVALUATIONS = [
    "claims",
    "differences",
    "dose_response",
    "fake_features",
    "probing",
    "reconstruction",
    "shared_features",
    "similarity_forms",
    "sparse_probing",
    "threshold_curves",
]
NAMES = [name for name in figures.__all__ if name not in ("draw", "save")]


def draw_figure(name, made=None):
    made = made or tables()
    if name in OF_KNOWN:
        made = made | {"summary": made["known_summary"]}
    return figures.draw(name, made, CORPORA, **CUT)


def words_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def intervals_of(axes):
    """What the error bars of a panel say: (x, mean, low, high), sorted."""
    found = []
    for container in axes.containers:
        if isinstance(container, matplotlib.container.ErrorbarContainer):
            line, _, (bars,) = container.lines
            (low, high) = bars.get_segments()[0][:, 1] if bars.get_segments() else (math.nan,) * 2
            x = float(bars.get_segments()[0][0, 0])
            mean = math.nan if line is None else float(line.get_ydata()[0])
            found.append((x, mean, float(low), float(high)))
    return sorted(found)


def lines_over(axes, x):
    """The lines drawn over exactly these x."""
    return [
        line
        for line in axes.get_lines()
        if np.array_equal(np.asarray(line.get_xdata(), float), np.asarray(x, float))
    ]


def line_over(axes, x):
    """The first line drawn over exactly these x."""
    lines = lines_over(axes, x)
    assert lines, f"no line over {x}"
    return np.asarray(lines[0].get_ydata(), float)


def nulls_at(axes, x):
    """The nulls marked at a corpus: by line style, or the marker where there is no line."""
    marks = [*lines_over(axes, [x - 0.3, x + 0.3]), *lines_over(axes, [x])]
    looks = {
        mark.get_marker() if mark.get_linestyle() == "None" else mark.get_linestyle(): mark
        for mark in marks
    }
    return {look: looks[look].get_ydata()[0] for look in ("--", ":", "x") if look in looks}
