"""Figures carry the numbers of their tables; they are read back from what is drawn."""

import ast
import inspect
import math
import os
import re
import subprocess
import sys
import warnings
from functools import cache
from io import BytesIO
from itertools import combinations, product
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import polars as pl
import pytest
import torch

from faithful_sae import comparisons, figures
from faithful_sae.corpus_statistics import FIRST_TOKENS as TABLE_TOKENS
from faithful_sae.figures.data import FIRST_TOKENS
from faithful_sae.figures.style import PALETTE, describe, looks
from faithful_sae.random_inputs import RANDOM_INPUTS
from faithful_sae.sae import SAE
from faithful_sae.similarity import similarity_of_seeds
from faithful_sae.statistics import Interval, pair_interval, seed_interval
from faithful_sae.summary import summarise
from faithful_sae.tables import read_csv

CORPORA = ["faithful", "code"]
SEEDS = [0, 1, 2]
PLACE = {"model": "m", "hook": "resid_pre.1", "sae": "topk"}
CUT = {"min_activation": 1.0, "frequency": 0.1}
GRID = [0.01, 0.1]


def _table(rows, columns, **place):
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        **{name: pl.lit(value) for name, value in (place or PLACE).items()}
    )


def _level(corpus):
    return 0.2 + 0.3 * CORPORA.index(corpus)


def _weights(*kinds):
    return [(metric, kind) for kind in kinds for metric in ("shared_feature_ratio", COSINE)]


COSINE = "mean_matched_cosine"
WEIGHTS = _weights("all", "alive", "firing_weighted")
AGREEMENT = [("encoder_decoder_agreement", "all"), ("encoder_decoder_agreement", "alive")]
ACTIVATIONS = [
    ("correlated_feature_ratio", "alive"),
    ("mean_matched_correlation", "alive"),
    ("correlation_of_matched", "alive"),
]
CKA = [("contribution_cka", "matched"), ("contribution_cka", "unmatched")]
CURVES = {"shared_feature_ratio", "correlated_feature_ratio"}  # at every threshold
# Null -> its metrics, a share of latents, a mean.
SIMILARITY = {
    "none": ([*WEIGHTS, *AGREEMENT, *ACTIVATIONS, *CKA], None, 0.8),
    "covariance": (_weights("all"), 0.11, 0.22),
    "untrained": ([*WEIGHTS, *AGREEMENT, *ACTIVATIONS], 0.05, 0.1),
    "permuted": ([*WEIGHTS, *ACTIVATIONS, *CKA], 0.01, 0.02),
}
MORE = {"alive": 0.1, "firing_weighted": 0.2, "matched": 0.3, "unmatched": 0.2}  # than "all"


def similarity(seeds=SEEDS):
    """As the library writes it: nulls for each pair; one seed is paired with itself for them."""
    rows = []
    pairs = list(combinations(seeds, 2)) or [(seeds[0], seeds[0])]
    for corpus, (a, b), null in product(CORPORA, pairs, SIMILARITY):
        if a == b and null in ("none", "permuted"):
            continue
        metrics, share, mean = SIMILARITY[null]
        for metric, latents in metrics:
            for threshold in (0.5, 0.7) if metric in CURVES else (0.7,):
                value = share
                if null == "none":
                    value = _level(corpus) + 0.01 * (a + b) + 0.7 - threshold + MORE.get(latents, 0)
                if metric.startswith(("mean", "correlation_")):
                    threshold, value = None, mean
                rows.append((corpus, a, b, null, latents, metric, threshold, value))
    columns = ["corpus", "seed", "seed_b", "null", "latents", "metric", "threshold", "value"]
    table = _table(rows, columns).with_columns(corpus_b="corpus")
    # A row between corpora: no figure here may count it as a pair of seeds.
    between = table.filter(metric="shared_feature_ratio", latents="all", threshold=0.7)[:1]
    between = between.with_columns(
        corpus=pl.lit("faithful"), corpus_b=pl.lit("code"), null=pl.lit("none"), value=pl.lit(0.99)
    )
    return pl.concat([table, between])


def reconstruction(seeds=SEEDS):
    rows = [
        (
            corpus,
            seed,
            evaluated,
            positions,
            metric,
            value + 0.1 * seed + 0.5 * (positions == "all"),
        )
        for corpus in CORPORA
        for evaluated in CORPORA
        for seed in seeds
        for positions in ("kept", "all")
        for metric, value in [
            ("ce_loss_increase", 1 + _level(corpus) + 3 * (corpus != evaluated)),
            ("mse", 150 + _level(corpus)),
            ("explained_variance", _level(evaluated)),
        ]
    ]
    return _table(rows, ["corpus", "seed", "eval_corpus", "positions", "metric", "value"])


