"""Figures of a study of known features: what its measures are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence

import polars as pl
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.figures.layout import Grid, canvas, heading, legend, name_corpora
from faithful_sae.figures.style import (
    MARKERS,
    NEUTRAL,
    Look,
    describe,
    draw_band,
    draw_interval,
    looks,
    present,
    styled,
)
from faithful_sae.headline import close_to
from faithful_sae.statistics import Interval

PLACE = ["model", "hook"]
# Measure and truth of each panel, as in ground_truth.csv and summary.csv, and their axes.
PANELS = {
    ("shared_feature_ratio", "recovered_features"): (
        "shared feature ratio",
        "recovered features",
    ),
    ("shared_feature_ratio_alive", "recovered_features"): (
        "shared feature ratio of alive latents",
        "recovered features",
    ),
    ("explained_variance", "recovered_features"): (
        "explained variance, own corpus",
        "recovered features",
    ),
    ("fake_feature_ratio", "truly_fake_ratio"): (
        "fake feature ratio",
        "truly fake latents",
    ),
}
# What is compared, as in ground_truth.csv -> words.
COMPARED = {"all": "all", "corpora": "at one SAE"}
# Score that latents are ranked by -> title of its panel.
SCORES = {
    "random_auroc": "told by firing on\nrandom tokens",
    "contrast_auroc": "told by firing on random\nagainst held-out tokens",
}


@styled
def recovery(
    summary: pl.DataFrame, ground_truth: pl.DataFrame, corpora: Sequence[str], frequency: float
) -> Figure:
    """What a study can measure against what only known features tell, one mark per SAE setting.

    Colour: training corpus; marker: SAE. Bars: intervals over seeds of both quantities. Above each
    panel the rank correlation over all marks, and that of corpora at one SAE setting.
    """
    named = {metric for pair in PANELS for metric in pair}
    shown = summary.filter(pl.col("corpus").is_in(corpora), pl.col("metric").is_in(named))
    figure, rows = canvas(shown, PLACE, lambda _: Grid(2, 2, 5.0))
    drawn: list[Interval] = []
    for row in rows:
        of_place = row.of(ground_truth)
        for axes, ((measure, truth), labels) in zip(row.axes.flat, PANELS.items(), strict=True):
            drawn += _scatter(axes, row.of(shown), measure, truth, corpora)
            axes.set_xlabel(labels[0])
            axes.set_ylabel(f"share of {labels[1]}")
            axes.set_title(_correlations(of_place, measure, truth, frequency))
    heading(figure, "Do the measures track the truth?", describe(drawn))
    legend(figure, _handles(summary, corpora), columns=5)
    return figure


def _scatter(
    axes: Axes, table: pl.DataFrame, measure: str, truth: str, corpora: Sequence[str]
) -> list[Interval]:
    points = {
        (sae, corpus, metric): Interval(*interval)
        for sae, corpus, metric, *interval in table.select(
            "sae", "corpus", "metric", "mean", "low", "high", "seeds"
        ).iter_rows()
    }
    drawn = []
    markers = _markers(table)
    for sae, corpus, metric in sorted(points):
        x, y = points.get((sae, corpus, measure)), points[sae, corpus, metric]
        if metric == truth and x is not None:
            colour = looks(corpora)[corpus].colour
            axes.plot([x.low, x.high], [y.mean, y.mean], color=colour, linewidth=1)
            draw_interval(axes, x.mean, y, Look(colour, markers[sae]))
            drawn += [x, y]
    return drawn


def _correlations(ground_truth: pl.DataFrame, measure: str, truth: str, frequency: float) -> str:
    rows = ground_truth.filter(
        pl.col("measure") == measure,
        pl.col("truth") == truth,
        pl.col("frequency").is_null() | close_to("frequency", frequency),
    )
    lines = []
    for compared, words in COMPARED.items():
        part = rows.filter(pl.col("compared") == compared)
        for value, low, high in part.select("value", "low", "high").iter_rows():
            interval = "" if math.isnan(low) else f" [{low:.2f}, {high:.2f}]"
            lines.append(f"{words}: ρ {value:.2f}{interval}")
    return "\n".join(lines)


def _markers(table: pl.DataFrame) -> dict[str, str]:
    names = sorted(set(table["sae"]))
    return {sae: MARKERS[i % len(MARKERS)] for i, sae in enumerate(names)}


def _handles(table: pl.DataFrame, corpora: Sequence[str]) -> list[Artist]:
    of_corpora = [
        Line2D([], [], color=looks(corpora)[corpus].colour, linewidth=4, label=corpus)
        for corpus in present(corpora, table)
    ]
    of_saes = [
        Line2D([], [], color=NEUTRAL, marker=marker, linestyle="", label=sae)
        for sae, marker in _markers(table).items()
    ]
    return [*of_corpora, *of_saes]


@styled
def fake_calls(
    summary: pl.DataFrame, ground_truth: pl.DataFrame, corpora: Sequence[str], frequency: float
) -> Figure:
    """How many latents are truly fake, and whether firing on random tokens tells which.

    Upper left: truly fake latents among the alive, by corpus and SAE. Upper right: rank correlation
    of their share with the Fake Feature Ratio, at every frequency cut. Lower: area under the ROC
    curve of two scores of a latent, its firing on random tokens (what the paper calls by) and that
    against its firing on held-out tokens; 0.5 is guessing.
    """
    shown = summary.filter(
        pl.col("corpus").is_in(corpora), pl.col("metric").is_in(["truly_fake_ratio", *SCORES])
    )
    names = present(corpora, shown)
    figure, rows = canvas(shown, PLACE, lambda _: Grid(2, 2, 4.8))
    drawn: list[Interval] = []
    for row in rows:
        _correlation_curves(row.axes[0, 1], row.of(ground_truth), frequency)
        markers = _markers(row.of(shown))
        titles = {"truly_fake_ratio": "truly fake latents"} | SCORES
        places = [row.axes[0, 0], *row.axes[1]]
        for axes, (metric, title) in zip(places, titles.items(), strict=True):
            points = row.of(shown).filter(pl.col("metric") == metric).sort("corpus", "sae")
            for corpus, sae, *interval in points.select(
                "corpus", "sae", "mean", "low", "high", "seeds"
            ).iter_rows():
                shift = (list(markers).index(sae) - (len(markers) - 1) / 2) * 0.8 / len(markers)
                drawn.append(Interval(*interval))
                x = names.index(corpus) + shift
                look = Look(looks(corpora)[corpus].colour, markers[sae])
                draw_interval(axes, x, drawn[-1], look)
            if metric in SCORES:
                axes.axhline(0.5, linestyle=":", color="black", linewidth=1)
                axes.set_ylim(-0.05, 1.05)
            axes.set_title(title)
            name_corpora(axes, names)
        row.axes[0, 0].set_ylabel("share of alive latents")
        row.axes[1, 0].set_ylabel("area under the ROC curve")
    heading(figure, "Does firing on random tokens tell fake latents?", describe(drawn))
    legend(figure, _handles(shown, corpora))
    return figure


def _correlation_curves(axes: Axes, ground_truth: pl.DataFrame, frequency: float) -> None:
    rows = ground_truth.filter(pl.col("measure") == "fake_feature_ratio").sort("frequency")
    lines = (Look("black", ""), Look(NEUTRAL, "", "--"))
    for (compared, words), look in zip(COMPARED.items(), lines, strict=True):
        curve = rows.filter(pl.col("compared") == compared)
        x, rho, low, high = (curve[name] for name in ("frequency", "value", "low", "high"))
        draw_band(axes, x.to_list(), rho.to_list(), low.to_list(), high.to_list(), look)
        axes.lines[-1].set(label=words)
    axes.axhline(0, linestyle=":", color="black", linewidth=1)
    axes.axvline(frequency, color=NEUTRAL, linewidth=0.6)
    axes.set_xscale("log")
    axes.set_ylim(-1.05, 1.05)
    axes.set_title("fake feature ratio against their share")
    axes.set_xlabel(f"frequency cut, share of tokens (thin line: {frequency:.3g})")
    axes.set_ylabel("rank correlation ρ")
    axes.legend()
