"""The workflow as a part of others: a module from a folder and from a git host, the catalogue."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from repository import ROOT, copy_repository

pytestmark = pytest.mark.workflow

# Known features: activations are drawn by one job that needs no other.
STUDY = yaml.safe_load(
    """
study: known
models:
  known: {source: known_features, d_in: 8, features: 16, external_features: 4, active: 2}
corpora:
  faithful: {source: known_features, shift: 0}
corpus_size: {train_tokens: 100, heldout_tokens: 50}
saes:
  small: {k: 2, expansion: 2, training_tokens: 0}
seeds: [0, 1]
"""
)
SHARD = "results/known/known/faithful/resid_pre.0/heldout/shard0.parquet"
IMPORTING = """
configfile: "mine.yaml"

module sparse:
    snakefile: {snakefile}
    config: config["sparse"]

use rule * from sparse as sparse_*

rule weigh:
    input: "{shard}"
    output: "size.txt"
    shell: "wc -c {{input}} > {{output}}"
"""


def run(folder: Path, *arguments: str, **environment: str) -> str:
    """Snakemake on the Snakefile of a folder, in that folder; its exit status comes last."""
    command = [sys.executable, "-m", "snakemake", "--show-failed-logs", *arguments]
    env = os.environ | environment
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def import_from(snakefile: str, folder: Path) -> None:
    (folder / "Snakefile").write_text(IMPORTING.format(snakefile=snakefile, shard=SHARD))
    # Keys of its own would be unknown to the module, which therefore gets a section.
    (folder / "mine.yaml").write_text(yaml.safe_dump({"sparse": STUDY, "mine": 1}))


def test_another_snakefile_imports_the_workflow_and_builds_on_a_file_of_it(tmp_path):
    import_from(repr(str(ROOT / "Snakefile")), tmp_path)
    output = run(tmp_path, "--cores", "1", "weigh")
    assert output.endswith("exit 0"), output[-3000:]
    assert "rule sparse_draw_activations:" in output
    assert (tmp_path / "size.txt").read_text().endswith(f"{SHARD}\n")


def test_a_module_from_a_git_host_finds_its_library_schema_and_scripts(tmp_path):
    """As snakedeploy writes it; git is told that the host is a folder of this machine."""
    host, mine = tmp_path / "host", tmp_path / "mine"
    host.mkdir()
    mine.mkdir()
    copy_repository(host)
    git = ["git", "-C", str(host), "-c", "user.name=test", "-c", "user.email=test@localhost"]
    for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "all"]):
        subprocess.run([*git, *arguments], check=True)
    subprocess.run([*git, "tag", "v1"], check=True)
    import_from('github("someone/sparse", path="workflow/Snakefile", tag="v1")', mine)
    redirected = {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{host}.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/someone/sparse",
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "GITHUB_TOKEN": "",
    }
    output = run(mine, "--cores", "1", SHARD, **redirected)
    assert output.endswith("exit 0"), output[-3000:]
    assert (mine / SHARD).exists()
    output = run(mine, "-n", **redirected)
    assert output.endswith("exit 0"), output[-3000:]
    assert "sparse_train_sae" in output and "sparse_all" in output  # what it makes by default


def test_the_catalogue_finds_what_it_asks_for():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["mandatory-flags"] == {"desc": None, "flags": None}
    assert usage["software-stack-deployment"] == {
        "conda": True,
        "apptainer": False,
        "apptainer+conda": False,
        "report": True,
    }
    # A deployment copies the folder config/, and its Snakefile reads config/config.yaml.
    assert (ROOT / "config/config.yaml").samefile(ROOT / "config.yaml")
    assert (ROOT / "config/README.md").exists() and (ROOT / "workflow/Snakefile").exists()
