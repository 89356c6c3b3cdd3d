"""Figures on what SAEs reconstruct, which latents fire without cause, and what probes read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from faithful_sae.figures.style import (
    COMBINATION,
    NEUTRAL,
    canvas,
    corpus_lines,
    describe,
    describe_range,
    draw_band,
    draw_interval,
    heading,
    legend,
    looks,
    name_corpora,
    panels,
    present,
    seed_intervals,
    styled,
)
from faithful_sae.statistics import Interval, close_to

# Metric -> title and colour map; brighter is closer to the model in every panel.
HEATMAPS = {
    "ce_loss_increase": ("CE loss increase\n(nats/token, lower is better)", "cividis_r"),
    "mse": ("squared error, L2\n(activation units², lower is better)", "cividis_r"),
    "explained_variance": ("explained variance\n(share, higher is better)", "cividis"),
}
# Metric -> legend, hatch and opacity of the bars of one corpus.
FAKE_BARS = {
    "fake_feature_ratio": ("fake: dense on random tokens", "", 1.0),
    "dense_feature_ratio": ("dense on held-out text", "////", 0.5),
    "fake_not_dense_ratio": ("fake, and not dense on text", "....", 0.25),
}
FEATURES = {
    "raw": "raw",
    "latents": "latents",
    "reconstruction": "recon-\nstruction",
    "random_dictionary": "random\ndictionary",
}


@styled
def reconstruction(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Heatmaps of how well an SAE of each corpus (rows) rebuilds each corpus (columns).

    CE loss increase, mean squared error (the paper's L2) and explained variance on the positions
    that the policy keeps; each cell holds the mean over seeds and half the width of its interval.
    """
    kept = table.filter(pl.col("positions") == "kept", pl.col("corpus").is_in(corpora))
    height = 1.3 + 0.42 * len(present(corpora, kept))
    figure, rows = canvas(kept, COMBINATION, (1, 3), height, sharey=True)
    drawn: list[Interval] = []
    for row in rows:
        trained = present(corpora, row.of(kept))
        evaluated = present(corpora, row.of(kept), "eval_corpus")
        for axes, (metric, (title, colours)) in zip(row.axes[0], HEATMAPS.items(), strict=True):
            cells = seed_intervals(
                row.of(kept).filter(pl.col("metric") == metric), ["corpus", "eval_corpus"]
            )
            _heatmap(axes, cells, trained, evaluated, colours)
            axes.set_title(title)
            drawn += cells.values()
        row.axes[0, 0].set_ylabel("SAE trained on")
        row.axes[0, 0].figure.supxlabel("evaluated on held-out text of", fontsize=8)
    note = describe(drawn).replace("95 % interval", "half-width of the 95 % interval")
    heading(figure, "How well SAEs rebuild their own and other corpora", f"cells: {note}")
    return figure


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


@styled
def fake_features(
    table: pl.DataFrame, corpora: Sequence[str], min_activation: float, frequency: float
) -> Figure:
    """Fake Feature Ratio by corpus at the study's cut, and against the frequency cut.

    Left: latents dense on random tokens (fake), those dense on held-out text, and those that are
    fake without being dense on text. Right: the ratio against the frequency above which a latent
    counts as fake. Dashed: the ceiling that k active latents a token allow. Raises ValueError
    when the table was not measured at the cut.
    """
    table = table.filter(
        close_to("min_activation", min_activation), pl.col("corpus").is_in(corpora)
    )
    cut = table.filter(close_to("frequency", frequency))
    if cut.is_empty():
        raise ValueError(
            f"no fake features at frequency {frequency} and min_activation {min_activation}: "
            "add both to the grids that fake_features measures"
        )
    figure, rows = canvas(table, COMBINATION, (1, 2), 2.7)
    drawn: list[Interval] = []
    for row in rows:
        left, right = row.axes[0]
        drawn += _fake_bars(left, row.of(cut), corpora)
        left.set_ylabel("share of latents")
        left.set_title(f"active (> {min_activation:g}) on > {frequency:.3g} of the tokens")
        drawn += _fake_curves(right, row.of(table), corpora)
        right.axvline(frequency, color=NEUTRAL, linewidth=0.6)
        right.set_xlabel(f"frequency cut, share of tokens (thin line: {frequency:.3g})")
        right.set_ylabel("fake feature ratio")
    heading(figure, "Latents that fire on random tokens, by corpus", describe(drawn))
    kinds = [
        Patch(facecolor=NEUTRAL, alpha=alpha, hatch=hatch, edgecolor="black", label=label)
        for label, hatch, alpha in FAKE_BARS.values()
    ]
    ceiling = Line2D(
        [], [], color="black", linestyle="--", label="ceiling: k / (frequency · d_sae)"
    )
    legend(figure, [*kinds, ceiling, *corpus_lines(corpora)], columns=4)
    return figure


