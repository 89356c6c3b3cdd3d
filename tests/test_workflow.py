"""The real workflow: the tiny study end to end, what reruns, what fails early, what is documented.

The tests work on a copy of the repository, so that they may edit it.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from base64 import b64encode
from itertools import combinations
from pathlib import Path

import audit_study
import polars as pl
import pytest
import yaml
from repository import ROOT, copy_repository

from faithful_sae.claims import CLAIMS, DOSE, DOSE_CLAIMS
from faithful_sae.comparisons import DOSES, RESPONSES
from faithful_sae.figures.comparisons import METRICS

PROFILE = "workflow/profiles/default/config.yaml"
pytestmark = pytest.mark.workflow


def snakemake(repository: Path, *arguments: str, directory: str = "tests/tiny") -> str:
    """Standard output and error of Snakemake; its exit status is in the last line."""
    command = [sys.executable, "-m", "snakemake", "--directory", directory, *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def planned(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from the statistics of a dry run."""
    table = output.partition("Job stats:")[2]
    return {
        rule: int(count)
        for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M)
        if rule not in ("total", "all", "exit")
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A copy of the repository in which the tiny study has been run."""
    repository = tmp_path_factory.mktemp("repository")
    copy_repository(repository)
    output = snakemake(repository, "--cores", "2", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-8000:]
    return repository


@pytest.fixture
def edit(study):
    """Replace text in a file of the copy for the length of one test."""
    saved: dict[Path, str] = {}

    def replace(name: str, old: str, new: str) -> None:
        path = study / name
        text = path.read_text()
        assert old in text
        saved.setdefault(path, text)
        path.write_text(text.replace(old, new, 1))

    yield replace
    for path, text in saved.items():
        path.write_text(text)


def table(study: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(
        study / f"tests/tiny/results/tiny/tables/{name}.csv", infer_schema_length=None
    )


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


# What an edit makes Snakemake plan: name -> (file, old text, new text, rules).
CONFIG, REPORT = "tests/tiny/config.yaml", {"summarise", "draw_figures", "provenance"}
ABOUT_SAES = {"reconstruction", "similarity", "similarity_between_corpora", "fake_features"}
TRAINING = {"train_sae", "probing"} | ABOUT_SAES | REPORT
ACTIVATIONS = {"extract_activations", "activation_statistics", "probing_baselines"} | TRAINING
EDITS = {
    "figure setting": (
        CONFIG,
        "study: tiny\n",
        "study: tiny\nfigures: {dpi: 80}\n",
        {"draw_figures", "provenance"},
    ),
    "comment in the config": (CONFIG, "seeds:", "# five would be better\nseeds:", set()),
    "README": ("README.md", "# ", "# The ", set()),
    "threads": (PROFILE, "show-failed-logs", "cores: 1\nshow-failed-logs", set()),
    "checkpoint interval": ("workflow/rules/sae.smk", "minutes=10", "minutes=5", set()),
    "comment in a script": (
        "workflow/scripts/train_sae.py",
        "import sys\n",
        "import sys  # for its streams\n",
        set(),
    ),
    "comment in a module": (
        "src/faithful_sae/train.py",
        "import hashlib",
        "# a comment\nimport hashlib",
        set(),
    ),
    "docstring": (
        "src/faithful_sae/train.py",
        '"""Train one sparse',
        '"""Train one very sparse',
        set(),
    ),
    "environment, not used": ("envs/torch.yaml", "pip=26.3", "pip=26.2", set()),
    "module of the trainer": (
        "src/faithful_sae/trainer.py",
        "AUXILIARY_WEIGHT = 1 / 32",
        "AUXILIARY_WEIGHT = 1 / 16",
        TRAINING,
    ),
    "script": (
        "workflow/scripts/similarity.py",
        "params.thresholds,",
        "list(params.thresholds),",
        {"similarity"} | REPORT,
    ),
    "k": (CONFIG, "k: 4", "k: 5", TRAINING | {"probing_baselines"}),
    "learning rate": (CONFIG, "k: 4", "k: 4\n    lr: 0.01", TRAINING),
    "another seed": (
        CONFIG,
        "seeds: [0, 1]",
        "seeds: [0, 1, 2]",
        TRAINING | {"probing_baselines"},
    ),
    "another hook": (
        CONFIG,
        "hooks: [resid_pre.1]",
        "hooks: [resid_pre.1, resid_pre.2]",
        ACTIVATIONS,
    ),
    "one corpus": (
        CONFIG,
        "pack: true",
        "pack: false",
        {"tokenize_corpus", "mix_corpus", "random_tokens", "corpus_statistics"}
        | ACTIVATIONS - {"probing_baselines"},
    ),
    "probe seeds": (
        CONFIG,
        "k: [1, 5]",
        "k: [1, 5], seeds: [0, 1]",
        {"probing", "probing_baselines"} | REPORT,
    ),
    "a task": (
        CONFIG,
        "examples: 40",
        "examples: 36",
        {"tokenize_task", "extract_activations", "probing", "probing_baselines"} | REPORT,
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_plans_what_depends_on_it_and_nothing_else(study, edit, name):
    file, old, new, rules = EDITS[name]
    edit(file, old, new)
    output = snakemake(study, "-n")
    assert output.endswith("exit 0"), output[-2000:]
    assert set(planned(output)) == rules


def test_an_edit_of_one_of_many_trains_no_other(study, edit):
    edit(CONFIG, "seeds: [0, 1]", "seeds: [0, 1, 2]")
    assert planned(snakemake(study, "-n"))["train_sae"] == 6  # of 3 corpora, of 2, of 1
    edit(CONFIG, "k: 4", "k: 5")
    assert planned(snakemake(study, "-n"))["train_sae"] == 12  # 6, and `topk` of the other seeds


def test_a_plan_says_what_an_edit_retrains(study, edit):
    assert "Nothing to be done" in snakemake(study, "--cores", "1", "plan")
    edit(CONFIG, "k: 4", "k: 5")
    output = snakemake(study, "--cores", "1", "plan")
    assert output.endswith("exit 0"), output[-2000:]
    assert re.search(r"^train_sae +6 +6 .* settings or code changed$", output, flags=re.M)
    assert "retrains 6 of these SAEs" in output and "generate_corpus" not in output


def test_one_more_corpus_of_an_sae_trains_and_evaluates_it_there_alone(study, edit):
    edit(CONFIG, "corpora: [faithful, notes]", "corpora: [faithful, notes, mixed]")
    jobs = planned(snakemake(study, "-n"))
    assert jobs["train_sae"] == 2  # seeds
    assert jobs["reconstruction"] == 3  # every corpus it was trained on has new SAEs to evaluate
    assert jobs["similarity"] == jobs["fake_features"] == jobs["probing"] == 1
    assert jobs["similarity_between_corpora"] == 1
    assert not {"extract_activations", "corpus_statistics", "describe_model"} & set(jobs)


def test_a_model_is_studied_on_the_corpora_it_names(study, edit):
    second = "  second:\n    source: random_like\n    model: architecture\n    seed: 1\n"
    second += "    hooks: [resid_pre.1, resid_pre.2]\n    corpora: [notes]\n\ncorpora:"
    edit(CONFIG, "\ncorpora:", second)
    output = snakemake(study, "-n")
    assert output.endswith("exit 0"), output[-2000:]
    assert planned(output)["train_sae"] == 3 * 2 * 2  # saes, hooks, seeds
    assert "tiny/second/faithful" not in output and "tiny/second/mixed" not in output
    # A mixture needs the texts of its parts, and nothing else of them.
    edit(CONFIG, "corpora: [notes]\n\ncorpora:", "corpora: [mixed]\n\ncorpora:")
    output = snakemake(study, "-n")
    assert planned(output)["train_sae"] == 1 * 2 * 2  # `topk` alone is studied on all corpora
    assert planned(output)["collect_corpus"] == planned(output)["mix_corpus"] == 1
    assert "tiny/second/faithful/train.parquet" in output
    assert "tiny/second/faithful/resid_pre" not in output


def test_forcing_a_rule_drops_its_state_and_no_others(study):
    states = [study / f"tests/tiny/state/{name}/x" for name in ("summarise", "train_sae")]
    for state in states:
        state.mkdir(parents=True)
    output = snakemake(study, "-R", "summarise", "--cores", "1")
    assert output.endswith("exit 0"), output[-2000:]
    assert [state.exists() for state in states] == [False, True]
    shutil.rmtree(study / "tests/tiny/state")


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("study: tiny", "study: tiny\nsedes: [1]", "sedes: unknown key; did you mean seeds?"),
        ("k: 4", "k: many", "saes.topk.k: 'many' must be of type integer"),
        ("path: notes.jsonl", "path: nowhere.jsonl", "corpora.notes.path: nowhere.jsonl does not"),
    ],
)
def test_a_bad_config_fails_in_one_line_before_any_work(study, edit, old, new, said):
    edit("tests/tiny/config.yaml", old, new)
    output = snakemake(study, "-n")
    assert said in output and not output.endswith("exit 0")
    assert "Traceback" not in output


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("[resid_pre.1]", "[resid_pre.7]", "models.tiny.hooks: resid_pre.7 lies beyond"),
        ("k: 4", "k: 65", "saes.topk.k: 65 active latents exceed d_sae = 64"),
    ],
)
def test_what_only_the_model_can_tell_fails_before_other_work(study, edit, old, new, said):
    edit("tests/tiny/config.yaml", old, new)
    # The model is known: before any work, in a dry run too.
    output = snakemake(study, "-n")
    assert said in output and not output.endswith("exit 0")
    # The model is not known yet: as soon as it is.
    edit("tests/tiny/config.yaml", "study: tiny", "study: other")
    output = snakemake(study, "--cores", "1", "--show-failed-logs")
    assert said in output and not output.endswith("exit 0")
    assert not (study / "tests/tiny/results/other/tiny").joinpath("faithful").exists()
    shutil.rmtree(study / "tests/tiny/results/other", ignore_errors=True)


