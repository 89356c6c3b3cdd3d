"""Nothing that a figure says is cut off: neither by its panel nor by its page."""

import matplotlib
import numpy as np
import polars as pl
import pytest
from drawn_figures import NAMES, draw_figure
from figure_tables import CORPORA, CUT, fake_features, tables, tidy_table

from faithful_sae import figures
from faithful_sae.random_inputs import RANDOM_INPUTS


def beyond(axes) -> list[tuple[float, float]]:
    """Points of lines in data coordinates that lie outside the panel, in shares of its size."""
    drawn = [line for line in axes.get_lines() if line.get_transform() == axes.transData]
    points = np.concatenate([np.reshape(line.get_xydata(), (-1, 2)) for line in drawn] or [[]])
    for bars in axes.collections:
        if isinstance(bars, matplotlib.collections.LineCollection):
            points = np.concatenate([np.reshape(points, (-1, 2)), *bars.get_segments()])
    shares = axes.transAxes.inverted().transform(
        axes.transData.transform(np.reshape(points, (-1, 2)).astype(float))
    )
    known = shares[np.isfinite(shares).all(1)]
    return known[(np.abs(known - 0.5) > 0.5 + 1e-6).any(1)].tolist()


@pytest.mark.parametrize("name", NAMES)
def test_no_legend_is_wider_than_the_page(name):
    figure = draw_figure(name)
    figure.draw_without_rendering()
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert 0 <= box.x0 and box.x1 <= figure.bbox.width


def test_a_scale_that_panels_share_holds_what_is_drawn_in_each_of_them():
    """Of the first corpus ten bins hold a tenth each; of the second one bin holds all."""
    rows = [
        (corpus, 0, name, 1.0, edge, 1)
        for corpus, edges in zip(CORPORA, (np.arange(-2.5, 0, 0.25), [-1.0]), strict=True)
        for name in (None, *RANDOM_INPUTS)
        for edge in edges
    ]
    names = ["random_input", "min_activation", "log10_frequency", "latents"]
    table = tidy_table(rows, ["corpus", "seed", *names])
    figure = figures.firing_frequencies(table, CORPORA, CUT["min_activation"])
    figure.draw_without_rendering()
    assert max(line.get_ydata().max() for line in figure.axes[1].get_lines()) == 1
    assert [beyond(axes) for axes in figure.axes] == [[], []]


def test_an_interval_of_a_ratio_near_zero_is_drawn_whole():
    """Its lower bound is below zero, where no ratio can be."""
    uneven = fake_features().with_columns(
        value=pl.when(pl.col("metric") == "fake_feature_ratio", pl.col("seed") == 2)
        .then(0.3)
        .when(pl.col("metric") == "fake_feature_ratio")
        .then(0.0)
        .otherwise("value")
    )
    left = figures.fake_features(uneven, CORPORA, **CUT).axes[0]
    lowest = min(bar[0][0] for c in left.containers for bar in c.lines[2][0].get_segments())
    assert left.get_xlim()[0] <= lowest < 0


def test_dead_latents_that_there_are_none_of_are_a_line_above_the_axis():
    none = tables()["training"].with_columns(dead_fraction=pl.lit(0.0))
    _, dead = figures.training_curves(none, CORPORA).axes
    assert dead.get_ylim()[0] < 0 < dead.get_ylim()[1]


@pytest.mark.parametrize("error", [0.0, 5e-17])
def test_corpora_that_do_not_differ_are_said_not_to_instead_of_drawn_on_a_scale_of_rounding(error):
    made = tables()["differences"].filter(pl.col("metric") == "shared_feature_ratio")
    same = made.with_columns(mean=pl.lit(0.0), low=pl.lit(-error), high=pl.lit(error))
    axes = figures.differences(same, CORPORA).axes[0]
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0: no difference"]
    assert axes.get_xlim() == (-1, 1)
    differ = figures.differences(made, CORPORA).axes[0]
    assert "0: no difference" not in [tick.get_text() for tick in differ.get_xticklabels()]
