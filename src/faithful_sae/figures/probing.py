"""Figures on what linear probes read from activations, SAE latents and their baselines."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from faithful_sae.figures.layout import (
    ACROSS,
    COMBINATION,
    WIDTH,
    Grid,
    Row,
    canvas,
    heading,
    height,
    legend,
    name_corpora,
)
from faithful_sae.figures.style import (
    NEUTRAL,
    Look,
    describe,
    draw_interval,
    looks,
    present,
    seed_intervals,
    styled,
)
from faithful_sae.headline import over_probe_seeds
from faithful_sae.statistics import Interval

# Inches: a corpus' place with two marks, that with a small curve, the axis beside a panel.
MARKS, CURVE, AXIS = 0.13, 0.22, 0.4
# Features of an SAE -> where they are drawn beside its corpus' place, and how.
FEATURES: dict[str, tuple[float, dict[str, Any]]] = {
    "latents": (-0.18, {}),
    "reconstruction": (0.18, {"markerfacecolor": "white"}),
}
RANDOM = Look("black", "*")  # of what no corpus trained
RANDOM_NAME = "random"


@styled
def probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes on each task, by corpus: latents, reconstruction, random dictionary.

    Probes on all columns (k null). Line and shade: mean and range over probe seeds of the raw
    activations. Dotted: always saying the most frequent class.
    """
    full = table.filter(pl.col("metric") == "accuracy", pl.col("k").is_null())
    of_saes, of_none = _apart(full, corpora)
    figure, rows = canvas(of_saes, COMBINATION, _grid(MARKS), sharex=True)
    drawn: list[Interval] = []
    for row in rows:
        for task, axes in _tasks(row, of_saes):
            points = over_probe_seeds(row.of(of_saes).filter(pl.col("task") == task))
            drawn += _columns(axes, points, corpora)
            _baselines(axes, row.of(of_none).filter(pl.col("task") == task))
    heading(figure, "What linear probes read from each kind of feature", describe(drawn))
    group = {"color": NEUTRAL, "marker": "o", "linestyle": ""}
    keys = [Line2D([], [], label=name, **group | look) for name, (_, look) in FEATURES.items()]
    random = Line2D([], [], color=RANDOM.colour, marker=RANDOM.marker, linestyle="")
    random.set_label("random: a random dictionary")
    legend(figure, [*keys, random, *_baseline_keys()], columns=3)
    return figure


