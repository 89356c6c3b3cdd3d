"""Rank correlations with known answers, intervals that cover, and cells made by hand."""

import math

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr

from faithful_sae.ground_truth import COMPARED, TRACKED, ground_truth, rank_correlation


def frame(x, y, **groups):
    return pl.DataFrame({"x": x, "y": y} | groups, strict=False)


def test_without_groups_it_is_spearmans_rho_ties_included():
    generator = np.random.default_rng(0)
    for n in (5, 20):
        x, y = generator.integers(0, 6, (2, n)).astype(float)
        found = rank_correlation(frame(x, y), "x", "y", [])
        assert found.mean == pytest.approx(spearmanr(x, y).statistic)
        assert found.low < found.mean < found.high and found.seeds == n


def test_it_depends_on_ranks_alone():
    x, y = np.random.default_rng(1).normal(size=(2, 12))
    found = rank_correlation(frame(x, y), "x", "y", [])
    assert rank_correlation(frame(np.exp(x), y**3), "x", "y", []) == found
    assert rank_correlation(frame(-x, y), "x", "y", []).mean == pytest.approx(-found.mean)


def test_within_groups_it_does_not_see_what_lies_between_them():
    # In each group y rises with x; the group with larger x has the smaller y.
    table = frame([1, 2, 3, 11, 12, 13], [11, 12, 13, 1, 2, 3], sae=["a"] * 3 + ["b"] * 3)
    assert rank_correlation(table, "x", "y", []).mean < 0
    assert rank_correlation(table, "x", "y", ["sae"]).mean == pytest.approx(1)


