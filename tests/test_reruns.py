"""What an edit of config, code or environment, or a lost file, makes Snakemake run again."""

import re
import shutil
from pathlib import Path

import pytest
from tiny_study import CONFIG, planned, snakemake

pytestmark = pytest.mark.workflow
PROFILE = "workflow/profiles/default/config.yaml"

# What an edit makes Snakemake plan: name -> (file, old text, new text, rules).
REPORT = {"summarise", "draw_figures", "provenance"}
ABOUT_SAES = {"reconstruction", "similarity", "similarity_between_corpora", "fake_features"}
TRAINING = {"train_sae", "probing"} | ABOUT_SAES | REPORT
ACTIVATIONS = {"extract_activations", "activation_statistics", "probing_baselines"} | TRAINING
NOTES = "  notes:\n    source: path\n    path: notes.jsonl\n    pack: true\n"
MIXED = "  mixed:\n    source: mixture\n    of: [faithful, notes]\n"
EDITS = {
    "figure setting": (
        CONFIG,
        "study: tiny\n",
        "study: tiny\nfigures: {dpi: 80}\n",
        {"draw_figures", "provenance"},
    ),
    "comment in the config": (CONFIG, "seeds:", "# five would be better\nseeds:", set()),
    "order of keys, and a default written out": (
        CONFIG,
        "    path: notes.jsonl\n    pack: true\n",
        "    pack: true\n    column: text\n    path: notes.jsonl\n",
        set(),
    ),
    "order within a mixture": (
        CONFIG,
        "of: [faithful, notes]",
        "of: [notes, faithful]",
        {"mix_corpus", "random_tokens", "corpus_statistics"} | ACTIVATIONS - {"probing_baselines"},
    ),
    "order of corpora": (
        CONFIG,
        f"{NOTES}{MIXED}",
        f"{MIXED}{NOTES}",
        {"random_tokens", "extract_activations", "fake_features", "reconstruction"}
        | {"similarity_between_corpora"}
        | REPORT,
    ),
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


def test_an_edit_inside_a_folder_of_text_plans_its_corpus_anew(study, edit):
    """Which leaves the time of the folder as it was. In a copy, since it makes the corpus anew."""
    other = "tests/texts"
    shutil.copytree(study / "tests/tiny", study / other, symlinks=True)
    inner = study / other / "texts/inner"
    inner.mkdir(parents=True)
    (study / other / "notes.jsonl").rename(inner / "a.jsonl")
    edit(f"{other}/config.yaml", "path: notes.jsonl", "path: texts")
    target = "results/tiny/tiny/notes/counts.json"
    assert snakemake(study, target, "--cores", "1", directory=other).endswith("exit 0")
    assert "Nothing to be done" in snakemake(study, target, "-n", directory=other)
    with open(inner / "a.jsonl", "a") as file:
        file.write('{"text": "one more"}\n')
    assert planned(snakemake(study, target, "-n", directory=other)) == {"tokenize_corpus": 1}


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
    assert "retrains 6 SAEs" in output and "generate_corpus" not in output


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


ON_DEMAND = "firing_frequencies.parquet"  # which the target `features` alone reads


def test_a_file_of_any_name_that_was_deleted_is_made_anew(study, tmp_path):
    """As the message about a damaged one says: whatever a job reads is an input of its rule."""
    folder = study / "tests/tiny"
    files = (path for path in sorted(folder.glob("results/tiny/**/*")) if path.is_file())
    lost = {path.name: path for path in files if path.name != ON_DEMAND}
    assert {"cfg.json", "sae_weights.safetensors", "train.parquet", "summary.csv"} <= lost.keys()
    for name, path in lost.items():
        path.rename(tmp_path / name)
    output = snakemake(study, "-n")
    for name, path in lost.items():
        (tmp_path / name).rename(path)
    reasons = re.findall(r"Missing output files: ([^;\n]+)", output)
    missed = {Path(path).name for reason in reasons for path in reason.split(", ")}
    assert lost.keys() <= missed, lost.keys() - missed


def test_forcing_a_rule_drops_its_state_in_this_study_and_no_other(study):
    names = ("summarise/tiny", "summarise/another", "train_sae/tiny")
    states = [study / f"tests/tiny/state/{name}/x" for name in names]
    for state in states:
        state.mkdir(parents=True)
    # Of when the study had an SAE to audit: in no seal since, and nobody's business.
    verdicts = study / "tests/tiny/results/tiny/tables/audit.csv"
    verdicts.write_text("model,sae,check,verdict,cause\n")
    output = snakemake(study, "-R", "summarise", "--cores", "1")
    assert output.endswith("exit 0"), output[-2000:]
    assert [state.exists() for state in states] == [False, True, True]
    shutil.rmtree(study / "tests/tiny/state")
    verdicts.unlink()
