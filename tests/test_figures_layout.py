"""Figures stay legible from one corpus to twelve, whatever combinations have them."""

import math

import matplotlib
import numpy as np
import polars as pl
import pytest
from drawn_figures import draw_figure, words_of
from figure_tables import (
    CORPORA,
    CUT,
    corpus_statistics,
    fake_features,
    norms,
    reconstruction,
    tables,
    tidy_table,
)

from faithful_sae import comparisons, figures
from faithful_sae.figures.layout import Grid, canvas
from faithful_sae.random_inputs import UNIFORM


def _of_many(table, count):
    """The rows of the first corpus, for each of `count` corpora c0, c1, …"""
    one = table.filter(pl.col("corpus") == CORPORA[0])
    names = [f"c{i}" for i in range(count)]
    both = [column for column in ("corpus", "corpus_b") if column in table.columns]
    return names, pl.concat(
        [one.with_columns(**dict.fromkeys(both, pl.lit(name))) for name in names]
    )


def _titles(figure):
    return [part.get_suptitle() for part in figure.subfigs]


def test_combinations_on_most_corpora_come_first_and_controls_last_each_as_high_as_it_needs():
    places = [("a", "z", 2), ("b", "y", 2), ("b", "z", 3), ("c", "x", 1)]
    rows = [(m, s, f"c{i}") for m, s, n in places for i in range(n)]
    table = pl.DataFrame(rows, schema=["model", "sae", "corpus"], orient="row")
    figure, found = canvas(table, ["model", "sae"], lambda part: Grid(1, 1, part.height))
    assert [row.where.row(0) for row in found] == [("b", "z"), ("b", "y"), ("a", "z"), ("c", "x")]
    assert _titles(figure) == ["b · z", "b · y", "a · z", "c · x"]
    assert figure.get_figheight() == 8
    heights = [part.bbox.height / figure.dpi for part in figure.subfigs]
    assert heights == pytest.approx([3, 2, 2, 1])


@pytest.mark.parametrize(("count", "shape"), [(1, (1, 1)), (4, (1, 4)), (5, (2, 3)), (12, (3, 4))])
@pytest.mark.parametrize("name", ["firing_frequencies", "threshold_curves", "first_tokens"])
def test_panels_of_corpora_are_wrapped_into_rows_of_at_most_four(name, count, shape):
    made = dict(tables())
    made["similarity"] = made["similarity"].filter(pl.col("corpus") == pl.col("corpus_b"))
    for table in ("firing_histogram", "similarity", "first_tokens"):
        corpora, made[table] = _of_many(made[table], count)
    figure = figures.draw(name, made, corpora, **CUT)
    grids = [axes.get_subplotspec() for axes in figure.axes if axes.get_title()]
    assert [axes.get_title() for axes in figure.axes if axes.axison and axes.get_title()] == corpora
    deep = 2 if name == "first_tokens" else 1
    assert grids[0].get_gridspec().get_geometry() == (shape[0] * deep, shape[1])
    places = [(grid.rowspan.start // deep, grid.colspan.start) for grid in grids]
    assert places == [divmod(i, shape[1]) for i in range(count)]
    assert figure.get_figwidth() == 7


@pytest.mark.parametrize(("count", "shape"), [(5, (1, 3)), (6, (3, 1))])
def test_heatmaps_of_many_corpora_stand_above_each_other(count, shape):
    names, trained = _of_many(reconstruction().filter(pl.col("eval_corpus") == CORPORA[0]), count)
    table = pl.concat([trained.with_columns(eval_corpus=pl.lit(name)) for name in names])
    figure = figures.reconstruction(table, names)
    grid = figure.axes[0].get_subplotspec().get_gridspec()
    assert grid.get_geometry() == shape
    figure.draw_without_rendering()
    for axes in figure.axes:  # no number is wider or higher than its cell
        cell = axes.get_window_extent()
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.width < cell.width / count and box.height < 1.1 * cell.height / count
        assert [label.get_text() for label in axes.get_xticklabels()] == names


def test_differences_show_the_metrics_and_corpora_that_a_combination_has():
    rows = tables()["differences"]
    control = rows.filter(pl.col("metric") == "fake_feature_ratio").with_columns(model=pl.lit("z"))
    more = rows.with_columns(corpus_b=pl.lit("news"))
    figure = figures.differences(pl.concat([rows, more, control]), [*CORPORA, "news"])
    whole, part = figure.subfigs
    assert [tick.get_text() for tick in whole.axes[0].get_yticklabels()] == ["code", "news"]
    (only,) = [axes for axes in part.axes if axes.axison]
    assert "fake feature ratio" in only.get_xlabel()
    assert [tick.get_text() for tick in only.get_yticklabels()] == ["code"]


@pytest.mark.parametrize(("most", "shown"), [(4, ["m", "z"]), (5, ["m"])])
def test_a_dose_response_of_few_corpora_is_left_out_where_another_has_enough(most, shown):
    corpora = [f"c{i}" for i in range(most)]
    rows = [(c, "fake_feature_ratio", 0.1 * i, 0.0, 1.0, 3) for i, c in enumerate(corpora)]
    summary = tidy_table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    gaps = corpus_statistics(corpora)
    control = pl.lit("z")
    summary = pl.concat([summary, summary[:2].with_columns(model=control)])
    gaps = pl.concat([gaps, gaps.with_columns(model=control)])
    figure = figures.dose_response(summary, gaps, comparisons.dose_response(summary, gaps), corpora)
    assert [title.split(" ")[0] for title in _titles(figure)] == shown


def test_text_likelier_than_the_models_own_is_as_far_from_it_as_text_as_much_less_likely():
    rows = [("c0", "fake_feature_ratio", 0.1, 0.0, 1.0, 3)]
    summary = tidy_table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    gaps = tidy_table([("c0", "surprise_gap_settled", -0.7)], ["corpus", "metric", "value"])
    correlations = comparisons.dose_response(summary, gaps)
    axes = figures.dose_response(summary, gaps, correlations, ["c0"]).axes[0]
    assert axes.get_lines()[0].get_xdata() == pytest.approx([0.7])


@pytest.mark.parametrize("verdict", ["holds", "mixed", "does not", "undecided"])
def test_every_verdict_has_a_mark_of_its_own(verdict):
    row = CLAIM | {"verdict": verdict, "estimate": -0.2, "low": -0.3, "high": -0.1}
    figure = figures.claims(pl.DataFrame([row]))
    mark = figure.axes[0].get_lines()[1]
    (key,) = (
        handle
        for handle in figure.legends[0].legend_handles
        if handle.get_label() == f"verdict: {verdict}"
    )
    assert (mark.get_marker(), mark.get_color()) == (key.get_marker(), key.get_color())
    marks = {handle.get_marker() for handle in figure.legends[0].legend_handles}
    assert len(marks) == len(figure.legends[0].legend_handles)


CLAIM = {"claim": "fewer fake features", "definition": "scale-free cut", "expected": "lower"}
CLAIM |= {"model": "m", "hook": "h", "sae": "s", "verdict": "undecided", "texts": 7, "seeds": 5}
CLAIM |= {"texts_for": 2, "texts_against": 0}


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((-0.00424, -0.00792, -0.000561), ("−0.0042", "[−0.0079, −0.0006]")),
        ((0.152, 0.150, 0.1535), ("0.1520", "[0.1500, 0.1535]")),
        ((-11.86, -12.11, -11.61), ("−11.86", "[−12.11, −11.61]")),
        ((1234.0, 1100.0, 1400.0), ("1234", "[1100, 1400]")),
        ((0.5, math.nan, math.nan), ("0.50", "none")),
    ],
)
def test_a_claim_has_as_many_decimals_as_its_interval_is_known_to(numbers, said):
    row = dict(zip(("estimate", "low", "high"), numbers, strict=True))
    words = words_of(figures.claims(pl.DataFrame([CLAIM | row])))
    assert set(said) <= set(words)