def fake_features(seeds=SEEDS, ceiling=0.5):
    """The paper's ratio rises with the corpus; other inputs and cuts have values of their own."""
    rows = []
    for corpus, seed, frequency in product(CORPORA, seeds, GRID):
        rows.append((corpus, seed, None, None, None, frequency, "fake_feature_ceiling",
                     min(1.0, ceiling * 0.1 / frequency)))  # fmt: skip
        paper = _level(corpus) / 2 + 0.01 * seed - frequency
        for cut, level, other in [
            ("absolute", 0.0, 0.31),
            ("absolute", 1.0, 0.0),
            ("absolute", 2.0, -0.005),
            ("own_quantile", 0.5, 0.21),
            ("own_quantile", 0.9, 0.11),
        ]:
            at = (cut, level, frequency)
            rows.append((corpus, seed, None, *at, "dense_feature_ratio", 0.3 + other))
            for name, value in zip(RANDOM_INPUTS, (paper, 0.12, 0.14), strict=True):
                rows.append((corpus, seed, name, *at, "fake_feature_ratio", value + other))
                rows.append((corpus, seed, name, *at, "fake_not_dense_ratio", 0.02 + other))
                rows.append((corpus, seed, name, *at, "contrast_ratio", math.nan))
    names = ["corpus", "seed", "random_input", "cut", "level", "frequency", "metric", "value"]
    return _table(rows, names)


def firing(seeds=SEEDS):
    """Four latents on text and on each random input, by the lower edge of their bin."""
    latents = {
        None: {-1.5: 1, -0.5: 2, None: 1},
        RANDOM_INPUTS[0]: {None: 2, -2.75: 1, -1.75: 1},
        RANDOM_INPUTS[1]: {None: 3, -1.0: 1},
        RANDOM_INPUTS[2]: {-1.0: 4},
    }
    rows = [
        (corpus, seed, name, 1.0, edge, n)
        for corpus in CORPORA
        for seed in seeds
        for name, bins in latents.items()
        for edge, n in bins.items()
    ]
    names = ["random_input", "min_activation", "log10_frequency", "latents"]
    return _table(rows, ["corpus", "seed", *names])


def probing(seeds=SEEDS):
    of_seeds = [
        (corpus, "topk", seed, features, k, value + 0.01 * seed)
        for corpus, kinds in [
            *((c, {"latents": 0.8, "reconstruction": 0.7}) for c in CORPORA),
            ("", {"random_dictionary": 0.65}),
        ]
        for seed in seeds
        for features, full in kinds.items()
        for k, value in [(None, full), (1, full - 0.2), (5, full - 0.1)]
        if k is None or features != "reconstruction"
    ]
    rows = [
        (*place, probe_seed, value + 0.02 * probe_seed)
        for *place, value in [
            *of_seeds,
            ("", "", None, "raw", None, 0.9),
            ("", "", None, "majority", None, 0.6),
        ]
        for probe_seed in (-1, 0, 1)  # so that the mean over them is the value
    ]
    columns = ["corpus", "sae", "seed", "features", "k", "probe_seed", "value"]
    place = {"model": "m", "hook": "resid_pre.1", "task": "spam", "metric": "accuracy"}
    return _table(rows, columns, **place)


def first_tokens():
    texts = ["The", "\n", "$x$", "日本", *(f"t{i}" for i in range(10))]
    rows = [
        (corpus, i, text, 0.3 / (i + 1), 0.0 if text == "The" else 0.2 / (i + 1))
        for corpus in CORPORA
        for i, text in enumerate(texts)
    ]
    columns = ["corpus", "token", "text", "model_probability", "corpus_frequency"]
    return _table(rows, columns, model="m")


def norms():
    rows = [(corpus, p, 9, 10.0, 20.0, 9e3 / (p + 1)) for corpus in CORPORA for p in range(6)]
    columns = ["corpus", "position", "tokens", "median_norm", "p95_norm", "max_norm"]
    return _table(rows, columns, model="m", hook="resid_pre.1")


def training(seeds=SEEDS):
    rows = [
        (corpus, seed, 100 * step, _level(corpus) / step + 0.01 * seed, 0.1 * seed)
        for corpus in CORPORA
        for seed in seeds
        for step in (1, 2, 3)
    ]
    return _table(rows, ["corpus", "seed", "tokens", "fvu", "dead_fraction"])


