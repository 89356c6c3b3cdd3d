"""The tiny study end to end: its tables and figures, and what its numbers have to obey."""

import json
import re
from itertools import combinations

import polars as pl
import pytest
import yaml
from repository import ROOT
from tiny_study import snakemake, table

from faithful_sae.claims import CLAIMS, DOSE, DOSE_CLAIMS
from faithful_sae.comparisons import DOSES, RESPONSES
from faithful_sae.figures.comparisons import METRICS

pytestmark = pytest.mark.workflow


def test_every_table_and_figure_is_there_and_a_second_run_has_nothing_to_do(study):
    results = study / "tests/tiny/results/tiny"
    assert {path.stem for path in (results / "tables").iterdir()} == {
        "SHA256SUMS",
        *("corpus_statistics", "first_tokens", "activation_statistics", "norms", "training"),
        *("reconstruction", "similarity", "fake_features", "firing_histogram", "probing"),
        *("summary", "differences", "dose_response", "claims"),
    }
    pngs = {path.stem for path in (results / "figures").glob("*.png")}
    assert pngs == {path.stem for path in (results / "figures").glob("*.pdf")}
    assert len(pngs) == 14
    crate = json.loads((results / "ro-crate-metadata.json").read_text())
    named = {entity.get("name") for entity in crate["@graph"]}
    assert {f"tables/{path.name}" for path in (results / "tables").iterdir()} < named
    assert {"notes.jsonl", "parity.jsonl", "figures/claims.png", "config.json"} < named
    assert "Nothing to be done" in snakemake(study, "--cores", "1")


def test_every_sae_of_the_study_is_in_every_table_that_is_about_saes(study):
    tiny = yaml.safe_load((ROOT / "tests/tiny/config.yaml").read_text())
    corpora = {
        sae: settings.get("corpora", tiny["corpora"]) for sae, settings in tiny["saes"].items()
    }
    saes = {(c, sae, seed) for sae in corpora for c in corpora[sae] for seed in tiny["seeds"]}
    for name in ("training", "reconstruction", "fake_features", "firing_histogram", "probing"):
        found = table(study, name).filter(pl.col("corpus") != "")  # probing baselines have none
        # An untrained SAE has no course of training.
        expected = {key for key in saes if name != "training" or key[1] != "untrained"}
        assert set(found.select("corpus", "sae", "seed").unique().rows()) == expected, name
    matrix = table(study, "reconstruction").select("sae", "corpus", "eval_corpus").unique()
    assert set(matrix.rows()) == {
        (sae, a, b) for sae in corpora for a in corpora[sae] for b in corpora[sae]
    }
    between = table(study, "similarity").filter(pl.col("corpus") != pl.col("corpus_b"))
    assert set(between.select("sae", "corpus", "corpus_b").unique().rows()) == {
        (sae, *pair) for sae in corpora for pair in combinations(corpora[sae], 2)
    }


def test_an_untrained_sae_is_what_chance_gives(study):
    untrained = table(study, "similarity").filter(
        pl.col("sae") == "untrained",
        pl.col("metric") == "mean_matched_cosine",
        pl.col("latents") == "all",
    )
    values = {null: part["value"].mean() for (null,), part in untrained.group_by("null")}
    assert values["none"] == pytest.approx(values["untrained"], abs=1e-6)
    rebuilt = table(study, "reconstruction").filter(
        pl.col("metric") == "explained_variance", pl.col("corpus") == "notes"
    )
    mean = {sae: part["value"].mean() for (sae,), part in rebuilt.group_by("sae")}
    assert mean["untrained"] < mean["topk"]


def test_a_mixture_is_half_of_each_corpus_and_as_large_as_any(study):
    statistics = table(study, "corpus_statistics").pivot(on="metric", values="value")
    for split in ("train", "heldout"):
        assert statistics[f"{split}_tokens"].n_unique() == 1
    counted = {row["corpus"]: row["documents"] for row in statistics.iter_rows(named=True)}
    assert counted["mixed"] == counted["faithful"] + counted["notes"]