def test_a_damaged_shard_is_named_and_no_sae_is_left(study, edit):
    folder = study / "tests/tiny/results/tiny/tiny/faithful/resid_pre.1"
    shard = folder / "train/shard0.parquet"
    whole = shard.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 3] ^= 1
    shard.write_bytes(damaged)
    weights = folder / "topk/seed0/sae_weights.safetensors"
    kept = weights.read_bytes()
    try:
        target = str(weights.relative_to(study / "tests/tiny"))
        output = snakemake(study, target, "-R", "train_sae", "--cores", "1", "--show-failed-logs")
        assert "shard0.parquet is damaged" in output and output.endswith("exit 1")
        assert not weights.exists()
    finally:
        shard.write_bytes(whole)
        weights.parent.mkdir(exist_ok=True)
        weights.write_bytes(kept)


def test_a_table_that_was_damaged_is_refused_by_name_and_never_summarised(study):
    output = snakemake(study, "--cores", "2")  # whatever tests before this one left undone
    assert output.endswith("exit 0"), output[-3000:]
    path = study / "tests/tiny/results/tiny/tables/reconstruction.csv"
    whole = path.read_bytes()
    seal = path.with_name("SHA256SUMS").read_bytes()
    digit = whole.rindex(b".") + 1
    path.write_bytes(whole[:digit] + b"%d" % (9 - int(whole[digit:][:1])) + whole[digit + 1 :])
    output = snakemake(study, "-R", "draw_figures", "--cores", "1", "--show-failed-logs")
    assert "reconstruction.csv is damaged" in output and output.endswith("exit 1")
    output = snakemake(study, "-R", "summarise", "--cores", "1")
    assert output.endswith("exit 0"), output[-3000:]
    assert path.read_bytes() == whole  # gathered anew, from tables that carry digests
    assert path.with_name("SHA256SUMS").read_bytes() == seal


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


