"""Figures on probes carry the numbers of their tables."""

from io import BytesIO
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from drawn_figures import draw_figure, intervals_of, line_over, lines_over
from figure_tables import CORPORA, probing

from faithful_sae import figures
from faithful_sae.statistics import seed_interval
from faithful_sae.tables import read_csv


def test_probing_averages_over_probe_seeds_before_it_takes_intervals_over_seeds():
    (axes,) = draw_figure("probing").axes
    drawn = intervals_of(axes)
    means = sorted({round(mean, 6) for _, mean, _, _ in drawn})
    assert means == pytest.approx([0.66, 0.71, 0.81])  # no sparse probe among them
    half = seed_interval({0: 0.0, 1: 0.01, 2: 0.02}).high - 0.01
    assert all((low, high) == pytest.approx((m - half, m + half)) for _, m, low, high in drawn)
    assert len(drawn) == 2 * len(CORPORA) + 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*CORPORA, "random"]
    raw, majority = (line.get_ydata()[0] for line in lines_over(axes, [0, 1]))
    assert (raw, majority) == pytest.approx((0.9, 0.6))
    shade = axes.patches[0].get_y() + np.array([0, axes.patches[0].get_height()])
    assert shade == pytest.approx([0.88, 0.92])


def test_a_majority_class_far_below_the_rest_is_said_and_leaves_the_axis_to_them():
    far = probing().with_columns(
        value=pl.when(pl.col("features") == "majority").then(0.25).otherwise("value")
    )
    (axes,) = figures.probing(far, CORPORA).axes
    assert len(lines_over(axes, [0, 1])) == 1
    assert axes.get_ylim()[0] > 0.5
    assert [text.get_text() for text in axes.texts] == ["majority 0.25 ↓"]


def test_sparse_probing_draws_a_curve_over_k_before_that_of_the_random_dictionary():
    (axes,) = draw_figure("sparse_probing").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == CORPORA
    drawn = intervals_of(axes)
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    for place in range(2):
        here = [mean for x, mean, _, _ in drawn if abs(x - place) < 0.5]
        assert here == pytest.approx([0.61, 0.71, 0.81])
        behind, before = curves[2 * place : 2 * place + 2]
        assert behind.get_ydata() == pytest.approx([0.46, 0.56, 0.66])
        assert before.get_ydata() == pytest.approx([0.61, 0.71, 0.81])
        assert behind.get_xdata() == pytest.approx(before.get_xdata())
    assert line_over(axes, [0, 1]) == pytest.approx(0.9)


def test_probes_of_the_published_study_are_drawn_although_they_had_one_draw():
    published = read_csv(Path(__file__).parents[1] / "results/demo/tables/probing.csv")
    corpora = published["corpus"].unique(maintain_order=True).drop_nulls().to_list()
    for figure in (figures.probing, figures.sparse_probing):
        figure(published, corpora).savefig(BytesIO(), format="png", dpi=20)