def test_numbers_of_the_tiny_study_obey_what_their_definitions_imply(study):
    reconstruction = table(study, "reconstruction").pivot(on="metric", values="value")
    assert ((reconstruction["fvu"] + reconstruction["explained_variance"]) - 1).abs().max() < 1e-9
    topk = reconstruction.filter(pl.col("sae") == "topk")
    assert topk["l0"].max() <= 4
    fake = table(study, "fake_features").filter(pl.col("sae") == "topk")
    metric = dict(fake.partition_by("metric", as_dict=True, include_key=False))
    at = ["corpus", "seed", "frequency"]
    ceiling = metric["fake_feature_ratio",].join(metric["fake_feature_ceiling",], on=at)
    assert (ceiling["value"] <= ceiling["value_right"] + 1e-12).all()
    assert set(ceiling["random_input"]) == {"uniform-tokens", "unigram-tokens", "shuffled-tokens"}
    at += ["random_input", "cut", "level"]
    parts = metric["fake_and_dense_ratio",].join(metric["fake_not_dense_ratio",], on=at)
    whole = parts.join(metric["fake_feature_ratio",], on=at, suffix="_whole")
    assert len(whole) == len(ceiling) > 0
    parts = whole["value"] + whole["value_right"]
    assert (parts - whole["value_whole"]).abs().max() < 1e-12
    cosine = table(study, "similarity").filter(pl.col("metric") == "mean_matched_cosine")
    assert cosine["value"].is_between(-1, 1).all()
    gap = table(study, "corpus_statistics").filter(pl.col("metric") == "surprise_gap")
    assert gap.filter(pl.col("corpus") == "faithful")["value"].item() < 0.2


def test_the_summary_has_every_headline_metric_of_every_corpus_and_sae(study):
    summary = table(study, "summary")
    metrics = {
        *("explained_variance", "fvu", "ce_loss_increase", "ce_loss_recovered_zero", "l0"),
        *("explained_variance:foreign", "ce_loss_increase:foreign", "ce_loss_recovered_mean"),
        *("dead_fraction", "shared_feature_ratio", "shared_feature_ratio_alive"),
        *("shared_feature_ratio_firing_weighted", "mean_matched_correlation"),
        *("mean_matched_cosine", "mean_matched_cosine_above_null", "encoder_decoder_agreement"),
        *("fake_feature_ratio", "fake_feature_ratio:unigram-tokens", "fake_not_dense_ratio"),
        *("fake_feature_ratio:shuffled-tokens", "fake_feature_ratio:own_quantile_0.5"),
        *("fake_feature_ratio:own_quantile_0.9", "mse:foreign", "sparse_probing_accuracy"),
        *("probing_accuracy", "probing_accuracy:parity"),
    }
    for key, part in summary.group_by("corpus", "sae"):
        # `notes` is the one outside text, and the mixture holds it: it is foreign to neither.
        foreign = {m for m in metrics if m.endswith(":foreign") and key[0] != "faithful"}
        assert set(part["metric"]) == metrics - foreign, key
    assert summary.select("corpus", "sae").unique().height == 3 + 2 + 1


def test_metrics_that_claims_correlations_and_figures_ask_for_by_name_are_there(study):
    """A renamed metric that one of them still asks for would be left out without a word."""
    summarised = set(table(study, "summary")["metric"])
    assert {*RESPONSES, *METRICS} <= summarised
    compared = set(table(study, "differences")["metric"])
    assert {claim.metric for claim in (*CLAIMS, *DOSE_CLAIMS)} <= summarised | compared
    assert set(table(study, "dose_response")["dose"]) == set(DOSES)
    assert DOSE in DOSES


def test_every_rule_has_its_script_and_every_script_its_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = dict(re.findall(r"^rule (\w+):.*?scripts/(\w+)\.py", rules, flags=re.M | re.S))
    assert all(rule == script for rule, script in named.items())
    assert set(named) == {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}