def _columns(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names = present(corpora, table)
    points = seed_intervals(table, ["features", "corpus"])
    for (features, corpus), interval in points.items():
        if not corpus:
            draw_interval(axes, len(names), interval, RANDOM, markersize=6)
            continue
        shift, look = FEATURES[features]
        style: Any = {"markersize": 4, "capsize": 1.5, "linewidth": 1} | look
        x = names.index(corpus) + shift
        draw_interval(axes, x, interval, looks(corpora)[corpus], **style)
    name_corpora(axes, [*names, RANDOM_NAME])
    return list(points.values())


@styled
def sparse_probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes that read k latents, against k: a small curve for each corpus.

    The k latents whose class means differ most; the last has no limit. Behind each curve that of
    the random dictionary, with its interval as a band. Line and shade as in `probing`.
    """
    accuracy = table.filter(pl.col("metric") == "accuracy")
    of_saes, of_none = _apart(accuracy, corpora)
    curves = of_saes.filter(pl.col("features") != "reconstruction")
    ks = [*sorted(curves["k"].drop_nulls().unique().to_list()), None]
    figure, rows = canvas(curves, COMBINATION, _grid(CURVE), sharex=True)
    drawn: list[Interval] = []
    for row in rows:
        for task, axes in _tasks(row, curves):
            points = over_probe_seeds(row.of(curves).filter(pl.col("task") == task))
            drawn += _curves(axes, points, corpora, ks)
            _baselines(axes, row.of(of_none).filter(pl.col("task") == task))
    left_to_right = ", ".join("all" if k is None else str(k) for k in ks)
    note = f"each small curve from left to right: {left_to_right} latents"
    heading(figure, "What few latents tell a linear probe", describe(drawn), note)
    latents = Line2D([], [], color=NEUTRAL, marker="o", markersize=3, linewidth=0.8)
    latents.set_label("latents")
    random = Line2D([], [], color="black", linewidth=0.8, label="random dictionary")
    legend(figure, [latents, random, *_baseline_keys()], columns=3)
    return figure


def _curves(
    axes: Axes, table: pl.DataFrame, corpora: Sequence[str], ks: list[int | None]
) -> list[Interval]:
    names = present(corpora, table)
    points = [
        seed_intervals(table.filter(pl.col("k").eq_missing(k)), ["features", "corpus"]) for k in ks
    ]
    random = [of_k.get(("random_dictionary", "")) for of_k in points]
    drawn = [interval for interval in random if interval]
    for place, corpus in enumerate(names):
        places = place + 0.76 * (np.arange(len(ks)) / max(len(ks) - 1, 1) - 0.5)
        behind = [(x, *i[:3]) for x, i in zip(places, random, strict=True) if i]
        if behind:
            x, mean, low, high = zip(*behind, strict=True)
            axes.fill_between(x, low, high, color="black", alpha=0.12, linewidth=0)
            axes.plot(x, mean, color="black", linewidth=0.8)
        curve = [
            (x, of_k["latents", corpus])
            for x, of_k in zip(places, points, strict=True)
            if ("latents", corpus) in of_k
        ]
        look = looks(corpora)[corpus]
        means = [interval.mean for _, interval in curve]
        axes.plot([x for x, _ in curve], means, color=look.colour, linewidth=0.8)
        for x, interval in curve:
            style: Any = {"markersize": 2.5, "capsize": 0, "linewidth": 0.8}
            draw_interval(axes, x, interval, look, **style)
            drawn.append(interval)
    name_corpora(axes, names)
    return drawn


def _grid(place: float) -> Callable[[pl.DataFrame], Grid]:
    """Panels for tasks, as many beside each other as leave `place` inches for each corpus."""

    def grid(part: pl.DataFrame) -> Grid:
        tasks, corpora = part["task"].n_unique(), part["corpus"].n_unique()
        beside = min(max(1, int(WIDTH / (place * corpora + AXIS))), ACROSS)
        deep = math.ceil(tasks / beside)
        return Grid(deep, math.ceil(tasks / deep), height(part, 0.9, 1.3) * deep + 0.9)

    return grid


def _tasks(row: Row, table: pl.DataFrame) -> Iterator[tuple[str, Any]]:
    """Every task and its panel, titled; panels that are left over are emptied."""
    tasks = sorted(set(row.of(table)["task"]))
    for unused in row.axes.flat[len(tasks) :]:
        unused.set_axis_off()
    for task, axes in zip(tasks, row.axes.flat, strict=False):
        axes.set_title(task, parse_math=False)
        yield task, axes
    row.axes[0, 0].figure.supylabel("accuracy on test documents", fontsize=8)


def _apart(table: pl.DataFrame, corpora: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows about SAEs, trained or random, and rows about features that need none."""
    needs_none = pl.col("features").is_in(["raw", "majority"])
    of_saes = table.filter(~needs_none, pl.col("corpus").is_in([*corpora, ""]))
    return of_saes, table.filter(needs_none).drop("sae")


def _baselines(axes: Axes, table: pl.DataFrame) -> None:
    """Raw activations, then the most frequent class: in words where it lies far below the rest."""
    values: dict[str, Any] = {
        features: part["value"].to_numpy() for (features,), part in table.group_by("features")
    }
    if "raw" in values:
        raw = values["raw"]
        axes.axhspan(raw.min(), raw.max(), color="black", alpha=0.12, linewidth=0)
        axes.axhline(raw.mean(), color="black", linewidth=1)
    if "majority" in values:
        majority = values["majority"].mean()
        low, high = axes.get_ylim()
        if majority > low - 0.5 * (high - low):
            axes.axhline(majority, linestyle=":", color=NEUTRAL, linewidth=1)
        else:
            axes.set_ylim(bottom=low - 0.2 * (high - low))  # room for the words
            words = f"majority {majority:.2f} ↓"
            axes.text(0.02, 0.04, words, transform=axes.transAxes, color=NEUTRAL, va="bottom")


def _baseline_keys() -> list[Any]:
    return [
        Line2D([], [], color="black", linewidth=1, label="raw activations (need no SAE)"),
        Patch(color="black", alpha=0.12, linewidth=0, label="their range over draws"),
        Line2D([], [], color=NEUTRAL, linestyle=":", linewidth=1, label="majority class"),
    ]
