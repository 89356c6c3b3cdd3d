"""The headline picks the right rows of a study's tables."""

import polars as pl
import pytest
from study_tables import FAKE, PROBING, RECONSTRUCTION, RECOVERY, SIMILARITY, table

from faithful_sae.headline import Headline, headline

TEXTS = {"c": [], "web": ["web"], "books": ["books"], "mix": ["web", "books"]}


def read(**tables: pl.DataFrame) -> Headline:
    return headline(tables, TEXTS, frequency=0.1, min_activation=1.0)


def values(frame: pl.DataFrame) -> dict[str, float]:
    return dict(frame.select("metric", "value").iter_rows())


def test_reconstruction_is_that_on_the_own_corpus_at_kept_positions():
    rows = table(
        RECONSTRUCTION,
        {"value": 0.2},
        {"eval_corpus": "other", "value": 9.0},
        {"positions": "all", "value": 9.0},
        {"metric": "mse", "value": 9.0},
    )
    assert values(read(reconstruction=rows).by_seed) == {"fvu": 0.2}


def test_foreign_text_is_outside_text_that_the_sae_was_not_trained_on():
    rows = [
        {"metric": "mse", "corpus": corpus, "eval_corpus": text, "value": value}
        for corpus, text, value in [
            ("c", "c", 9.0),  # its own
            ("c", "mix", 9.0),  # no text of its own
            ("c", "web", 0.5),
            ("c", "books", 0.25),
            ("web", "web", 9.0),
            ("web", "c", 9.0),  # written by a model
            ("web", "books", 0.75),
            ("mix", "web", 9.0),  # it was trained on both
            ("mix", "books", 9.0),
        ]
    ]
    found = read(reconstruction=table(RECONSTRUCTION, *rows))
    by_seed = found.by_seed.sort("corpus")
    assert by_seed.select("corpus", "metric", "value").rows() == [
        ("c", "mse:foreign", 0.375),
        ("web", "mse:foreign", 0.75),
    ]
    assert found.foreign.select("corpus", "eval_corpus").sort("corpus", "eval_corpus").rows() == [
        ("c", "books"),
        ("c", "web"),
        ("web", "books"),
    ]


def test_similarity_has_a_name_for_each_form_and_its_null_subtracted():
    cosine = {"metric": "mean_matched_cosine", "threshold": None}
    null = cosine | {"null": "covariance"}
    rows = table(
        SIMILARITY,
        {"value": 0.5},
        {"latents": "alive", "value": 0.75},
        {"latents": "firing_weighted", "value": 0.625},
        {"metric": "encoder_decoder_agreement", "value": 0.125},
        {"metric": "mean_matched_correlation", "latents": "alive", "threshold": None, "value": 1.5},
        cosine | {"value": 0.875},
        null | {"value": 0.25},
        null | {"seed": 2, "value": 0.5},
        {"threshold": 0.5, "value": 9.0},
        {"null": "untrained", "value": 9.0},
        {"null": "permuted", "value": 9.0},
        {"null": "covariance", "value": 9.0},
        {"corpus_b": "other", "seed_b": 0, "value": 9.0},
        {"corpus_b": "other", "seed_b": 3, "value": 9.0},
        null | {"latents": "alive", "value": 9.0},
        cosine | {"latents": "alive", "value": 9.0},
    )
    assert values(read(similarity=rows).by_pair) == {
        "shared_feature_ratio": 0.5,
        "shared_feature_ratio_alive": 0.75,
        "shared_feature_ratio_firing_weighted": 0.625,
        "encoder_decoder_agreement": 0.125,
        "mean_matched_correlation": 1.5,
        "mean_matched_cosine": 0.875,
        "mean_matched_cosine_above_null": 0.5,
    }


def test_the_null_of_another_corpus_is_not_subtracted():
    cosine = {"metric": "mean_matched_cosine", "threshold": None, "value": 0.5}
    other = {"corpus": "d", "corpus_b": "d", "null": "covariance"}
    found = read(similarity=table(SIMILARITY, cosine, cosine | other))
    assert list(values(found.by_pair)) == ["mean_matched_cosine"]


