"""The figure of latents that are dense on random tokens."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import NamedTuple

import polars as pl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from faithful_sae.figures.layout import (
    ACROSS,
    COMBINATION,
    Grid,
    canvas,
    heading,
    keep_zero_in_sight,
    legend,
)
from faithful_sae.figures.style import (
    NEUTRAL,
    corpus_lines,
    describe,
    draw_band,
    looks,
    present,
    seed_intervals,
    styled,
)
from faithful_sae.headline import absolute_cut, close_to
from faithful_sae.random_inputs import SHUFFLED, UNIFORM, UNIGRAM
from faithful_sae.statistics import Interval


class Mark(NamedTuple):
    """A share of latents in the figure of fake features: where it stands, how it is drawn."""

    metric: str
    random_input: str | None
    label: str
    marker: str
    filled: bool


# The last one is of real text, the others of random tokens.
MARKS = [
    Mark("fake_feature_ratio", UNIFORM, "uniform ids (the paper's)", "o", True),
    Mark("fake_not_dense_ratio", UNIFORM, "uniform ids, and not on text", "o", False),
    Mark("fake_feature_ratio", UNIGRAM, "ids as frequent as in text", "^", True),
    Mark("fake_feature_ratio", SHUFFLED, "shuffled text", "s", True),
    Mark("dense_feature_ratio", None, "held-out text", "D", False),
]


@styled
def fake_features(
    table: pl.DataFrame, corpora: Sequence[str], min_activation: float, frequency: float
) -> Figure:
    """Latents dense on random tokens, by corpus: at the study's cut, and at others.

    Left: share of latents active on more than `frequency` of the tokens of each random input, those
    of uniform ids that are not as frequent on held-out text, and the share so frequent on that
    text. Second panel: the fake feature ratio (uniform ids) against the frequency. Third: against
    the activation above which a latent counts as active, absolute or a quantile of the latent's own
    activations on text. Dashed: the ceiling that k active latents a token allow. Raises ValueError
    when the table was not measured at the cut.
    """
    ceilings = table.filter(pl.col("metric") == "fake_feature_ceiling")
    table = table.filter(pl.col("corpus").is_in(corpora))
    at_frequency = table.filter(close_to("frequency", frequency))
    headline = at_frequency.filter(absolute_cut(min_activation))
    if headline.is_empty():
        raise ValueError(
            f"no fake features at frequency {frequency} and min_activation {min_activation}: "
            "add both to the grids that fake_features measures"
        )

    def grid(part: pl.DataFrame) -> Grid:
        names = part["corpus"].n_unique()
        beside = names <= ACROSS  # else the first panel is as tall as the others together
        return Grid(1, 3, 1.3 + 0.36 * names) if beside else Grid(2, 2, 0.8 + 0.36 * names)

    figure, rows = canvas(table, COMBINATION, grid)
    drawn: list[Interval] = []
    for row in rows:
        left, *others = row.axes.flat
        upper, lower = others[0], others[-1]
        left.get_gridspec().set_width_ratios([1.4, *[1] * (row.axes.shape[1] - 1)])
        if len(row.axes) > 1:
            others[1].remove()
            left.set_subplotspec(left.get_gridspec()[:, 0])
        ceiling = row.of(ceilings).select("frequency", "value").unique().sort("frequency")
        drawn += _marks(left, row.of(headline), corpora)
        _ceiling(left, ceiling.filter(close_to("frequency", frequency))["value"].item())
        share = f"{100 * frequency:.3g} % of the tokens of"
        left.set_xlabel(f"share of latents active (> {min_activation:g})\non > {share}")
        drawn += _curves(upper, row.of(table.filter(absolute_cut(min_activation))), corpora)
        upper.plot(ceiling["frequency"], ceiling["value"], "--", color="black", linewidth=1)
        upper.axvline(frequency, color=NEUTRAL, linewidth=0.6)
        upper.set_xlabel("frequency cut,\nshare of uniform ids")
        upper.set_ylabel("fake feature ratio")
        lower.set_ylabel("fake feature ratio")
        drawn += _cuts(lower, row.of(at_frequency), corpora, min_activation)
        lower.set_xlabel("activation cut: absolute,\nquantile of its own")
    heading(figure, "Latents that fire often on random tokens", describe(drawn))
    keys = [
        Line2D([], [], color=NEUTRAL, linestyle="", marker=mark.marker, label=mark.label,
               markerfacecolor=NEUTRAL if mark.filled else "white")
        for mark in _used(table)
    ]  # fmt: skip
    ceiling_key = Line2D(
        [], [], color="black", linestyle="--", label="ceiling: k / (frequency · d_sae)"
    )
    legend(figure, [*keys, ceiling_key], columns=1, where="outside lower left")
    legend(figure, corpus_lines(corpora, table), columns=3, where="outside lower right")
    return figure


def _used(table: pl.DataFrame) -> list[Mark]:
    """The marks that the table has values of: a study of known features has one random input."""
    found = set(table.select("metric", "random_input").iter_rows())
    return [mark for mark in MARKS if (mark.metric, mark.random_input) in found]


def _marks(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    names, marks = present(corpora, table), _used(table)
    intervals = seed_intervals(table, ["corpus", "metric", "random_input"])
    drawn = []
    for corpus, (lane, mark) in product(names, enumerate(marks)):
        interval = intervals[corpus, mark.metric, mark.random_input]
        y = names.index(corpus) + 0.16 * (lane - (len(marks) - 1) / 2)
        colour = looks(corpora)[corpus].colour
        axes.errorbar(
            [interval.mean],
            [y],
            xerr=[[interval.mean - interval.low], [interval.high - interval.mean]],
            color=colour,
            fmt=mark.marker,
            markersize=4,
            markerfacecolor=colour if mark.filled else "white",
            capsize=1.5,
            linewidth=1,
        )
        drawn.append(interval)
    for y in range(1, len(names)):
        axes.axhline(y - 0.5, color=NEUTRAL, linewidth=0.3)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    left, right = axes.get_xlim()
    axes.set_xlim(left=min(left, -0.02 * right))  # a mark at 0 stays in sight
    axes.locator_params(axis="x", nbins=4)
    return drawn


def _ceiling(axes: Axes, ceiling: float) -> None:
    right = axes.get_xlim()[1]
    if ceiling <= 1.5 * right:
        axes.axvline(ceiling, linestyle="--", color="black", linewidth=1)
        axes.set_xlim(right=max(right, 1.05 * ceiling))
    else:
        # Drawn to scale it would press the marks together.
        axes.set_title(f"ceiling {ceiling:.2f}, beyond this axis", loc="right")


def _curves(axes: Axes, table: pl.DataFrame, corpora: Sequence[str]) -> list[Interval]:
    drawn: list[Interval] = []
    ratios = _paper(table)
    for corpus in present(corpora, ratios):
        curve = seed_intervals(ratios.filter(pl.col("corpus") == corpus), ["frequency"])
        mean, low, high, _ = zip(*curve.values(), strict=True)
        draw_band(axes, [x for (x,) in curve], mean, low, high, looks(corpora)[corpus])
        drawn += curve.values()
    axes.set_xscale("log")
    # Linear near zero, so that a curve that reaches zero is seen to do so.
    axes.set_yscale("symlog", linthresh=1e-3)
    axes.set_ylim(0, 1.3)
    return drawn


def _cuts(
    axes: Axes, table: pl.DataFrame, corpora: Sequence[str], min_activation: float
) -> list[Interval]:
    """The ratio at every cut: absolute ones, and after a gap quantiles of the latent's own."""
    ratios = _paper(table)
    absolute = sorted(set(ratios.filter(pl.col("cut") == "absolute")["level"]))
    quantiles = sorted(set(ratios.filter(pl.col("cut") == "own_quantile")["level"]))
    drawn: list[Interval] = []
    for kind, levels, first in (
        ("absolute", absolute, 0),
        ("own_quantile", quantiles, len(absolute) + 0.5),
    ):
        of_kind = ratios.filter(pl.col("cut") == kind)
        for corpus in present(corpora, of_kind):
            found = seed_intervals(of_kind.filter(pl.col("corpus") == corpus), ["level"])
            mean, low, high, _ = zip(*found.values(), strict=True)
            x = [first + i for i in range(len(levels))]
            draw_band(axes, x, mean, low, high, looks(corpora)[corpus])
            drawn += found.values()
    places = [*range(len(absolute)), *(len(absolute) + 0.5 + i for i in range(len(quantiles)))]
    names = [*(f"{level:g}" for level in absolute), *(f"{level:.0%}" for level in quantiles)]
    axes.set_xticks(places, names, rotation=90)
    axes.axvline(absolute.index(min_activation), color=NEUTRAL, linewidth=0.6)
    keep_zero_in_sight(axes)
    return drawn


def _paper(table: pl.DataFrame) -> pl.DataFrame:
    uniform = pl.col("random_input") == UNIFORM
    return table.filter(pl.col("metric") == "fake_feature_ratio", uniform)
