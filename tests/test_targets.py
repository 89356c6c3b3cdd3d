"""What is made when asked for by name: the exports, the page of features, the report."""

import hashlib
import json
import re
from base64 import b64encode

import polars as pl
import pytest
from tiny_study import CONFIG, planned, snakemake, table

pytestmark = pytest.mark.workflow


def test_exports_are_made_by_a_target_of_their_own(study, edit):
    jobs = planned(snakemake(study, "-n", "export"))
    assert jobs == {"export": 1, "export_sae": 2 * (3 + 2 + 1), "export_corpus": 1}
    sae, corpus = "saes/tiny/notes/batch-topk/seed1", "corpora/tiny/faithful"
    targets = [f"results/tiny/export/{name}" for name in (sae, corpus)]
    output = snakemake(study, *targets, "--cores", "2", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-4000:]
    exported = study / "tests/tiny/results/tiny/export"
    shown = {path.name for path in (exported / sae).glob("[!.]*")}  # Snakemake leaves its timestamp
    assert shown == {"README.md", "layers.0"}
    card = (exported / sae / "README.md").read_text()
    rebuilt = table(study, "reconstruction").filter(
        *(pl.col(key) == value for key, value in {"corpus": "notes", "sae": "batch-topk"}.items()),
        *(pl.col(key) == value for key, value in {"eval_corpus": "faithful", "seed": 1}.items()),
        pl.col("metric") == "explained_variance",
    )
    assert len(rebuilt) == 2  # positions
    assert all(f"{value:.4g}" in card for value in rebuilt["value"])
    config = (study / "tests/tiny/results/tiny/config.json").read_bytes()
    assert hashlib.sha256(config).hexdigest() in card
    documents = pl.scan_parquet(exported / corpus / "data/documents/*.parquet").collect()
    counts = table(study, "corpus_statistics").filter(pl.col("corpus") == "faithful")
    assert len(documents) == counts.filter(pl.col("metric") == "documents")["value"].item()
    assert "Nothing to be done" in snakemake(study, *targets, "--cores", "1")
    # A context length of the model's own is the one that every rule goes by.
    edit(CONFIG, "context_length: 32", "context_length: 48")
    edit(CONFIG, "hooks: [resid_pre.1]", "hooks: [resid_pre.1]\n    context_length: 32")
    assert "Nothing to be done" in snakemake(study, "-n", *targets)


def test_the_report_is_one_offline_html_with_every_figure(study):
    output = snakemake(study, "--report", "report.html")
    assert output.endswith("exit 0"), output[-3000:]
    html = (study / "tests/tiny/report.html").read_text()
    figures = (study / "tests/tiny/results/tiny/figures").glob("*.png")
    assert all(path.name in html for path in figures)
    categories = json.loads(re.search(r"var categories = (.+);$", html, flags=re.M).group(1))
    assert next(iter(categories)) == "Findings" and "Stability" in categories
    assert html.count('"labels": {"shows": "') == sum(len(c["Other"]) for c in categories.values())


def test_features_are_a_target_of_their_own_whose_page_the_report_holds(study, edit):
    edit(CONFIG, "evaluations:", "evaluations:\n  features: {sae: batch-topk, corpora: [notes]}")
    arguments, made = ("all", "features"), {"feature_facts", "features", "provenance"}
    assert set(planned(snakemake(study, "-n", *arguments))) == made
    assert set(planned(snakemake(study, "-n", "all"))) == {"provenance"}  # it holds the config
    output = snakemake(study, "--cores", "2", "--show-failed-logs", *arguments)
    assert output.endswith("exit 0"), output[-4000:]
    page = (study / "tests/tiny/results/tiny/features.html").read_bytes()
    edit(CONFIG, "corpora: [notes]}", "corpora: [notes], window: 9}")
    assert set(planned(snakemake(study, "-n", *arguments))) == made
    edit(CONFIG, "window: 9", "window: 24")
    output = snakemake(study, "--report", "features-report.html", *arguments)
    assert output.endswith("exit 0"), output[-3000:]
    report = (study / "tests/tiny/features-report.html").read_text()
    assert b64encode(page).decode() in report