def _fake_bars(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names = present(corpora, table)
    bars = seed_intervals(table.filter(pl.col("metric").is_in(FAKE_BARS)), ["corpus", "metric"])
    for (corpus, metric), interval in bars.items():
        _, hatch, alpha = FAKE_BARS[metric]
        x = names.index(corpus) + 0.27 * (list(FAKE_BARS).index(metric) - 1)
        colour = looks(corpora)[corpus].colour
        axes.bar(x, interval.mean, 0.25, color=colour, alpha=alpha, hatch=hatch, edgecolor="black")
        draw_interval(axes, x, interval, "black", "none")
    name_corpora(axes, names)
    axes.set_ylim(bottom=0)
    ceiling = table.filter(pl.col("metric") == "fake_feature_ceiling")["value"].mean()
    top = axes.get_ylim()[1]
    if isinstance(ceiling, float) and ceiling <= 1.5 * top:
        axes.axhline(ceiling, linestyle="--", color="black", linewidth=1)
        axes.set_ylim(top=max(top, 1.05 * ceiling))
    elif isinstance(ceiling, float):
        # Drawn to scale it would press the bars flat.
        axes.set_ylim(top=1.15 * top)
        axes.text(0.98, 0.97, f"ceiling {ceiling:.2f}, above this axis", ha="right", va="top",
                  transform=axes.transAxes)  # fmt: skip
    return list(bars.values())


def _fake_curves(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    drawn: list[Interval] = []
    ratios = table.filter(pl.col("metric") == "fake_feature_ratio")
    for corpus in present(corpora, ratios):
        curve = seed_intervals(ratios.filter(pl.col("corpus") == corpus), ["frequency"])
        mean, low, high, _ = zip(*curve.values(), strict=True)
        draw_band(axes, [x for (x,) in curve], mean, low, high, looks(corpora)[corpus].colour)
        drawn += curve.values()
    ceiling = (
        table.filter(pl.col("metric") == "fake_feature_ceiling")
        .group_by("frequency")
        .agg(pl.col("value").mean())
        .sort("frequency")
    )
    axes.plot(ceiling["frequency"], ceiling["value"], "--", color="black", linewidth=1)
    axes.set_xscale("log")
    # Linear near zero, so that a curve that reaches zero is seen to do so.
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(0, 1.3)
    return drawn


@styled
def firing_frequencies(
    table: pl.DataFrame, corpora: Sequence[str], min_activation: float
) -> Figure:
    """Histograms of how often latents fire, on held-out text and on random tokens.

    Share of latents by log10 of the share of tokens on which they exceed `min_activation`; those
    that never do stand apart at the left. Lines: mean over seeds, bands: lowest to highest seed.
    """
    table = table.filter(
        close_to("min_activation", min_activation), pl.col("corpus").is_in(corpora)
    )
    names = present(corpora, table)
    positive = [value for name in ("random", "heldout") for value in table[name] if value > 0]
    lowest = np.floor(np.log10(min(positive, default=0.1)))
    edges = np.linspace(lowest, 0, int(-lowest) * 4 + 1)
    figure, rows = canvas(table, COMBINATION, (1, len(names)), 2.4, sharey=True)
    for row in rows:
        for corpus, axes in panels(corpora, row.of(table), row.axes[0]):
            part = row.of(table).filter(pl.col("corpus") == corpus)
            _histogram(axes, part, "heldout", edges, looks(corpora)[corpus].colour, 0.75)
            _histogram(axes, part, "random", edges, "black", 0.4)
            axes.set_title(corpus, parse_math=False)
            ticks = np.arange(0, lowest, -max(1, round(-lowest / 3)))
            axes.set_xticks([lowest - 0.7, *ticks], ["never", *(f"{tick:.0f}" for tick in ticks)])
            axes.set_yscale("symlog", linthresh=1e-3)
        row.axes[0, 0].set_ylabel("share of latents")
        row.axes[0, 0].figure.supxlabel(
            f"log10 of the share of tokens with activation > {min_activation:g}", fontsize=8
        )
    heading(figure, "How often latents fire", describe_range(table))
    handles = [
        Patch(color=NEUTRAL, alpha=0.5, label="on held-out text (corpus colour)"),
        Line2D([], [], color="black", label="on random tokens"),
    ]
    legend(figure, handles)
    return figure


def _histogram(
    axes: Axes, table: pl.DataFrame, column: str, edges: Any, colour: str, never: float
) -> None:
    shares = []
    for _, part in table.group_by("seed", maintain_order=True):
        values = part[column].to_numpy()
        counts, _ = np.histogram(np.log10(values[values > 0]), edges)
        shares.append([np.mean(values == 0), *(counts / len(values))])
    mean, low, high = np.mean(shares, 0), np.min(shares, 0), np.max(shares, 0)
    axes.stairs(high[1:], edges, baseline=low[1:], fill=True, color=colour, alpha=0.3)
    axes.stairs(mean[1:], edges, color=colour)
    x = edges[0] - 1.1 + never
    axes.plot([x, x], [low[0], high[0]], color=colour)
    axes.plot([x], [mean[0]], "o", color=colour)


@styled
def probing(table: pl.DataFrame, corpora: Sequence[str]) -> Figure:
    """Accuracy of probes on each task: raw activations, latents, reconstruction, random dictionary.

    Full probes only (k null). Dotted: always saying the most frequent class.
    """
    full = table.filter(pl.col("metric") == "accuracy", pl.col("k").is_null())
    of_saes = full.filter(pl.col("corpus").is_in(corpora))
    tasks = sorted(set(of_saes["task"]))
    figure, rows = canvas(of_saes, COMBINATION, (1, len(tasks)), 2.5)
    baselines = full.filter(pl.col("features").is_in(["raw", "majority"])).drop("sae")
    drawn: list[Interval] = []
    for row in rows:
        for axes, task in zip(row.axes[0], tasks, strict=True):
            drawn += _task(axes, row.of(of_saes).filter(pl.col("task") == task), corpora)
            _baselines(axes, row.of(baselines).filter(pl.col("task") == task))
            axes.set_title(task, parse_math=False)
        row.axes[0, 0].set_ylabel("accuracy on test documents")
    heading(figure, "What linear probes read from each kind of feature", describe(drawn))
    majority = Line2D([], [], color=NEUTRAL, linestyle=":", label="most frequent class")
    raw = Line2D([], [], color="black", marker="_", linestyle="", label="raw (needs no SAE)")
    legend(figure, [*corpus_lines(corpora, marker=True), raw, majority], columns=6)
    return figure


def _task(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names = present(corpora, table)
    points = seed_intervals(table, ["features", "corpus"])
    for (features, corpus), interval in points.items():
        shift = (names.index(corpus) - (len(names) - 1) / 2) * 0.8 / len(names)
        draw_interval(
            axes, list(FEATURES).index(features) + shift, interval, *looks(corpora)[corpus]
        )
    axes.set_xticks(range(len(FEATURES)), list(FEATURES.values()), rotation=90)
    axes.set_xlim(-0.6, len(FEATURES) - 0.4)
    return list(points.values())


def _baselines(axes: Axes, table: pl.DataFrame) -> None:
    # Of all seeds: they differ by the probe's validation split alone, the majority by nothing.
    for accuracy in table.filter(pl.col("features") == "majority")["value"].unique():
        axes.axhline(accuracy, linestyle=":", color=NEUTRAL)
    raw = table.filter(pl.col("features") == "raw")["value"].to_numpy()
    if len(raw):
        axes.fill_between([-0.35, 0.35], raw.min(), raw.max(), color="black", alpha=0.2)
        axes.plot([-0.35, 0.35], [raw.mean(), raw.mean()], color="black")