def corpus_statistics(corpora=CORPORA):
    rows = [(corpus, "surprise_gap_settled", 0.5 * i) for i, corpus in enumerate(corpora)]
    return _table(rows, ["corpus", "metric", "value"], model="m")


def _summarised(made):
    texts = {"faithful": [], "code": ["code"]}
    return summarise(made, texts, ["m"], ["topk"], frequency=0.1, min_activation=1.0)


def recovery(seeds=SEEDS):
    rows = [
        (corpus, seed, metric, threshold, value + 0.01 * seed)
        for corpus in CORPORA
        for seed in seeds
        for metric, threshold, value in [
            ("recovered_features", 0.9, _level(corpus) / 2),
            ("recovered_features", 0.7, 0.9),
            ("explained_variance", None, 0.9 - _level(corpus)),
            ("truly_fake_ratio", None, 0.2),
            ("random_auroc", None, 0.6),
            ("contrast_auroc", None, 0.8),
        ]
    ]
    table = _table(rows, ["corpus", "seed", "metric", "threshold", "value"])
    return table.with_columns(frequency=pl.lit(None, pl.Float64))


def ground_truth():
    rows = [
        (measure, frequency, truth, compared, value, value - 0.1, value + 0.1)
        for measure, frequency, truth in [
            ("shared_feature_ratio", None, "recovered_features"),
            ("shared_feature_ratio_alive", None, "recovered_features"),
            ("explained_variance", None, "recovered_features"),
            ("fake_feature_ratio", 0.1, "truly_fake_ratio"),
            ("fake_feature_ratio", 0.5, "truly_fake_ratio"),
        ]
        for compared, value in (("all", -0.33), ("corpora", 0.44), ("saes", 0.55))
    ]
    columns = ["measure", "frequency", "truth", "compared", "value", "low", "high"]
    return _table(rows, columns, model="m", hook="resid_pre.1")


def summary_of_known(seeds=SEEDS):
    evaluations = {"similarity": similarity(seeds), "fake_features": fake_features(seeds)}
    return _summarised({"recovery": recovery(seeds)} | evaluations)["summary"]


@cache
def tables(seeds=tuple(SEEDS)):
    made = {
        "similarity": similarity(seeds),
        "reconstruction": reconstruction(seeds),
        "fake_features": fake_features(seeds),
        "firing_histogram": firing(seeds),
        "probing": probing(seeds),
        "first_tokens": first_tokens(),
        "norms": norms(),
        "training": training(seeds),
        "corpus_statistics": corpus_statistics(),
    }
    made["ground_truth"] = ground_truth()
    made["known_summary"] = summary_of_known(seeds)
    return made | _summarised(made)


OF_KNOWN = ["fake_calls", "recovery"]
OF_EVALUATIONS = [
    "claims",
    "differences",
    "dose_response",
    "fake_features",
    "probing",
    "reconstruction",
    "shared_features",
    "similarity_forms",
    "sparse_probing",
    "threshold_curves",
]
NAMES = [name for name in figures.__all__ if name not in ("draw", "save")]


def _draw(name, made=None):
    made = made or tables()
    if name in OF_KNOWN:
        made = made | {"summary": made["known_summary"]}
    return figures.draw(name, made, CORPORA, **CUT)


