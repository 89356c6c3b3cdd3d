"""Figures on what linear probes read from activations, SAE latents and their baselines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib.axes import Axes
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
from faithful_sae.headline import over_probe_seeds
from faithful_sae.statistics import Interval

FEATURES = {
    "raw": "raw",
    "latents": "latents",
    "reconstruction": "recon-\nstruction",
    "random_dictionary": "random\ndictionary",
}
RANDOM = ("black", "*")  # colour and marker of what no corpus trained


@styled
def probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes on each task: raw activations, latents, reconstruction, random dictionary.

    Probes on all columns (k null). Line and shade: mean and range over probe seeds of the raw
    activations. Dotted: always saying the most frequent class.
    """
    full = table.filter(pl.col("metric") == "accuracy", pl.col("k").is_null())
    of_saes, of_none = _apart(full, corpora)
    tasks = sorted(set(of_saes["task"]))
    figure, rows = canvas(of_saes, COMBINATION, (1, len(tasks)), 2.5)
    drawn: list[Interval] = []
    for row in rows:
        for axes, task in zip(row.axes[0], tasks, strict=True):
            points = over_probe_seeds(row.of(of_saes).filter(pl.col("task") == task))
            drawn += _columns(axes, points, corpora)
            _baselines(axes, row.of(of_none).filter(pl.col("task") == task), (-0.35, 0.35))
            axes.set_xticks(range(len(FEATURES)), list(FEATURES.values()), rotation=90)
            axes.set_xlim(-0.6, len(FEATURES) - 0.4)
            axes.set_title(task, parse_math=False)
        row.axes[0, 0].set_ylabel("accuracy on test documents")
    heading(figure, "What linear probes read from each kind of feature", describe(drawn))
    _key(figure, corpora, of_saes)
    return figure


def _columns(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names = present(corpora, table)
    points = seed_intervals(table, ["features", "corpus"])
    for (features, corpus), interval in points.items():
        x: float = list(FEATURES).index(features)
        if corpus:
            x += (names.index(corpus) - (len(names) - 1) / 2) * 0.8 / len(names)
        draw_interval(axes, x, interval, *(looks(corpora)[corpus] if corpus else RANDOM))
    return list(points.values())


@styled
def sparse_probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes that read k latents, against k: latents by corpus, and random dictionary.

    The k latents whose class means differ most; "all" has no limit. Lines as in `probing`.
    """
    accuracy = table.filter(pl.col("metric") == "accuracy")
    of_saes, of_none = _apart(accuracy, corpora)
    curves = of_saes.filter(pl.col("features") != "reconstruction")
    tasks = sorted(set(curves["task"]))
    ks = [*sorted(curves["k"].drop_nulls().unique().to_list()), None]
    figure, rows = canvas(curves, COMBINATION, (1, len(tasks)), 2.3, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        for axes, task in zip(row.axes[0], tasks, strict=True):
            points = over_probe_seeds(row.of(curves).filter(pl.col("task") == task))
            drawn += _curves(axes, points, corpora, ks)
            _baselines(axes, row.of(of_none).filter(pl.col("task") == task), (-0.4, len(ks) - 0.6))
            axes.set_xticks(range(len(ks)), ["all" if k is None else str(k) for k in ks])
            axes.set_title(task, parse_math=False)
        row.axes[0, 0].set_ylabel("accuracy on test documents")
        row.axes[0, 0].figure.supxlabel("latents that the probe reads", fontsize=8)
    heading(figure, "What few latents tell a linear probe", describe(drawn))
    _key(figure, corpora, of_saes)
    return figure


def _curves(
    axes: Axes, table: pl.DataFrame, corpora: Sequence[str], ks: list[int | None]
) -> list[Interval]:
    points = [
        seed_intervals(table.filter(pl.col("k").eq_missing(k)), ["features", "corpus"]) for k in ks
    ]
    lines = [("latents", corpus) for corpus in present(corpora, table)]
    lines.append(("random_dictionary", ""))
    drawn: list[Interval] = []
    for i, line in enumerate(lines):
        colour, marker = looks(corpora)[line[1]] if line[1] else RANDOM
        shift = (i - (len(lines) - 1) / 2) * 0.7 / len(lines)
        curve = [(x + shift, of_k[line]) for x, of_k in enumerate(points) if line in of_k]
        axes.plot(*zip(*((x, y.mean) for x, y in curve), strict=True), color=colour, linewidth=0.8)
        for x, interval in curve:
            draw_interval(axes, x, interval, colour, marker)
            drawn.append(interval)
    return drawn


def _apart(table: pl.DataFrame, corpora: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows about SAEs, trained or random, and rows about features that need none."""
    needs_none = pl.col("features").is_in(["raw", "majority"])
    of_saes = table.filter(~needs_none, pl.col("corpus").is_in([*corpora, ""]))
    return of_saes, table.filter(needs_none).drop("sae")


def _baselines(axes: Axes, table: pl.DataFrame, reach: tuple[float, float]) -> None:
    for (features,), part in table.sort("features").group_by("features", maintain_order=True):
        value: Any = part["value"].to_numpy()
        if features == "majority":
            axes.axhline(value.mean(), linestyle=":", color=NEUTRAL)
        else:
            axes.fill_between(reach, value.min(), value.max(), color="black", alpha=0.15, lw=0)
            axes.plot(reach, [value.mean()] * 2, color="black")


def _key(figure: Figure, corpora: Sequence[str], table: pl.DataFrame) -> None:
    colour, marker = RANDOM
    others = [
        Line2D([], [], color=colour, marker=marker, linestyle="", label="random dictionary"),
        Line2D([], [], color="black", label="raw (needs no SAE)"),
        Line2D([], [], color=NEUTRAL, linestyle=":", label="most frequent class"),
    ]
    legend(figure, [*corpus_lines(corpora, table, marker=True), *others], columns=4)
