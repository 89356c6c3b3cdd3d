"""Verdicts on the paper's claims follow from intervals, signs and counterexamples alone."""

import math
import re

import polars as pl
import pytest
from scipy import stats
from study_tables import PLACE

from faithful_sae.claims import CLAIMS, DOSE_CLAIMS, claims
from faithful_sae.comparisons import DOSE_RESPONSE, differences, paired_differences
from faithful_sae.headline import BY_PAIR, BY_SEED, REBUILT, Headline

OUTSIDE = ["web", "books"]


def judged(
    values: dict[str, list[float]],
    metric: str = "fake_feature_ratio",
    models: tuple[str, ...] = ("m",),
    doses: pl.DataFrame | None = None,
    **place: str,
) -> pl.DataFrame:
    """Claims of a study with these values per corpus and seed, the faithful ones all 0."""
    zeros = {"faithful": [0.0] * len(next(iter(values.values())))} if values else {}
    rows = [
        PLACE | place | {"model": m, "corpus": corpus, "metric": metric, "seed": s, "value": v}
        for m in models
        for corpus, of_seeds in (zeros | values).items()
        for s, v in enumerate(of_seeds)
    ]
    paired = paired_differences(
        Headline(pl.DataFrame(rows, schema=BY_SEED.schema), BY_PAIR, REBUILT, REBUILT), "faithful"
    )
    dose_response = pl.DataFrame(schema=DOSE_RESPONSE) if doses is None else doses
    return claims(paired, differences(paired), dose_response, OUTSIDE, models, ["s"])


@pytest.mark.parametrize(
    ("web", "books", "verdict"),
    [
        # Others have MORE fake features: the claim, lower for faithful, holds.
        ([0.30, 0.31, 0.32], [0.20, 0.21, 0.19], "holds"),
        ([-0.30, -0.31, -0.32], [-0.20, -0.21, -0.19], "does not"),
        ([0.3, -0.2, 0.1], [0.1, -0.3, 0.2], "undecided"),
        # On average for the claim, but one text is surely against it.
        ([0.90, 0.91, 0.92], [-0.20, -0.21, -0.19], "mixed"),
    ],
)
def test_verdict(web, books, verdict):
    made = judged({"web": web, "books": books})
    row = made.row(by_predicate=pl.col("definition") == "paper", named=True)
    assert row["verdict"] == verdict
    assert row["estimate"] == pytest.approx(-(sum(web) + sum(books)) / 6)
    assert row["texts"] == 2


def test_texts_for_and_against_are_counted_by_their_own_corrected_tests():
    made = judged({"web": [0.90, 0.91, 0.92], "books": [-0.20, -0.21, -0.19]})
    (row,) = made.iter_rows(named=True)
    assert (row["texts_for"], row["texts_against"]) == (1, 1)


def test_texts_are_counted_by_sign_and_tested_as_the_units_that_they_are():
    made = judged({"web": [0.90, 0.91, 0.92], "books": [-0.2, 0.3, -0.2]})
    (row,) = made.iter_rows(named=True)
    assert (row["texts_agreeing"], row["p_texts"]) == (1, 1.0)
    (row,) = judged({"web": [0.90, 0.91, 0.92], "books": [0.1, 0.2, 0.3]}).iter_rows(named=True)
    assert (row["texts_agreeing"], row["p_texts"]) == (2, 0.5)  # the best that two texts can give
    (row,) = judged({"web": [0.0, 0.0, 0.0]}).iter_rows(named=True)
    assert row["texts_agreeing"] == 0 and math.isnan(row["p_texts"])


def test_a_text_is_neither_for_nor_against_unless_its_corrected_p_is_below_a_twentieth():
    unsure = [-0.1, -0.2, -0.1]
    assert 0.05 < stats.ttest_1samp(unsure, 0).pvalue < 0.06
    (row,) = judged({"web": [0.90, 0.91, 0.92], "books": unsure}).iter_rows(named=True)
    assert (row["texts_for"], row["texts_against"]) == (1, 0)


def test_texts_that_are_not_outside_text_are_not_counted():
    (row,) = judged({"web": [0.90, 0.91, 0.92], "hot": [0.9, 0.91, 0.92]}).iter_rows(named=True)
    assert (row["texts"], row["texts_for"]) == (1, 1)


