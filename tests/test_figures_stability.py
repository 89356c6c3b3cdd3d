"""Figures on similarity carry the numbers of their tables, nulls included."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from drawn_figures import draw_figure, intervals_of, line_over, nulls_at, words_of
from figure_tables import CORPORA, SEEDS, SIMILARITY, level_of, similarity, tables

from faithful_sae.figures.style import looks
from faithful_sae.sae import SAE
from faithful_sae.similarity import similarity_of_seeds
from faithful_sae.statistics import pair_interval


def test_shared_features_draws_the_summary_its_intervals_its_pairs_and_its_nulls():
    made = tables()
    ratio, cosine = draw_figure("shared_features", made).axes
    rows = made["summary"].filter(pl.col("metric") == "shared_feature_ratio")
    expected = {row["corpus"]: (row["mean"], row["low"], row["high"]) for row in rows.to_dicts()}
    drawn = intervals_of(ratio)
    for x, corpus in enumerate(CORPORA):
        assert drawn[x] == pytest.approx((x, *expected[corpus]))
        pairs = line_over(ratio, [x + 0.3] * 3)
        assert sorted(pairs) == pytest.approx([level_of(corpus) + 0.01 * s for s in (1, 2, 3)])
        assert nulls_at(ratio, x) == pytest.approx({"--": 0.11, ":": 0.05, "x": 0.01})
        assert nulls_at(cosine, x) == pytest.approx({"--": 0.22, ":": 0.1, "x": 0.02})
        assert line_over(ratio, [x - 0.3]) == pytest.approx(0.99)  # with SAEs of the other corpus
    assert [tick.get_text() for tick in ratio.get_xticklabels()] == CORPORA


def test_threshold_curves_pass_through_the_mean_over_pairs_of_seeds():
    panels = draw_figure("threshold_curves").axes
    nulls = {(share, share) for null, (_, share, _) in SIMILARITY.items() if null != "none"}
    for corpus, mean, axes in zip(CORPORA, [(0.42, 0.22), (0.72, 0.52)], panels, strict=True):
        assert axes.get_title() == corpus
        curves = {tuple(np.round(line.get_ydata(), 6)): line for line in axes.get_lines()}
        assert {(0.42, 0.22), (0.72, 0.52)} | nulls <= set(curves)
        assert curves[mean].get_color() == looks(CORPORA)[corpus].colour  # the other one is pale


def test_similarity_forms_draws_each_form_and_the_nulls_that_it_has():
    figure = draw_figure("similarity_forms")
    *shares, cka = figure.axes
    untrained, permuted = {":": 0.05}, {"x": 0.01}
    expected = [
        (0, {"--": 0.11} | untrained | permuted),
        (0.1, untrained | permuted),
        (0.2, untrained | permuted),
        (0, untrained),
        (0.1, untrained | permuted),
    ]
    for axes, (more, nulls) in zip(shares, expected, strict=True):
        for x, corpus in enumerate(CORPORA):
            pairs = {(0, 1): 0.01, (0, 2): 0.02, (1, 2): 0.03}
            mean, low, high, _ = pair_interval({p: v + level_of(corpus) for p, v in pairs.items()})
            assert intervals_of(axes)[x] == pytest.approx((x, mean + more, low + more, high + more))
            assert nulls_at(axes, x) == pytest.approx(nulls)
    assert len({axes.get_ylim() for axes in shares}) == 1
    means = {round(x, 2): mean for x, mean, *_ in intervals_of(cka)}
    assert means == pytest.approx({-0.2: 0.52, 0.2: 0.42, 0.8: 0.82, 1.2: 0.72})
    assert nulls_at(cka, 0.8) == pytest.approx(permuted)
    (key,) = figure.legends
    assert len(key.get_texts()) == 5


@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_the_similarity_drawn_here_has_the_pairs_and_nulls_that_the_library_writes(seeds):
    x = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
    saes = {s: SAE.untrained(d_in=3, d_sae=4, k=1, seed=s) for s in SEEDS[:seeds]}
    written = similarity_of_seeds(saes, SimpleNamespace(batches=lambda: iter([x])), [0.5, 0.7])
    key = ["seed", "seed_b", "null", "latents", "metric", "threshold"]
    for corpus in CORPORA:
        here = similarity(SEEDS[:seeds]).filter(corpus=corpus, corpus_b=corpus)
        assert sorted(here.select(key).rows(), key=str) == sorted(
            written.select(key).rows(), key=str
        )


def test_of_one_seed_the_nulls_are_drawn_alone_and_nothing_else_is_promised():
    made = tables((0,))
    ratio, cosine = draw_figure("shared_features", made).axes
    for axes, covariance, untrained in ((ratio, 0.11, 0.05), (cosine, 0.22, 0.1)):
        assert intervals_of(axes) == []
        for x in range(len(CORPORA)):
            assert nulls_at(axes, x) == pytest.approx({"--": covariance, ":": untrained})
        others = len(CORPORA) * (axes is ratio)
        assert sum(len(line.get_xdata()) > 0 for line in axes.get_lines()) == 2 * 2 + others
    for axes in draw_figure("threshold_curves", made).axes:
        lines = [(line.get_linestyle(), tuple(line.get_ydata())) for line in axes.get_lines()]
        drawn = [line for line in lines if line[1]]
        assert drawn[:-1] == [("--", (0.11, 0.11)), (":", (0.05, 0.05))]
    for name in ("shared_features", "threshold_curves", "similarity_forms"):
        figure = draw_figure(name, made)
        assert "too few seeds to compare: the nulls alone" in figure.get_suptitle()
        keys = figure.legends[0].legend_handles
        assert {key.get_linestyle() for key in keys} - {"None"} == {"--", ":"}
        assert "one pair of seeds" not in words_of(figure)
        assert any("the nulls alone" in word for word in words_of(figure))
        assert not any("the nulls alone" in word for word in words_of(draw_figure(name)))
