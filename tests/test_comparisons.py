"""Differences between corpora pair what belongs together; doses rank corpora."""

import itertools

import numpy as np
import polars as pl
import pytest
from scipy import stats
from study_tables import PLACE

from faithful_sae.comparisons import differences, dose_response, paired_differences
from faithful_sae.headline import BY_PAIR, BY_SEED, REBUILT, Headline
from faithful_sae.statistics import pair_interval


def rows(like: pl.DataFrame, *changes: dict) -> pl.DataFrame:
    base = PLACE | {"metric": "x", "seed": 0, "seed_b": 1, "eval_corpus": "web"}
    made = [{k: v for k, v in (base | c).items() if k in like.columns} for c in changes]
    return pl.DataFrame(made, schema=like.schema)


def compared(
    by_seed: pl.DataFrame = BY_SEED,
    by_pair: pl.DataFrame = BY_PAIR,
    foreign: pl.DataFrame = REBUILT,
    rebuilt: pl.DataFrame = REBUILT,
) -> pl.DataFrame:
    return differences(paired_differences(Headline(by_seed, by_pair, rebuilt, foreign), "c"))


def test_equal_seeds_are_paired_and_the_other_corpus_subtracted():
    mine, others = [0.5, 0.7, 1.1], [0.4, 0.8, 0.6]
    made = compared(
        rows(
            BY_SEED,
            *({"seed": s, "value": v} for s, v in enumerate(mine)),
            # In another order, with a seed that the reference lacks.
            *({"corpus": "d", "seed": s, "value": others[s]} for s in (2, 0, 1)),
            {"corpus": "d", "seed": 7, "value": 100.0},
        )
    )
    (row,) = made.iter_rows(named=True)
    test = stats.ttest_rel(mine, others)
    assert (row["corpus"], row["corpus_b"], row["seeds"]) == ("c", "d", 3)
    assert row["mean"] == pytest.approx(np.mean(mine) - np.mean(others))
    assert row["p"] == pytest.approx(test.pvalue)
    assert row["p_adjusted"] == pytest.approx(test.pvalue)
    interval = test.confidence_interval()
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_what_a_seed_does_to_both_corpora_cancels():
    rng = np.random.default_rng(0)
    effects = 100 * rng.normal(size=4)
    pairs = list(itertools.combinations(range(4), 2))
    noise = {pair: rng.normal() for pair in pairs}
    made = compared(
        by_pair=rows(
            BY_PAIR,
            *(
                {"corpus": corpus, "seed": i, "seed_b": j, "value": effects[i] + effects[j] + extra}
                for i, j in pairs
                for corpus, extra in (("c", noise[i, j]), ("d", 0.0))
            ),
        )
    )
    assert made.row(0)[6:10] == pytest.approx(tuple(pair_interval(noise)))


def test_on_both_texts_each_sae_is_once_at_home_and_once_away():
    values = {("c", "c"): 0.7, ("c", "d"): 0.6, ("d", "c"): 0.5, ("d", "d"): 0.9, ("c", "e"): 9.0}
    made = compared(
        rebuilt=rows(
            REBUILT,
            *({"corpus": c, "eval_corpus": e, "value": v} for (c, e), v in values.items()),
            # Of this one, what it does on the reference's text is missing.
            {"corpus": "f", "eval_corpus": "f", "value": 0.1},
            {"corpus": "c", "eval_corpus": "f", "value": 0.2},
        )
    )
    (row,) = made.iter_rows(named=True)
    assert (row["metric"], row["corpus_b"]) == ("x:both", "d")
    assert row["mean"] == pytest.approx((0.7 + 0.6) / 2 - (0.5 + 0.9) / 2)


def test_models_hooks_and_saes_are_never_mixed():
    made = compared(
        rows(
            BY_SEED,
            *(
                {"hook": hook, "corpus": corpus, "value": value}
                for hook, corpus, value in [("h", "c", 1.0), ("h", "d", 0.5), ("i", "d", 0.1)]
            ),
        )
    )
    assert made.select("hook", "mean").rows() == [("h", 0.5)]


def test_foreign_text_is_foreign_to_both():
    made = compared(
        by_seed=rows(
            BY_SEED, {"metric": "x:foreign", "value": 9.0},
            {"metric": "x:foreign", "corpus": "books", "value": 0.0},
        ),
        foreign=rows(
            REBUILT,
            {"eval_corpus": "web", "value": 1.0},
            {"eval_corpus": "books", "value": 50.0},  # books' own: seen by the other corpus
            {"eval_corpus": "web", "corpus": "books", "value": 0.25},
        ),
    )  # fmt: skip
    assert made.select("metric", "corpus_b", "mean").rows() == [("x:foreign", "books", 0.75)]


def test_p_values_are_corrected_for_all_comparisons_in_the_same_metric_and_nan_stays():
    rng = np.random.default_rng(1)
    values = [
        {"corpus": corpus, "metric": metric, "seed": seed, "value": rng.normal(loc=corpus == "c")}
        for corpus in ("c", "d", "e", "f")
        for metric in ("x", "y")
        for seed in range(4)
    ]
    once = [{"corpus": corpus, "metric": "z", "value": 1.0} for corpus in ("c", "d")]
    made = compared(rows(BY_SEED, *values, *once))
    for metric in ("x", "y"):
        known = made.filter(pl.col("metric") == metric)
        p = sorted(known["p"])
        # Benjamini and Hochberg by hand: p_(i) n / i, made monotone from the largest down.
        raised = [p[i] * len(p) / (i + 1) for i in range(len(p))]
        expected = [min(raised[i:]) for i in range(len(p))]
        assert sorted(known["p_adjusted"]) == pytest.approx(expected)
    (alone,) = made.filter(pl.col("metric") == "z")["p_adjusted"]
    assert np.isnan(alone)


def test_dose_response_ranks_corpora_by_their_dose():
    corpora = ["a", "b", "c", "d", "e"]
    summary = pl.DataFrame(
        [
            PLACE | {"metric": metric, "corpus": corpus, "mean": mean}
            for metric, means in (
                ("shared_feature_ratio", [5.0, 4.0, 3.0, 2.0, 1.0]),
                ("fake_feature_ratio", [0.1, 0.2, 0.4, 0.8, 0.9]),
                ("unlisted", [1.0] * 5),
            )
            for corpus, mean in zip(corpora, means, strict=True)
        ]
    )
    statistics = pl.DataFrame(
        [
            # Likelier than what the model writes is as far from it as less likely.
            {"model": model, "corpus": corpus, "metric": metric, "value": value * (-1.0) ** value}
            if metric == "surprise_gap_settled"
            else {"model": model, "corpus": corpus, "metric": metric, "value": float(value)}
            for model in ("m", "other")
            for metric in ("surprise_gap_settled", "nll", "documents")
            for value, corpus in enumerate(
                corpora if metric != "nll" else "cdeab"
            )  # by hand: 1 - 6 * 30 / 120
        ]
    )
    made = dose_response(summary, statistics)
    found = {(metric, dose): rho for *_, metric, dose, rho, _, _, _, _ in made.iter_rows()}
    assert found == {
        ("shared_feature_ratio", "surprise_distance"): pytest.approx(-1),
        ("fake_feature_ratio", "surprise_distance"): pytest.approx(1),
        ("shared_feature_ratio", "nll"): pytest.approx(0.5),
        ("fake_feature_ratio", "nll"): pytest.approx(-0.5),
    }
    assert set(made["corpora"]) == {5}