def test_no_two_columns_of_claims_overlap():
    wide = {"estimate": -1234.5678, "low": -1234.5679, "high": -1234.5677}
    narrow = {"estimate": 0.5, "low": 0.4, "high": 0.6, "definition": "paper"}
    figure = figures.claims(pl.DataFrame([CLAIM | wide, CLAIM | narrow]))
    figure.draw_without_rendering()
    axes = figure.axes[0]
    lines = {}
    for text in axes.texts:
        lines.setdefault(round(text.xy[1]), []).append(text.get_window_extent())
    assert len(lines) == 4  # the columns' names, the claim, and its two metrics
    for boxes in lines.values():
        edges = np.array(sorted((box.x0, box.x1) for box in boxes))
        assert (edges[1:, 0] > edges[:-1, 1]).all()
        assert edges.min() >= 0 and edges.max() <= figure.bbox.width


def test_the_legend_of_fake_features_names_the_random_inputs_that_a_study_has():
    table = fake_features().filter(
        pl.col("random_input").is_null() | (pl.col("random_input") == UNIFORM)
    )
    key, _ = figures.fake_features(table, CORPORA, **CUT).legends
    names = [text.get_text() for text in key.get_texts()]
    assert names == [
        "uniform ids (the paper's)",
        "uniform ids, and not on text",
        "held-out text",
        "ceiling: k / (frequency · d_sae)",
    ]


@pytest.mark.parametrize("count", [4, 12])
def test_marks_of_fake_features_have_the_same_room_however_many_corpora(count):
    names, table = _of_many(fake_features(), count)
    figure = figures.fake_features(table, names, **CUT)
    figure.draw_without_rendering()
    first, second, third = (axes.get_window_extent() for axes in figure.axes)
    assert first.height / count == pytest.approx(0.36 * figure.dpi, rel=0.4)
    assert (second.x0 > first.x1) and third.height < 3 * figure.dpi
    assert (third.x0 > second.x1) == (count == 4)


def test_what_is_saved_is_laid_out_as_it_is_shown(tmp_path):
    shown, saved = draw_figure("norms"), draw_figure("norms")
    shown.draw_without_rendering()
    figures.save(saved, tmp_path / "a.pdf", tmp_path / "a.png", 100)
    for one, other in zip(shown.axes, saved.axes, strict=True):
        assert np.array(one.get_position()) == pytest.approx(
            np.array(other.get_position()), abs=0.01
        )
    image = matplotlib.image.imread(tmp_path / "a.png")
    assert image.shape[:2] == (int(100 * shown.get_figheight()), 700)


def test_norms_within_a_decade_are_plain_numbers():
    near = norms().with_columns(median_norm=20.0 + pl.col("position"), p95_norm=26.0, max_norm=27.0)
    figure = figures.norms(near, CORPORA)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    labels = [tick.get_text() for tick in axes.get_yticklabels(which="minor") if tick.get_text()]
    assert labels and all(15 <= float(label) <= 35 for label in labels)
