"""Intervals over seeds keep their level; the summary picks the right rows."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import polars as pl
import pytest
from scipy import stats

from faithful_sae.statistics import pair_interval, seed_interval, summarise

PLACE = {"model": "m", "corpus": "c", "hook": "h", "sae": "s"}
RECONSTRUCTION = PLACE | {"eval_corpus": "c", "positions": "kept", "metric": "fvu", "seed": 0}
SIMILARITY = PLACE | {
    "corpus_b": "c",
    "seed": 0,
    "seed_b": 1,
    "null": "none",
    "latents": "all",
    "metric": "shared_feature_ratio",
    "threshold": 0.7,
}
FAKE = PLACE | {
    "seed": 0,
    "random_input": "uniform-tokens",
    "cut": "absolute",
    "level": 1.0,
    "frequency": 0.1,
    "metric": "fake_feature_ratio",
}
PROBING = PLACE | {"seed": 0, "task": "t", "features": "latents", "k": None, "metric": "accuracy"}
SCHEMA = {
    "seed": pl.Int64,
    "seed_b": pl.Int64,
    "k": pl.Int64,
    "value": pl.Float64,
    "threshold": pl.Float64,
    "level": pl.Float64,
    "frequency": pl.Float64,
}


def table(base: dict, *changes: dict) -> pl.DataFrame:
    schema = {name: SCHEMA.get(name, pl.String) for name in [*base, "value"]}
    return pl.DataFrame([base | change for change in changes], schema=schema)


def summary(
    reconstruction: pl.DataFrame | None = None,
    similarity: pl.DataFrame | None = None,
    fake_features: pl.DataFrame | None = None,
    probing: pl.DataFrame | None = None,
) -> dict[str, tuple[float, float, float, int]]:
    made = summarise(
        table(RECONSTRUCTION) if reconstruction is None else reconstruction,
        table(SIMILARITY) if similarity is None else similarity,
        table(FAKE) if fake_features is None else fake_features,
        frequency=0.1,
        min_activation=1.0,
        probing=table(PROBING) if probing is None else probing,
    )
    return {row["metric"]: tuple(row.values())[5:] for row in made.iter_rows(named=True)}


def test_seed_interval_is_students_t():
    values = [0.2, 0.5, 0.3, 0.9]
    mean, low, high, seeds = seed_interval(dict(enumerate(values)))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, seeds) == (pytest.approx(np.mean(values)), 4)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_pair_interval_by_hand_for_three_seeds():
    # Leaving out a seed leaves one pair: 0.6, 0.4, 0.2; se^2 = 2/3 * 0.08; t(0.975, 2) = 4.302653.
    mean, low, high, seeds = pair_interval({(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6})
    half = 4.302653 * math.sqrt(2 / 3 * 0.08)
    assert (mean, low, high, seeds) == pytest.approx((0.4, 0.4 - half, 0.4 + half, 3), rel=1e-6)


def test_pairs_of_additive_seed_effects_have_the_interval_of_their_seeds():
    effects = {0: 0.1, 1: 0.4, 5: 0.2, 7: 0.35}
    pairs = {(i, j): effects[i] + effects[j] for i, j in itertools.combinations(effects, 2)}
    assert pair_interval(pairs) == pytest.approx(
        seed_interval({s: 2 * a for s, a in effects.items()})
    )


def test_a_seed_paired_with_itself_is_left_out():
    pairs = {(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6}
    assert pair_interval(pairs | {(0, 0): 1.0}) == pair_interval(pairs)


def test_too_few_seeds_give_a_mean_and_an_honest_gap():
    for interval, expected in (
        (seed_interval({3: 0.5}), (0.5, 1)),
        (pair_interval({(0, 1): 0.5}), (0.5, 2)),
        (pair_interval({(0, 1): 0.25, (0, 2): 0.75}), (0.5, 3)),
    ):
        assert (interval.mean, interval.seeds) == expected
        assert math.isnan(interval.low) and math.isnan(interval.high)


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        seed_interval({})
    with pytest.raises(ValueError, match="at least one value"):
        pair_interval({(1, 1): 0.5})


def coverage(draw: Callable[[], tuple[float, float]], trials: int = 3000) -> float:
    """Share of intervals that hold the true mean, 0."""
    return float(np.mean([low <= 0 <= high for low, high in (draw() for _ in range(trials))]))


@pytest.mark.parametrize("seeds", [3, 5])
def test_seed_interval_covers_the_true_mean_95_times_in_100(seeds):
    rng = np.random.default_rng(seeds)
    share = coverage(lambda: seed_interval(dict(enumerate(rng.normal(size=seeds))))[1:3])
    assert 0.935 < share < 0.965  # standard error 0.004


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("noise", "at_most"), [(0.0, 0.965), (1.0, 1.0)])
def test_pair_interval_covers_at_least_its_level_and_exactly_so_without_pair_noise(
    seeds, noise, at_most
):
    rng = np.random.default_rng(seeds)
    every = list(itertools.combinations(range(seeds), 2))

    def draw() -> tuple[float, float]:
        effects, errors = rng.normal(size=seeds), noise * rng.normal(size=len(every))
        pairs = {
            (i, j): effects[i] + effects[j] + e for (i, j), e in zip(every, errors, strict=True)
        }
        return pair_interval(pairs)[1:3]

    assert 0.935 < coverage(draw) <= at_most


def test_summary_takes_reconstruction_on_the_own_corpus_at_kept_positions():
    rows = table(
        RECONSTRUCTION,
        {"value": 0.2},
        {"seed": 1, "value": 0.4},
        {"eval_corpus": "other", "value": 9.0},
        {"positions": "all", "value": 9.0},
        {"metric": "mse", "value": 9.0},
    )
    made = summary(reconstruction=rows)
    assert list(made) == ["fvu"]
    assert made["fvu"] == pytest.approx(tuple(seed_interval({0: 0.2, 1: 0.4})))


def test_summary_of_similarity_names_each_metric_and_subtracts_the_null():
    cosine = {"metric": "mean_matched_cosine", "threshold": None}
    null = cosine | {"null": "covariance"}
    made = summary(
        similarity=table(
            SIMILARITY,
            {"value": 0.5},
            {"latents": "alive", "value": 0.75},
            cosine | {"value": 0.875},
            null | {"value": 0.25},
            null | {"seed": 2, "value": 0.5},
            {"threshold": 0.5, "value": 9.0},
            {"null": "untrained", "value": 9.0},
            {"null": "covariance", "value": 9.0},
            {"corpus_b": "other", "seed_b": 0, "value": 9.0},
            {"corpus_b": "other", "seed_b": 3, "value": 9.0},
            null | {"latents": "alive", "value": 9.0},
            cosine | {"latents": "alive", "value": 9.0},
        )
    )
    assert {metric: row[0] for metric, row in made.items()} == {
        "shared_feature_ratio": 0.5,
        "shared_feature_ratio_alive": 0.75,
        "mean_matched_cosine": 0.875,
        "mean_matched_cosine_above_null": 0.5,
    }
    assert all(row[3] == 2 for row in made.values())


def test_the_null_of_another_corpus_is_not_subtracted():
    cosine = {"metric": "mean_matched_cosine", "threshold": None, "value": 0.5}
    other = {"corpus": "d", "corpus_b": "d", "null": "covariance"}
    assert list(summary(similarity=table(SIMILARITY, cosine, cosine | other))) == [
        "mean_matched_cosine"
    ]


def test_summary_takes_fake_features_at_the_given_cut_and_full_probes_on_latents():
    made = summary(
        fake_features=table(
            FAKE,
            {"value": 0.25},
            {"frequency": 0.2, "value": 9.0},
            {"level": 0.0, "value": 9.0},
            {"cut": "own_quantile", "value": 9.0},
            {"random_input": "shuffled-tokens", "value": 9.0},
            {"metric": "fake_feature_ceiling", "value": 9.0},
        ),
        probing=table(
            PROBING,
            {"value": 0.75},
            {"task": "u", "value": 0.5},
            {"k": 5, "value": 9.0},
            {"metric": "macro_f1", "value": 9.0},
            {"features": "raw", "corpus": "", "sae": "", "seed": -1, "value": 9.0},
        ),
    )
    assert {metric: row[0] for metric, row in made.items()} == {
        "fake_feature_ratio": 0.25,
        "probing_accuracy:t": 0.75,
        "probing_accuracy:u": 0.5,
    }


def test_a_cut_that_was_never_measured_is_an_error_naming_it():
    with pytest.raises(ValueError, match="frequency 0.1 and min_activation 1.0"):
        summary(fake_features=table(FAKE, {"frequency": 0.2, "value": 0.5}))


def test_a_value_that_occurs_twice_is_an_error():
    with pytest.raises(ValueError, match="several values"):
        summary(reconstruction=table(RECONSTRUCTION, {"value": 0.2}, {"value": 0.3}))


def test_a_study_without_tasks_has_a_summary_without_probes():
    made = summarise(
        table(RECONSTRUCTION, {"value": 0.2}),
        table(SIMILARITY),
        table(FAKE),
        frequency=0.1,
        min_activation=1.0,
    )
    assert made["metric"].to_list() == ["fvu"]


def test_the_nulls_of_a_single_seed_are_no_pairs():
    rows = [
        {"seed_b": 0, "null": null, "value": 0.1, **metric}
        for null in ("covariance", "untrained")
        for metric in ({}, {"metric": "mean_matched_cosine", "threshold": None})
    ]
    assert summary(similarity=table(SIMILARITY, *rows)) == {}


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_has_no_interval_and_spoils_no_other_corpus(value):
    metric = {"metric": "ce_loss_recovered_zero"}
    other = {"corpus": "d", "eval_corpus": "d"}
    rows = [metric | {"seed": seed, "value": 0.5 + seed} for seed in range(3)]
    broken = [metric | other | {"seed": seed, "value": value if seed else 1.0} for seed in range(3)]
    made = summarise(
        table(RECONSTRUCTION, *broken, *rows), table(SIMILARITY), table(FAKE), 0.1, 1.0
    )
    whole, spoilt = made.sort("corpus").iter_rows()
    assert whole[5:] == pytest.approx(tuple(seed_interval({0: 0.5, 1: 1.5, 2: 2.5})))
    assert spoilt[5] == pytest.approx(value, nan_ok=True) and spoilt[8] == 3
    assert math.isnan(spoilt[6]) and math.isnan(spoilt[7])
    pairs = pair_interval({(0, 1): value, (0, 2): 0.5, (1, 2): 0.5})
    assert math.isnan(pairs.low) and math.isnan(pairs.high)


def test_summary_of_empty_tables_is_empty():
    assert summary() == {}
