"""The summary has one row per group, with the interval that fits what was measured."""

import math

import pytest
from study_tables import FAKE, RECONSTRUCTION, SIMILARITY, table

from faithful_sae.statistics import pair_interval, seed_interval
from faithful_sae.summary import summarise

TEXTS = {"c": [], "d": ["d"]}


def made(**tables):
    return summarise(tables, TEXTS, ["m"], ["s"], frequency=0.1, min_activation=1.0)


def test_seeds_and_pairs_have_their_own_intervals():
    values, pairs = [0.2, 0.4, 0.9], {(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6}
    summary = made(
        reconstruction=table(
            RECONSTRUCTION, *({"seed": s, "value": v} for s, v in enumerate(values))
        ),
        similarity=table(
            SIMILARITY, *({"seed": a, "seed_b": b, "value": v} for (a, b), v in pairs.items())
        ),
    )["summary"]
    found = {row[4]: row[5:] for row in summary.iter_rows()}
    assert found["fvu"] == pytest.approx(tuple(seed_interval(dict(enumerate(values)))))
    assert found["shared_feature_ratio"] == pytest.approx(tuple(pair_interval(pairs)))


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_has_no_interval_and_spoils_no_other_corpus(value):
    metric = {"metric": "ce_loss_recovered_zero"}
    other = {"corpus": "d", "eval_corpus": "d"}
    rows = [metric | {"seed": seed, "value": 0.5 + seed} for seed in range(3)]
    broken = [metric | other | {"seed": seed, "value": value if seed else 1.0} for seed in range(3)]
    summary = made(reconstruction=table(RECONSTRUCTION, *broken, *rows))["summary"]
    whole, spoilt = summary.sort("corpus").iter_rows()
    assert whole[5:] == pytest.approx(tuple(seed_interval({0: 0.5, 1: 1.5, 2: 2.5})))
    assert spoilt[5] == pytest.approx(value, nan_ok=True) and spoilt[8] == 3
    assert math.isnan(spoilt[6]) and math.isnan(spoilt[7])


def test_the_first_corpus_is_the_reference_of_all_comparisons():
    rows = [{"corpus": c, "seed": s, "value": s + (c == "c")} for c in "cd" for s in (0.0, 1.0)]
    rows = [row | {"seed": int(row["seed"])} for row in rows]
    tables = made(fake_features=table(FAKE, *rows))
    assert tables["differences"].select("corpus", "corpus_b", "mean").rows() == [("c", "d", 1.0)]
    (claim,) = tables["claims"].iter_rows(named=True)
    assert (claim["claim"], claim["estimate"]) == ("fewer fake features", 1.0)


def test_tables_without_rows_make_tables_without_rows():
    assert all(table.is_empty() for table in made().values())
