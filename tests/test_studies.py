"""Other studies: a smaller one, known features, an audit, those of the repository."""

import re
import shutil

import audit_study
import polars as pl
import pytest
import yaml
from repository import ROOT, copy_repository
from tiny_study import planned, snakemake

pytestmark = pytest.mark.workflow


def test_a_study_of_one_seed_one_corpus_and_no_task_has_its_tables_and_figures(study, edit):
    edit("tests/tiny/config.yaml", "study: tiny", "study: single")
    edit("tests/tiny/config.yaml", "seeds: [0, 1]", "seeds: [0]")
    text = (study / "tests/tiny/config.yaml").read_text()
    extras = r"  (?:notes|mixed|batch-topk|untrained):\n(?:    .*\n)+|tasks:\n(?:  .*\n)+"
    for old in re.findall(extras, text):
        edit("tests/tiny/config.yaml", old, "")
    output = snakemake(study, "--cores", "2", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-4000:]
    assert len(list((study / "tests/tiny/results/single/figures").glob("*.png"))) == 10
    shutil.rmtree(study / "tests/tiny/results/single")


def test_a_small_study_of_known_features_has_its_tables_and_figures(study, tmp_path):
    config = yaml.safe_load((ROOT / "workflow/studies/ground-truth.yaml").read_text())
    config |= {"study": "known", "seeds": [0, 1], "shards": 2}
    config["models"]["known"] |= {"d_in": 16, "features": 32, "external_features": 8}
    config["corpora"] = {name: config["corpora"][name] for name in ("faithful", "far")}
    config["corpus_size"] = {"train_tokens": 20_000, "heldout_tokens": 2_000}
    config["saes"] = {"right": config["saes"]["right"] | {"expansion": 2, "training_tokens": 5_000}}
    config["evaluations"]["fake_features"]["tokens"] = 2_000
    (tmp_path / "known.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--configfile", str(tmp_path / "known.yaml"), "--cores", "2"]
    output = snakemake(study, *arguments, "--show-failed-logs", directory=str(tmp_path))
    assert output.endswith("exit 0"), output[-4000:]
    results = tmp_path / "results/known"
    assert {path.stem for path in (results / "tables").iterdir()} == {
        "SHA256SUMS",
        *("activation_statistics", "training", "similarity", "fake_features"),
        *("firing_histogram", "recovery", "ground_truth", "summary", "differences"),
    }
    summary = pl.read_csv(results / "tables/summary.csv")
    wanted = {"recovered_features", "truly_fake_ratio", "shared_feature_ratio"}
    for _, part in summary.group_by("corpus", "sae"):
        assert wanted <= set(part["metric"])
    shares = pl.col("metric").str.contains("ratio|recovered")
    assert summary.filter(shares)["mean"].is_between(0, 1).all()
    assert (results / "figures/recovery.png").exists()
    assert "no other tool has a model" in snakemake(
        study, *arguments, "export", directory=str(tmp_path)
    )
    assert "Nothing to be done" in snakemake(study, *arguments, directory=str(tmp_path))
    output = snakemake(study, "-n", "features", *arguments, directory=str(tmp_path))
    assert "features: known features have no tokens" in output and not output.endswith("exit 0")


def test_the_audit_of_the_readme_says_of_trained_saes_what_their_study_said(study, tmp_path):
    audit_study.audit_instead_of_training(study, tmp_path / "copy")
    output = snakemake(tmp_path / "copy", "--cores", "2", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-6000:]
    assert not {"train_sae", "fetch_sae", "extract_activations"} & set(planned(output))
    audit_study.check(study, tmp_path / "copy", output)


def test_configfile_replaces_the_default_study_instead_of_joining_it(study, tmp_path):
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["study"] = "small"
    config["corpora"] = {"code": config["corpora"]["code"]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(config))
    output = snakemake(study, "-n", "--configfile", str(tmp_path / "small.yaml"), directory=".")
    assert output.endswith("exit 0"), output[-2000:]
    assert "results/small/" in output
    assert "results/demo/" not in output and "wikipedia" not in output


def test_a_fresh_clone_runs_its_study_although_its_tables_are_published(tmp_path):
    copy_repository(tmp_path)
    shutil.copytree(
        ROOT / "results/demo",
        tmp_path / "results/demo",
        ignore=lambda folder, names: (
            set(names) - {"tables", "figures"} if folder.endswith("demo") else set()
        ),
    )
    jobs = planned(snakemake(tmp_path, "-n", directory="."))
    study = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert jobs["train_sae"] == len(study["corpora"]) * len(study["seeds"])
    assert jobs["generate_corpus"] == 1
    figure = "results/demo/figures/shared_features.png"
    redrawn = snakemake(tmp_path, "-n", figure, "-R", "draw_figures", directory=".")
    assert set(planned(redrawn)) <= {"summarise", "draw_figures"}  # of the published tables alone


def test_every_study_plans_without_a_network(study):
    for config in ["config.yaml", *sorted((study / "workflow/studies").glob("*.yaml"))]:
        output = snakemake(study, "-n", "--configfile", str(config), directory=".")
        assert output.endswith("exit 0"), output[-2000:]
        assert planned(output)["train_sae"] >= 6