def _words(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def _intervals(axes):
    """What the error bars of a panel say: (x, mean, low, high), sorted."""
    found = []
    for container in axes.containers:
        if isinstance(container, matplotlib.container.ErrorbarContainer):
            line, _, (bars,) = container.lines
            (low, high) = bars.get_segments()[0][:, 1] if bars.get_segments() else (math.nan,) * 2
            x = float(bars.get_segments()[0][0, 0])
            mean = math.nan if line is None else float(line.get_ydata()[0])
            found.append((x, mean, float(low), float(high)))
    return sorted(found)


def _lines(axes, x):
    """The lines drawn over exactly these x."""
    return [
        line
        for line in axes.get_lines()
        if np.array_equal(np.asarray(line.get_xdata(), float), np.asarray(x, float))
    ]


def _line(axes, x):
    """The first line drawn over exactly these x."""
    lines = _lines(axes, x)
    assert lines, f"no line over {x}"
    return np.asarray(lines[0].get_ydata(), float)


def _nulls(axes, x):
    """The nulls marked at a corpus: by line style, or the marker where there is no line."""
    marks = [*_lines(axes, [x - 0.3, x + 0.3]), *_lines(axes, [x])]
    looks = {
        mark.get_marker() if mark.get_linestyle() == "None" else mark.get_linestyle(): mark
        for mark in marks
    }
    return {look: looks[look].get_ydata()[0] for look in ("--", ":", "x") if look in looks}


def test_shared_features_draws_the_summary_its_intervals_its_pairs_and_its_nulls():
    made = tables()
    ratio, cosine = _draw("shared_features", made).axes
    rows = made["summary"].filter(pl.col("metric") == "shared_feature_ratio")
    expected = {row["corpus"]: (row["mean"], row["low"], row["high"]) for row in rows.to_dicts()}
    drawn = _intervals(ratio)
    for x, corpus in enumerate(CORPORA):
        assert drawn[x] == pytest.approx((x, *expected[corpus]))
        pairs = _line(ratio, [x + 0.3] * 3)
        assert sorted(pairs) == pytest.approx([_level(corpus) + 0.01 * s for s in (1, 2, 3)])
        assert _nulls(ratio, x) == pytest.approx({"--": 0.11, ":": 0.05, "x": 0.01})
        assert _nulls(cosine, x) == pytest.approx({"--": 0.22, ":": 0.1, "x": 0.02})
        assert _line(ratio, [x - 0.3]) == pytest.approx(0.99)  # with SAEs of the other corpus
    assert [tick.get_text() for tick in ratio.get_xticklabels()] == CORPORA


def test_threshold_curves_pass_through_the_mean_over_pairs_of_seeds():
    panels = _draw("threshold_curves").axes
    for corpus, mean, axes in zip(CORPORA, [(0.42, 0.22), (0.72, 0.52)], panels, strict=True):
        assert axes.get_title() == corpus
        curves = {tuple(np.round(line.get_ydata(), 6)): line for line in axes.get_lines()}
        assert {(0.42, 0.22), (0.72, 0.52), (0.11, 0.11), (0.05, 0.05), (0.01, 0.01)} <= set(curves)
        assert curves[mean].get_color() == looks(CORPORA)[corpus].colour  # the other one is pale


def test_similarity_forms_draws_each_form_and_the_nulls_that_it_has():
    figure = _draw("similarity_forms")
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
            mean, low, high, _ = pair_interval({p: v + _level(corpus) for p, v in pairs.items()})
            assert _intervals(axes)[x] == pytest.approx((x, mean + more, low + more, high + more))
            assert _nulls(axes, x) == pytest.approx(nulls)
    assert len({axes.get_ylim() for axes in shares}) == 1
    means = {round(x, 2): mean for x, mean, *_ in _intervals(cka)}
    assert means == pytest.approx({-0.2: 0.52, 0.2: 0.42, 0.8: 0.82, 1.2: 0.72})
    assert _nulls(cka, 0.8) == pytest.approx(permuted)
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
    ratio, cosine = _draw("shared_features", made).axes
    for axes, covariance, untrained in ((ratio, 0.11, 0.05), (cosine, 0.22, 0.1)):
        assert _intervals(axes) == []
        for x in range(len(CORPORA)):
            assert _nulls(axes, x) == pytest.approx({"--": covariance, ":": untrained})
        others = len(CORPORA) * (axes is ratio)
        assert sum(len(line.get_xdata()) > 0 for line in axes.get_lines()) == 2 * 2 + others
    for axes in _draw("threshold_curves", made).axes:
        lines = [(line.get_linestyle(), tuple(line.get_ydata())) for line in axes.get_lines()]
        drawn = [line for line in lines if line[1]]
        assert drawn[:-1] == [("--", (0.11, 0.11)), (":", (0.05, 0.05))]
    for name in ("shared_features", "threshold_curves", "similarity_forms"):
        figure = _draw(name, made)
        assert "too few seeds to compare: the nulls alone" in figure.get_suptitle()
        keys = figure.legends[0].legend_handles
        assert {key.get_linestyle() for key in keys} - {"None"} == {"--", ":"}
        assert "one pair of seeds" not in _words(figure)
        assert any("the nulls alone" in word for word in _words(figure))
        assert not any("the nulls alone" in word for word in _words(_draw(name)))


def test_reconstruction_cells_hold_mean_and_half_interval_of_kept_positions():
    ce, mse, variance = _draw("reconstruction").axes
    half = seed_interval({0: 0.0, 1: 0.1, 2: 0.2}).high - 0.1
    cells = {text.get_position(): text.get_text() for text in ce.texts}
    assert cells[0, 0] == f"1.30\n±{half:.2f}"
    assert cells[1, 0] == f"4.30\n±{half:.2f}"  # trained on the first, evaluated on the second
    assert cells[0, 1] == f"4.60\n±{half:.2f}"
    assert np.asarray(ce.images[0].get_array()) == pytest.approx(np.array([[1.3, 4.3], [4.6, 1.6]]))
    assert {text.get_text().split("\n")[0] for text in mse.texts} == {"150", "151"}
    assert [label.get_text() for label in variance.get_xticklabels()] == CORPORA


def test_fake_feature_marks_stand_at_the_ratios_of_every_input_with_their_intervals():
    left, middle, right = _draw("fake_features").axes
    half = seed_interval({0: 0.0, 1: 0.01, 2: 0.02}).high - 0.01
    found = []
    for container in left.containers:
        line, _, (bar,) = container.lines
        ((low, y), (high, _)) = bar.get_segments()[0]
        hollow = line.get_markerfacecolor() == "white"
        found.append((int(y + 0.5), line.get_xdata()[0], low, high, line.get_marker(), hollow))
    expected = [
        mark
        for y, paper in enumerate([0.01, 0.16])
        for mark in [
            (y, paper, paper - half, paper + half, "o", False),
            *((y, v, v, v, m, h) for v, m, h in [(0.02, "o", True), (0.12, "^", False)]),
            *((y, v, v, v, m, h) for v, m, h in [(0.14, "s", False), (0.3, "D", True)]),
        ]
    ]
    assert len(found) == len(expected)
    for mark, wanted in zip(found, expected, strict=True):
        assert mark[1:4] == pytest.approx(wanted[1:4])
        assert (mark[0], *mark[4:]) == (wanted[0], *wanted[4:])
    assert [label.get_text() for label in left.get_yticklabels()] == CORPORA
    assert _line(middle, GRID) == pytest.approx([0.10, 0.01])
    assert _line(right, [0, 1, 2]) == pytest.approx([0.32, 0.01, 0.005])
    assert _line(right, [3.5, 4.5]) == pytest.approx([0.22, 0.12])
    names = [label.get_text() for label in right.get_xticklabels()]
    assert names == ["0", "1", "2", "50%", "90%"]


def test_the_ceiling_is_a_line_where_it_fits_and_words_where_it_does_not():
    near = figures.fake_features(fake_features(ceiling=0.35), CORPORA, **CUT).axes[0]
    (line,) = [line for line in near.get_lines() if line.get_linestyle() == "--"]
    assert line.get_xdata() == pytest.approx([0.35, 0.35])
    assert near.get_title("right") == ""
    far = figures.fake_features(fake_features(ceiling=0.9), CORPORA, **CUT).axes[0]
    assert far.get_title("right") == "ceiling 0.90, beyond this axis"
    assert far.get_xlim()[1] < 0.9


def test_a_cut_that_was_not_measured_is_named():
    with pytest.raises(ValueError, match=r"frequency 0\.3"):
        figures.fake_features(fake_features(), CORPORA, min_activation=1.0, frequency=0.3)


def test_probing_averages_over_probe_seeds_before_it_takes_intervals_over_seeds():
    (axes,) = _draw("probing").axes
    drawn = _intervals(axes)
    means = sorted({round(mean, 6) for _, mean, _, _ in drawn})
    assert means == pytest.approx([0.66, 0.71, 0.81])  # no sparse probe among them
    half = seed_interval({0: 0.0, 1: 0.01, 2: 0.02}).high - 0.01
    assert all((low, high) == pytest.approx((m - half, m + half)) for _, m, low, high in drawn)
    assert len(drawn) == 2 * len(CORPORA) + 1
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [*CORPORA, "random"]
    raw, majority = (line.get_ydata()[0] for line in _lines(axes, [0, 1]))
    assert (raw, majority) == pytest.approx((0.9, 0.6))
    shade = axes.patches[0].get_y() + np.array([0, axes.patches[0].get_height()])
    assert shade == pytest.approx([0.88, 0.92])


def test_a_majority_class_far_below_the_rest_is_said_and_leaves_the_axis_to_them():
    far = probing().with_columns(
        value=pl.when(pl.col("features") == "majority").then(0.25).otherwise("value")
    )
    (axes,) = figures.probing(far, CORPORA).axes
    assert len(_lines(axes, [0, 1])) == 1
    assert axes.get_ylim()[0] > 0.5
    assert [text.get_text() for text in axes.texts] == ["majority 0.25 ↓"]


def test_sparse_probing_draws_a_curve_over_k_before_that_of_the_random_dictionary():
    (axes,) = _draw("sparse_probing").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == CORPORA
    drawn = _intervals(axes)
    curves = [line for line in axes.get_lines() if len(line.get_xdata()) == 3]
    for place in range(2):
        here = [mean for x, mean, _, _ in drawn if abs(x - place) < 0.5]
        assert here == pytest.approx([0.61, 0.71, 0.81])
        behind, before = curves[2 * place : 2 * place + 2]
        assert behind.get_ydata() == pytest.approx([0.46, 0.56, 0.66])
        assert before.get_ydata() == pytest.approx([0.61, 0.71, 0.81])
        assert behind.get_xdata() == pytest.approx(before.get_xdata())
    assert _line(axes, [0, 1]) == pytest.approx(0.9)


def test_probes_of_the_published_study_are_drawn_although_they_had_one_draw():
    published = read_csv(Path(__file__).parents[1] / "results/demo/tables/probing.csv")
    corpora = published["corpus"].unique(maintain_order=True).drop_nulls().to_list()
    for figure in (figures.probing, figures.sparse_probing):
        figure(published, corpora).savefig(BytesIO(), format="png", dpi=20)


def test_recovery_draws_both_intervals_and_says_both_correlations():
    figure = _draw("recovery")
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
            reach = _line(axes, [x["low"], x["high"]])
            assert reach == pytest.approx([y["mean"]] * 2)
        assert np.array(_intervals(axes)) == pytest.approx(np.array(sorted(expected)))
        assert "all: ρ -0.33 [-0.43, -0.23]" in axes.get_title()
        assert "at one SAE: ρ 0.44 [0.34, 0.54]" in axes.get_title()


def test_fake_calls_have_the_values_of_the_summary_and_guessing_as_a_line():
    figure = _draw("fake_calls")
    share, correlation, *scores = figure.axes
    for axes, mean in zip([share, *scores], (0.21, 0.61, 0.81), strict=True):
        assert [found[1] for found in _intervals(axes)] == pytest.approx([mean] * 2)
    for axes in scores:
        assert _line(axes, [0, 1]).tolist() == [0.5, 0.5]
    curves = {line.get_label(): list(line.get_ydata()) for line in correlation.get_lines()}
    assert curves["all"] == [-0.33, -0.33] and curves["at one SAE"] == [0.44, 0.44]


def test_first_tokens_are_the_likeliest_under_either_with_blanks_and_glyphs_escaped():
    upper = _draw("first_tokens").axes[0]
    labels = [label.get_text() for label in upper.get_yticklabels()]
    assert labels[:4] == ["'The'", "'\\n'", "'$x$'", "'\\u65e5…'"]
    assert len(labels) == 10
    widths = [bar.get_width() for bar in upper.patches]
    assert widths[:10] == pytest.approx([0.3 / (i + 1) for i in range(10)])
    assert widths[10:] == pytest.approx([0.0] + [0.2 / (i + 1) for i in range(1, 10)])


def test_norms_and_training_draw_the_numbers_of_their_tables():
    median, p95, largest = _draw("norms").axes
    assert _line(median, range(6)) == pytest.approx([10.0] * 6)
    assert _line(largest, range(6)) == pytest.approx([9e3 / (p + 1) for p in range(6)])
    fvu, dead = _draw("training_curves").axes
    assert _line(fvu, [100, 200, 300]) == pytest.approx([0.21, 0.11, 0.2 / 3 + 0.01])
    band = dead.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((0.0, 0.2))


def test_firing_histograms_count_every_latent_once():
    axes = _draw("firing_frequencies").axes[0]
    heldout = axes.patches[0].get_data().values
    points = [line for line in axes.get_lines() if len(line.get_xdata()) == 1]
    assert [line.get_marker() for line in points] == ["D", "o", "^", "s"]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([0.25, 0.5, 0.75, 0.0])
    curves = [line.get_ydata() for line in axes.get_lines() if len(line.get_xdata()) > 2]
    assert [sum(y) for y in (heldout, *curves)] == pytest.approx([0.75, 0.5, 0.25, 1.0])


def test_differences_draw_their_table_and_fill_what_is_sure():
    made = tables()
    rows = made["differences"].filter(pl.col("metric") == "shared_feature_ratio")
    (row,) = rows.iter_rows(named=True)
    (axes,) = (a for a in _draw("differences").axes if "shared feature" in a.get_xlabel())
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
    figure = _draw("dose_response", made)
    axes = figure.axes[0]
    rows = made["summary"].filter(pl.col("metric") == "shared_feature_ratio").sort("mean")
    expected = [
        (0.5 * CORPORA.index(row["corpus"]), row["mean"], row["low"], row["high"])
        for row in rows.to_dicts()
    ]
    assert _intervals(axes) == [pytest.approx(row) for row in sorted(expected)]
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
    summary = _table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    statistics = corpus_statistics(corpora)
    correlations = comparisons.dose_response(summary, statistics)
    axes = figures.dose_response(summary, statistics, correlations, corpora).axes[0]
    lines = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert len(lines) == fitted
    assert axes.get_title().startswith("ρ = 1.00 [") == bool(fitted)
    for line in lines:
        assert line.get_ydata() == pytest.approx([0.0, 0.4])


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("first_tokens", "norms")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_every_figure_over_seeds_says_how_many_or_that_they_are_too_few(name, seeds):
    heading = " ".join(_words(_draw(name, tables(tuple(SEEDS[:seeds])))))
    if seeds == 3:
        assert "n = 3 seeds" in heading
    else:
        assert "n = 1 seed" in heading or "too few seeds" in heading
        assert "95 % interval" not in heading


def test_seed_counts_that_differ_are_given_as_a_range():
    intervals = [Interval(0.1, 0.0, 0.2, 3), Interval(0.1, math.nan, math.nan, 1)]
    assert describe(intervals).endswith("n = 1 to 3 seeds")


@pytest.mark.parametrize(("value", "everywhere"), [(math.nan, True), (math.inf, False)])
@pytest.mark.filterwarnings("error")
def test_values_that_are_not_finite_leave_every_figure_of_evaluations_drawable(value, everywhere):
    made = dict(tables())
    broken = pl.lit(True) if everywhere else pl.col("corpus") == "code"
    # Shares of latents are finite or, where none is alive, no number.
    shares = [] if math.isinf(value) else ["similarity", "fake_features", "probing"]
    for name in ("reconstruction", *shares):
        made[name] = made[name].with_columns(value=pl.when(broken).then(value).otherwise("value"))
    divergence = {"metric": pl.lit("first_token_kl_model_corpus"), "value": pl.lit(value)}
    gaps = made["corpus_statistics"]
    made["corpus_statistics"] = pl.concat([gaps, gaps.with_columns(**divergence)])
    made |= _summarised(made)
    for name in OF_EVALUATIONS:
        _draw(name, made).savefig(BytesIO(), format="png", dpi=20)
    texts = _draw("reconstruction", made).axes[0].texts
    # Cells without a number are white.
    assert {t.get_color() for t in texts if t.get_text() == f"{value}"} == {"black"}


def test_a_fitted_line_ignores_corpora_whose_metric_is_not_finite():
    corpora = [f"c{i}" for i in range(6)]
    rows = [(c, "fake_feature_ratio", 0.1 * i, 0.0, 1.0, 3) for i, c in enumerate(corpora)]
    rows[5] = ("c5", "fake_feature_ratio", math.nan, math.nan, math.nan, 3)
    summary = _table(rows, ["corpus", "metric", "mean", "low", "high", "seeds"])
    statistics = corpus_statistics(corpora)
    correlations = comparisons.dose_response(summary, statistics)
    axes = figures.dose_response(summary, statistics, correlations, corpora).axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_linestyle() == "--"]
    assert line.get_ydata() == pytest.approx([0.0, 0.4])


