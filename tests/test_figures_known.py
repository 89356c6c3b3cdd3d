"""Figures of a study of known features carry the numbers of their tables."""

import numpy as np
import polars as pl
import pytest
from drawn_figures import draw_figure, intervals_of, line_over
from figure_tables import CORPORA, summary_of_known


def test_recovery_draws_both_intervals_and_says_both_correlations():
    figure = draw_figure("recovery")
    summary = summary_of_known()
    for axes, measure, truth in zip(
        figure.axes,
        ["shared_feature_ratio", "shared_feature_ratio_alive", "explained_variance"]
        + ["fake_feature_ratio"],
        [*["recovered_features"] * 3, "truly_fake_ratio"],
        strict=True,
    ):
        expected = []
        for corpus in CORPORA:
            part = summary.filter(pl.col("corpus") == corpus)
            x, y = (
                part.row(by_predicate=pl.col("metric") == m, named=True) for m in (measure, truth)
            )
            expected.append((x["mean"], y["mean"], y["low"], y["high"]))
            reach = line_over(axes, [x["low"], x["high"]])
            assert reach == pytest.approx([y["mean"]] * 2)
        assert np.array(intervals_of(axes)) == pytest.approx(np.array(sorted(expected)))
        assert "all: ρ -0.33 [-0.43, -0.23]" in axes.get_title()
        assert "at one SAE: ρ 0.44 [0.34, 0.54]" in axes.get_title()


def test_fake_calls_have_the_values_of_the_summary_and_guessing_as_a_line():
    figure = draw_figure("fake_calls")
    share, correlation, *scores = figure.axes
    for axes, mean in zip([share, *scores], (0.21, 0.61, 0.81), strict=True):
        assert [found[1] for found in intervals_of(axes)] == pytest.approx([mean] * 2)
    for axes in scores:
        assert line_over(axes, [0, 1]).tolist() == [0.5, 0.5]
    curves = {line.get_label(): list(line.get_ydata()) for line in correlation.get_lines()}
    assert curves["all"] == [-0.33, -0.33] and curves["at one SAE"] == [0.44, 0.44]
