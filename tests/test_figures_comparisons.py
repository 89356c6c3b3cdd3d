"""Figures that compare corpora carry the numbers of their tables."""

import math

import polars as pl
import pytest
from drawn_figures import draw_figure, intervals_of
from figure_tables import CORPORA, corpus_statistics, tables, tidy_table

from faithful_sae import comparisons, figures


def test_differences_draw_their_table_and_fill_what_is_sure():
    made = tables()
    rows = made["differences"].filter(pl.col("metric") == "shared_feature_ratio")
    (row,) = rows.iter_rows(named=True)
    (axes,) = (a for a in draw_figure("differences").axes if "shared feature" in a.get_xlabel())
    interval, point = axes.get_lines()[:2]
    assert interval.get_xdata() == pytest.approx([row["low"], row["high"]])
    assert point.get_xdata() == pytest.approx([row["mean"]])
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["code"]
    for p, filled in ((0.04, True), (0.06, False), (math.nan, False)):
        table = rows.with_columns(p_adjusted=pl.lit(p))
        point = figures.differences(table, CORPORA).axes[0].get_lines()[1]
        assert (point.get_markerfacecolor() == point.get_color()) == filled


def test_a_claim_that_holds_lies_right_of_the_middle_whichever_way_its_metric_goes():
    row = {"claim": "better probes", "definition": "paper", "texts": 2, "texts_for": 1}
    row |= {"model": "m", "hook": "h", "sae": "s", "texts_against": 0, "seeds": 3}
    values = [
        ("higher", 0.2, 0.1, 0.3, "holds"),
        ("lower", -0.2, -0.3, -0.1, "holds"),
        ("rises", -0.2, -0.3, -0.1, "does not"),
        ("most models", 5 / 7, 0.29, 0.96, "undecided"),
    ]
    names = ("expected", "estimate", "low", "high", "verdict")
    table = pl.DataFrame([row | dict(zip(names, v, strict=True)) for v in values])
    lines = figures.claims(table).axes[0].get_lines()
    spans = [sorted(line.get_xdata()) for line in lines[0:8:2]]
    assert [low > 0 for low, _ in spans] == [True, True, False, False]
    assert [high > 0 for _, high in spans] == [True, True, False, True]
    assert all(max(map(abs, span)) == pytest.approx(1) for span in spans)
    colours = [line.get_color() for line in lines[0:8:2]]
    assert colours[0] == colours[1] and len(set(colours)) == 3


def test_dose_response_puts_each_corpus_at_its_gap_in_the_colour_of_its_name():
    made = tables()
    figure = draw_figure("dose_response", made)
    axes = figure.axes[0]
    rows = made["summary"].filter(pl.col("metric") == "shared_feature_ratio").sort("mean")
    expected = [
        (0.5 * CORPORA.index(row["corpus"]), row["mean"], row["low"], row["high"])
        for row in rows.to_dicts()
    ]
    assert intervals_of(axes) == [pytest.approx(row) for row in sorted(expected)]
    (key,) = figure.legends
    assert [text.get_text() for text in key.get_texts()] == CORPORA
    for i, named in enumerate(key.legend_handles):
        (point,) = (
            line
            for line in axes.get_lines()
            if line.get_marker() == named.get_marker() and len(line.get_xdata()) == 1
        )
        assert point.get_color() == named.get_color()
        assert point.get_xdata()[0] == pytest.approx(0.5 * i)


@pytest.mark.parametrize(("count", "fitted"), [(4, 0), (5, 1)])
def test_a_line_is_fitted_from_five_corpora_on(count, fitted):
    corpora = [f"c{i}" for i in range(count)]
    rows = [
        (corpus, "fake_feature_ratio", 0.1 * i, 0.0, 1.0, 3) for i, corpus in enumerate(corpora)
    ]
    summary = tidy_table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    statistics = corpus_statistics(corpora)
    correlations = comparisons.dose_response(summary, statistics)
    axes = figures.dose_response(summary, statistics, correlations, corpora).axes[0]
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert len(lines) == fitted
    assert axes.get_title().startswith("ρ = 1.00 [") == bool(fitted)
    for line in lines:
        assert line.get_ydata() == pytest.approx([0.0, 0.4])


def test_a_fitted_line_ignores_corpora_whose_metric_is_not_finite():
    corpora = [f"c{i}" for i in range(6)]
    rows = [(c, "fake_feature_ratio", 0.1 * i, 0.0, 1.0, 3) for i, c in enumerate(corpora)]
    rows[5] = ("c5", "fake_feature_ratio", math.nan, math.nan, math.nan, 3)
    summary = tidy_table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    statistics = corpus_statistics(corpora)
    correlations = comparisons.dose_response(summary, statistics)
    axes = figures.dose_response(summary, statistics, correlations, corpora).axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert line.get_ydata() == pytest.approx([0.0, 0.4])