def test_a_claim_says_better_and_better_is_less_of_what_is_an_error_or_fake():
    for claim in CLAIMS:
        bad = re.search("fake|loss|mse", claim.metric)
        assert claim.sign == (-1 if bad else 1), claim
    signs = {claim.metric: claim.sign for claim in CLAIMS}
    # More surprise is worse.
    assert all(claim.sign == -signs[claim.metric] for claim in DOSE_CLAIMS)


def test_a_sign_test_needs_two_models():
    web = {"web": [0.30, 0.31, 0.32]}
    two = judged(web, models=("a", "b")).filter(pl.col("model") == "all")
    assert two["estimate"].to_list() == [1] and two["p"].to_list() == [0.5]
    assert judged(web).filter(pl.col("model") == "all").is_empty()


def test_one_seed_decides_nothing():
    (row,) = judged({"web": [0.5]}).iter_rows(named=True)
    assert row["verdict"] == "undecided" and math.isnan(row["low"])


def test_seeds_that_all_differ_alike_show_no_spread_to_judge_by():
    (row,) = judged({"web": [0.5, 0.5, 0.5]}).iter_rows(named=True)
    assert (row["estimate"], row["low"], row["high"]) == (-0.5, -0.5, -0.5)
    assert (row["verdict"], row["texts_for"]) == ("undecided", 0) and math.isnan(row["p"])


def test_text_of_models_and_saes_that_are_controls_are_no_evidence():
    assert judged({"hot": [0.5, 0.6, 0.7]}).is_empty()
    assert judged({"web": [0.5, 0.6, 0.7]}, sae="untrained").is_empty()


def test_five_of_seven_models_is_a_p_of_nearly_a_half():
    models = tuple("abcdefg")
    faithful, web = [0.0] * 3, [0.1, 0.11, 0.12]
    rows = [
        PLACE | {"model": m, "corpus": corpus, "metric": "fake_feature_ratio", "seed": s}
        | {"value": sign * v}
        for m, sign in zip(models, (1, 1, 1, 1, 1, -1, -1), strict=True)
        for corpus, values in (("faithful", faithful), ("web", web))
        for s, v in enumerate(values)
    ]  # fmt: skip
    paired = paired_differences(
        Headline(pl.DataFrame(rows, schema=BY_SEED.schema), BY_PAIR, REBUILT, REBUILT), "faithful"
    )
    made = claims(
        paired, differences(paired), pl.DataFrame(schema=DOSE_RESPONSE), OUTSIDE, models, ["s"]
    )
    row = made.row(by_predicate=pl.col("model") == "all", named=True)
    assert row["estimate"] == pytest.approx(5 / 7)
    assert row["p"] == pytest.approx(2 * 29 / 128)  # the paper's own count
    assert row["verdict"] == "undecided"


def test_the_order_of_corpora_is_judged_by_the_interval_of_its_correlation():
    place = ["m", "h", "s"]
    rows = [
        (*place, "shared_feature_ratio", "surprise_distance", -0.9, -0.99, -0.5, 0.01, 8),
        (*place, "shared_feature_ratio", "nll", 0.9, 0.5, 0.99, 0.01, 8),
        (*place, "fake_feature_ratio", "surprise_distance", -0.9, -0.99, -0.5, 0.01, 8),
    ]
    doses = pl.DataFrame(rows, schema=DOSE_RESPONSE, orient="row")
    made = judged({}, doses=doses)
    assert made.select("claim", "expected", "verdict").rows() == [
        ("less surprising, more shared", "falls", "holds"),
        ("less surprising, fewer fake", "rises", "does not"),
    ]


def test_what_is_not_a_number_agrees_with_no_claim():
    """polars holds NaN to be above every number: where no latent is fake, FFR correlates with
    nothing, and no difference of what is undefined has a sign.
    """
    undefined = ("h", "s", "fake_feature_ratio", "surprise_distance", *[math.nan] * 4, 8)
    falls = ("h", "s", "fake_feature_ratio", "surprise_distance", -0.5, -0.9, 0.1, 0.1, 8)
    rows = [("a", *undefined), ("b", *falls), ("c", *falls)]
    doses = pl.DataFrame(rows, schema=DOSE_RESPONSE, orient="row")
    made = judged({}, models=("a", "b", "c"), doses=doses)
    (every,) = made.filter(pl.col("model") == "all").iter_rows(named=True)
    assert (every["estimate"], every["p"]) == (0, 0.5)  # of two models

    nan = [math.nan] * 3
    (row,) = judged({"web": nan, "books": [0.1, 0.2, 0.3]}).iter_rows(named=True)
    assert (row["texts_agreeing"], row["p_texts"]) == (1, 1.0)