def test_rule_library_and_captions_name_the_same_figures():
    workflow = Path(__file__).parent.parent / "workflow"
    rule = (workflow / "rules" / "report.smk").read_text()
    ruled = re.findall(r'"(\w+)"', re.search(r"^FIGURES = \[\n(.*?)^\]", rule, re.M | re.S)[1])
    captions = {path.stem for path in (workflow / "report").glob("*.rst")}
    (keys,) = [
        [ast.literal_eval(key) for key in node.keys]
        for node in ast.walk(ast.parse(inspect.getsource(figures.draw)))
        if isinstance(node, ast.Dict) and isinstance(node.values[0], ast.Lambda)
    ]
    drawn = captions - {"summary", "ground_truth", "workflow"}
    assert sorted(ruled) == sorted(keys) == sorted(drawn) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_each_combination_gets_panels_of_its_own_and_no_word_is_too_small(name):
    one = tables()
    two = {
        key: pl.concat([table, table.with_columns(model=pl.lit("other"))])
        for key, table in one.items()
    }
    figure = _draw(name, two)
    assert len(figure.axes) == 2 * len(_draw(name, one).axes)
    assert any(word.startswith("other") for word in _words(figure))
    sizes = [t.get_fontsize() for t in figure.findobj(matplotlib.text.Text) if t.get_text()]
    assert min(sizes) >= 8