def test_exports_are_made_by_a_target_of_their_own(study):
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


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", readme, flags=re.M)):
        assert f"\n{target}:" in makefile, target
    named = set(re.findall(r"(?:--configfile|--directory) ([\w./-]+)", readme))
    for path in named - {"mine.yaml"}:  # the reader's own
        assert (ROOT / path).exists(), path


def test_every_rule_has_its_script_and_every_script_its_rule():
    rules = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    named = dict(re.findall(r"^rule (\w+):.*?scripts/(\w+)\.py", rules, flags=re.M | re.S))
    assert all(rule == script for rule, script in named.items())
    assert set(named) == {path.stem for path in (ROOT / "workflow/scripts").glob("*.py")}


def comparable(study: Path) -> dict[str, bytes]:
    """Corpora, weights, tables: all but what holds or digests the activations, shard by shard.

    Exports and facts of the page of features are targets of their own, which other tests ask for.
    """
    results = study / "tests/tiny/results/tiny"
    files = [
        *results.glob("tables/*"),
        *results.rglob("sae_weights.safetensors"),
        *(path for path in results.rglob("*.parquet") if "shard" not in path.name),
    ]
    names = {path.relative_to(results): path for path in files}
    return {
        str(name): path.read_bytes()
        for name, path in names.items()
        if not {"export", "features"} & set(name.parts)
    }