@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_the_interval_covers_the_truth_though_groups_repeat_one_another(rho, groups):
    """Of normal pairs Spearman's rho is 6 / pi asin(rho / 2); what each group repeats is one."""
    generator = np.random.default_rng(2)
    truth = 6 / math.pi * math.asin(rho / 2)
    covered, runs, n = 0, 400, 24
    for _ in range(runs):
        a, b = generator.normal(size=(2, n))
        x, y = (np.tile(v, groups) for v in (a, rho * a + math.sqrt(1 - rho**2) * b))
        table = frame(x, y, sae=[str(i // n) for i in range(n * groups)])
        found = rank_correlation(table, "x", "y", ["sae"])
        covered += found.low <= truth <= found.high
    assert 0.90 <= covered / runs <= 0.985


def test_four_corpora_at_any_number_of_settings_have_no_interval():
    table = frame([1, 2, 3, 4] * 5, [1, 2, 3, 4] * 5, sae=[str(i // 4) for i in range(20)])
    found = rank_correlation(table, "x", "y", ["sae"])
    assert found.mean == pytest.approx(1) and math.isnan(found.low) and math.isnan(found.high)


def test_what_does_not_vary_has_no_correlation_and_few_cells_no_interval():
    assert math.isnan(rank_correlation(frame([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]), "x", "y", []).mean)
    three = rank_correlation(frame([1, 2, 3], [2, 1, 3]), "x", "y", [])
    assert three.mean == pytest.approx(0.5) and math.isnan(three.low)
    perfect = rank_correlation(frame([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]), "x", "y", [])
    assert perfect.mean == 1 and perfect.low < 0 < perfect.high < 1  # five cells say little
    empty = rank_correlation(frame([math.nan], [1.0]), "x", "y", [])
    assert math.isnan(empty.mean) and empty.seeds == 0


def test_rows_that_are_not_finite_are_left_out():
    whole = frame([1.0, 2, 3, 4, 5, math.nan], [2.0, 1, 3, 5, 4, 0])
    found = rank_correlation(whole, "x", "y", [])
    assert found == rank_correlation(whole[:5], "x", "y", []) and found.seeds == 5


# --- the table -------------------------------------------------------------------------------

CORPORA, SAES, SEEDS = ["faithful", "near", "far"], ["right", "wide"], [0, 1]


def tables():
    """Recovery falls with the corpus and with the SAE; SFR falls with it, EV rises against it."""
    recovery, similarity, fake = [], [], []
    for c, corpus in enumerate(CORPORA):
        for s, sae in enumerate(SAES):
            level = 0.9 - 0.1 * c - 0.35 * s
            for seed in SEEDS:
                noise = 0.02 * seed
                for metric, threshold, frequency, value in [
                    ("recovered_features", 0.9, None, level + noise),
                    ("recovered_features", 0.7, None, noise),
                    ("recovered_features_weighted", 0.9, None, level),
                    ("explained_variance", None, None, -level + noise),
                    ("explained_variance_faithful", None, None, 0.5),
                    ("truly_fake_ratio", None, None, 0.1 * c),
                    ("fake_call_recall", None, 0.1, 0.3),
                ]:
                    recovery.append((corpus, sae, seed, metric, threshold, frequency, value))
                for frequency, sign in ((0.01, 1), (0.1, -1)):
                    for cut, value in ((0.5, sign * 0.1 * c), (0.0, 7.0)):
                        fake.append(
                            (corpus, sae, seed, cut, frequency, "fake_feature_ratio", value)
                        )
            for other, null, latents, value in [
                (corpus, "none", "all", level),
                (corpus, "none", "alive", -level),
                (corpus, "untrained", "all", 0.2),
                ("elsewhere", "none", "all", 0.3),
            ]:
                for metric, threshold in [
                    ("shared_feature_ratio", 0.7),
                    ("shared_feature_ratio", 0.5),
                    ("mean_matched_cosine", None),
                ]:
                    found = 0.4 if threshold == 0.5 else value
                    similarity.append((corpus, other, sae, null, latents, metric, threshold, found))
    coordinates = ["corpus", "sae", "seed"]
    made = (
        pl.DataFrame(
            recovery, [*coordinates, "metric", "threshold", "frequency", "value"], orient="row"
        ),
        pl.DataFrame(
            similarity,
            ["corpus", "corpus_b", "sae", "null", "latents", "metric", "threshold", "value"],
            orient="row",
        ),
        pl.DataFrame(
            fake, [*coordinates, "level", "frequency", "metric", "value"], orient="row"
        ).with_columns(random_input=pl.lit("uniform-tokens"), cut=pl.lit("absolute")),
    )
    place = {"model": pl.lit("known"), "hook": pl.lit("resid_pre.0")}
    names = ("recovery", "similarity", "fake_features")
    return {name: t.with_columns(**place) for name, t in zip(names, made, strict=True)}


def value(table, measure, truth, compared, frequency=None):
    same = pl.col("frequency").is_null() if frequency is None else pl.col("frequency") == frequency
    row = table.filter(
        same,
        pl.col("measure") == measure,
        pl.col("truth") == truth,
        pl.col("compared") == compared,
    )
    return row["value"].item(), row["cells"].item()


def test_every_measure_is_held_against_its_truth_in_every_comparison():
    table = ground_truth(tables(), min_activation=0.5)
    for compared in COMPARED:
        assert value(table, "shared_feature_ratio", "recovered_features", compared) == (1, 6)
        alive = value(table, "shared_feature_ratio_alive", "recovered_features", compared)
        assert alive == (-1, 6)
        assert value(table, "explained_variance", "recovered_features", compared) == (-1, 6)
        constant = value(table, "explained_variance_faithful", "recovered_features", compared)
        assert math.isnan(constant[0])
    # Fake latents depend on the corpus alone: ties between SAEs.
    for frequency, sign in ((0.01, 1), (0.1, -1)):
        for compared in ("all", "corpora"):
            found = value(table, "fake_feature_ratio", "truly_fake_ratio", compared, frequency)
            assert found == (pytest.approx(sign), 6)
        among_saes = value(table, "fake_feature_ratio", "truly_fake_ratio", "saes", frequency)
        assert math.isnan(among_saes[0])
    assert table.height == (len(TRACKED) - 1 + 2) * len(COMPARED)


def test_models_are_not_mixed():
    made = tables()
    two = {name: pl.concat([t, t.with_columns(model=pl.lit("other"))]) for name, t in made.items()}
    table = ground_truth(two, min_activation=0.5)
    for _, part in table.group_by("model"):
        assert part["cells"].unique().to_list() == [6]
    assert table["model"].n_unique() == 2


def test_the_order_of_rows_changes_nothing():
    made = tables()
    shuffled = {n: t.sample(fraction=1, shuffle=True, seed=3) for n, t in made.items()}
    assert ground_truth(shuffled, 0.5).equals(ground_truth(made, 0.5))