# Comparisons with the reference corpus have no such model; known features have all corpora.
@pytest.mark.parametrize(
    "name", [n for n in NAMES if n not in ("claims", "differences", *OF_KNOWN)]
)
def test_a_model_studied_on_some_corpora_alone_has_panels_of_these(name):
    control = {}
    for table, rows in tables().items():
        if "corpus" not in rows.columns:
            control[table] = rows
            continue
        there = pl.col("corpus") != "faithful"  # probing baselines have a corpus of their own
        if "eval_corpus" in rows.columns:
            there &= pl.col("eval_corpus") != "faithful"
        control[table] = pl.concat([rows, rows.filter(there).with_columns(model=pl.lit("z"))])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = _draw(name, control)
    whole, part = figure.subfigs
    used = [[axes for axes in half.axes if axes.axison] for half in (whole, part)]
    assert [axes.get_title() for axes in used[0]].count("faithful") == [
        axes.get_title() for axes in used[1]
    ].count("faithful") + (name in ("first_tokens", "firing_frequencies", "threshold_curves"))
    assert used[1][0].get_ylabel() == used[0][0].get_ylabel()
    assert "faithful" not in [t.get_text() for axes in used[1] for t in axes.get_xticklabels()]


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_rows_does_not_change_a_figure(name):
    made = tables()
    shuffled = {key: t.sample(fraction=1, shuffle=True, seed=1) for key, t in made.items()}
    files = []
    for version in (made, shuffled):
        drawn = BytesIO()  # a PDF, unlike pixels, shows the order of what is drawn
        _draw(name, version).savefig(drawn, format="pdf", metadata={"CreationDate": None})
        files.append(drawn.getvalue())
    assert files[0] == files[1]