def test_other_shards_cores_and_a_kill_in_between_give_the_same_bits(study, tmp_path):
    """The other run is cut into three shards, killed once, and ends on one core."""
    copy_repository(tmp_path)
    config = tmp_path / CONFIG
    config.write_text(config.read_text().replace("shards: 2", "shards: 3"))
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "2"]
    killed = subprocess.Popen(
        command,
        cwd=tmp_path,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with contextlib.suppress(subprocess.TimeoutExpired):
        killed.wait(timeout=25)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert killed.returncode == -signal.SIGKILL
    snakemake(tmp_path, "--unlock")
    output = snakemake(tmp_path, "--cores", "1", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-4000:]
    expected, found = map(comparable, (study, tmp_path))
    assert any("train.parquet" in name for name in expected)
    assert any("sae_weights" in name for name in expected)
    assert {name for name in expected if expected[name] != found.get(name)} == set()


def test_a_second_snakemake_in_the_folder_is_refused_and_spoils_nothing(study):
    weights = "results/tiny/tiny/notes/resid_pre.1/topk/seed0/sae_weights.safetensors"
    before = (study / "tests/tiny" / weights).read_bytes()
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "1"]
    first = subprocess.Popen(
        [*command, weights, "-R", "train_sae"],
        cwd=study,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    locks = study / "tests/tiny/.snakemake/locks"
    while first.poll() is None and not list(locks.glob("*")):
        time.sleep(0.05)
    # The first stands still while the second starts, or it could be done, and its lock gone, before.
    first.send_signal(signal.SIGSTOP)
    try:
        second = snakemake(study, weights, "-R", "train_sae", "--cores", "1")
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert "cannot be locked" in second and "--unlock" in second and not second.endswith("exit 0")
    assert (study / "tests/tiny" / weights).read_bytes() == before


def test_the_audit_of_the_readme_says_of_trained_saes_what_their_study_said(study, tmp_path):
    audit_study.audit_instead_of_training(study, tmp_path / "copy")
    output = snakemake(tmp_path / "copy", "--cores", "2", "--show-failed-logs")
    assert output.endswith("exit 0"), output[-6000:]
    assert not {"train_sae", "fetch_sae", "extract_activations"} & set(planned(output))
    audit_study.check(study, tmp_path / "copy", output)