def test_fake_features_are_the_papers_and_one_change_at_a_time():
    rows = table(
        FAKE,
        {"value": 0.25},
        {"metric": "fake_not_dense_ratio", "value": 0.125},
        {"random_input": "shuffled-tokens", "value": 0.5},
        {"cut": "own_quantile", "level": 0.5, "value": 0.75},
        {"cut": "own_quantile", "level": 0.5, "random_input": "shuffled-tokens", "value": 9.0},
        {"frequency": 0.2, "value": 9.0},
        {"level": 0.0, "value": 9.0},
        {"metric": "fake_feature_ceiling", "value": 9.0},
    )
    assert values(read(fake_features=rows).by_seed) == {
        "fake_feature_ratio": 0.25,
        "fake_not_dense_ratio": 0.125,
        "fake_feature_ratio:shuffled-tokens": 0.5,
        "fake_feature_ratio:own_quantile_0.5": 0.75,
    }


def test_a_feature_counts_as_recovered_from_the_stricter_cosine_on():
    rows = table(
        RECOVERY,
        {"value": 0.25},
        {"threshold": 0.7, "value": 9.0},
        {"metric": "truly_fake_ratio", "threshold": None, "value": 0.5},
        {"metric": "fake_call_recall", "threshold": None, "value": 9.0},
    )
    found = values(read(recovery=rows).by_seed)
    assert found == {"recovered_features": 0.25, "truly_fake_ratio": 0.5}


def test_probes_are_averaged_over_tasks_and_over_sparsities():
    rows = table(
        PROBING,
        {"value": 0.75},
        {"task": "u", "value": 0.5},
        {"k": 5, "value": 0.25},
        {"k": 1, "value": 0.75},
        {"metric": "macro_f1", "value": 9.0},
        {"features": "raw", "corpus": "", "sae": "", "seed": -1, "value": 9.0},
    )
    assert values(read(probing=rows).by_seed) == {
        "probing_accuracy:t": 0.75,
        "probing_accuracy:u": 0.5,
        "probing_accuracy": 0.625,
        "sparse_probing_accuracy": 0.5,
    }


def test_probe_seeds_are_repeats_within_an_sae_seed_and_no_units():
    rows = [(0, 0, 0.5), (0, 1, 0.7), (1, 0, 0.7), (1, 1, 0.9)]
    probing = table(PROBING, *({"seed": s, "probe_seed": p, "value": v} for s, p, v in rows))
    found = read(probing=probing).by_seed.filter(pl.col("metric") == "probing_accuracy")
    assert dict(found.select("seed", "value").iter_rows()) == pytest.approx({0: 0.6, 1: 0.8})
    with pytest.raises(ValueError, match="several values"):
        read(probing=pl.concat([probing, probing[:1].with_columns(value=pl.lit(0.1))]))


def test_a_cut_that_was_never_measured_is_an_error_naming_it():
    with pytest.raises(ValueError, match="frequency 0.1 and min_activation 1.0"):
        read(fake_features=table(FAKE, {"frequency": 0.2, "value": 0.5}))


def test_a_value_that_occurs_twice_is_an_error():
    with pytest.raises(ValueError, match="several values"):
        read(reconstruction=table(RECONSTRUCTION, {"value": 0.2}, {"value": 0.3}))
    with pytest.raises(ValueError, match="several values"):
        read(similarity=table(SIMILARITY, {"value": 0.2}, {"value": 0.3}))


def test_the_nulls_of_a_single_seed_are_no_pairs():
    rows = [
        {"seed_b": 0, "null": null, "value": 0.1, **metric}
        for null in ("covariance", "untrained")
        for metric in ({}, {"metric": "mean_matched_cosine", "threshold": None})
    ]
    assert read(similarity=table(SIMILARITY, *rows)).by_pair.is_empty()


def test_a_study_has_the_tables_that_it_has():
    empty = read()
    assert all(frame.is_empty() for frame in empty)
    assert read(reconstruction=table(RECONSTRUCTION)).by_seed.is_empty()