def test_a_colour_stays_with_its_place_and_many_corpora_stay_apart():
    assert looks(["a", "b"])["b"].colour == looks(["x", "b", "c"])["b"].colour == PALETTE[1]
    many = looks([f"c{i}" for i in range(18)]).values()
    assert len({(look.colour, look.marker) for look in many}) == 18
    assert len({(look.colour, look.line) for look in many}) == 18


def test_a_table_about_other_corpora_is_an_error():
    with pytest.raises(ValueError, match="nothing to draw"):
        figures.norms(norms(), ["elsewhere"])


def test_two_values_of_one_seed_are_an_error():
    with pytest.raises(ValueError, match="several values"):
        figures.reconstruction(pl.concat([reconstruction(), reconstruction()]), CORPORA)


SAVE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import test_figures as t
out = Path(sys.argv[2])
t.figures.save(t._draw("first_tokens"), out / "a.pdf", out / "a.png", 60)
"""


def test_the_same_table_gives_the_same_bytes_in_another_process(tmp_path):
    saved = []
    for salt in ("1", "2"):
        out = tmp_path / salt
        environment = os.environ | {
            "PYTHONHASHSEED": salt,
            "PYTHONPATH": os.pathsep.join(sys.path),
            "SOURCE_DATE_EPOCH": salt,
        }
        command = [sys.executable, "-c", SAVE, str(Path(__file__).parent), str(out)]
        subprocess.run(command, check=True, env=environment)
        saved.append([(out / "a.pdf").read_bytes(), (out / "a.png").read_bytes()])
    assert saved[0] == saved[1]
    assert b"/Type3" not in saved[0][0] and b"CreationDate" not in saved[0][0]


def test_a_figure_that_cannot_be_saved_leaves_no_file(tmp_path):
    figure = _draw("norms")
    figure.axes[0].set_title("$unclosed {$")
    with pytest.raises(ValueError):
        figures.save(figure, tmp_path / "a.pdf", tmp_path / "a.png", 60)
    assert list(tmp_path.iterdir()) == []


def test_the_curve_of_first_tokens_ends_where_the_table_is_complete() -> None:
    assert FIRST_TOKENS == TABLE_TOKENS
