"""The README's studies as they stand: ten lines of YAML are run, the audit is planned."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from audit_study import readme_examples
from exports import ABOUT, save_sae, tables

from faithful_sae.export_sae import export_sae
from faithful_sae.hook_names import hook_names

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.workflow


def snakemake(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", "mine.yaml", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def test_ten_lines_of_yaml_train_saes_on_a_model_and_a_text_of_ones_own(tmp_path, tiny_folder):
    section = (ROOT / "README.md").read_text().partition("## Your own model and your own text\n")[2]
    example = re.search(r"^```yaml\n(.+?)^```$", section, flags=re.M | re.S).group(1)
    assert len(example.splitlines()) == 10
    (tmp_path / "mine.yaml").write_text(example)
    shutil.copytree(tiny_folder, tmp_path / "my-model")
    (tmp_path / "my-text").mkdir()
    for number in range(120):
        draw = random.Random(number)
        words = draw.choices(["near", "a", "green", "stone", "sleeps", "under", "the", "old"], k=20)
        (tmp_path / f"my-text/{number}.txt").write_text(" ".join(words))
    output = snakemake(tmp_path, "-n")
    assert output.endswith("exit 0"), output[-3000:]
    assert "draw_figures" in output
    folders = [f"results/mine/my-model/{c}/resid_pre.1/topk/seed0" for c in ("faithful", "my-text")]
    weights = [f"{folder}/sae_weights.safetensors" for folder in folders]
    output = snakemake(tmp_path, "--cores", "2", "--show-failed-logs", *weights)
    assert output.endswith("exit 0"), output[-5000:]
    assert all((tmp_path / path).exists() for path in weights)


def test_the_audit_of_the_readme_is_a_whole_study_of_what_a_run_and_an_export_leave(
    tmp_path, tiny_folder
):
    """What it names is made here where `make run` and the target `export` leave it."""
    example, _ = readme_examples()
    study, default = yaml.safe_load(example), yaml.safe_load((ROOT / "config.yaml").read_text())
    ((name, model),) = study["models"].items()
    (sae,) = study["saes"].values()
    made = default["models"][name]
    assert (
        model.pop("path") == f"resources/models/{name}@{default['archives'][name]['sha256'][:12]}"
    )
    assert model.pop("source") == "path" and model.items() <= made.items()
    assert study["corpus_size"]["context_length"] == default["corpus_size"]["context_length"]
    seed, layer = (
        sae["path"].removeprefix(f"results/{default['study']}/export/saes/{name}/").split("/")[-2:]
    )
    assert seed.removeprefix("seed") in map(str, default["seeds"])
    assert layer == hook_names(sae["hook"]).module and sae["hook"] in made["hooks"]
    shutil.copytree(tiny_folder, tmp_path / f"resources/models/{name}@bcc81830d10c")
    save_sae(tmp_path / "sae", hook=sae["hook"])
    export_sae(
        [tmp_path / "sae"], (tmp_path / sae["path"]).parent, tables(hook=sae["hook"]), **ABOUT
    )
    (tmp_path / "mine.yaml").write_text(example)
    output = snakemake(tmp_path, "-n")
    assert output.endswith("exit 0"), output[-3000:]
    assert "rule audit_sae:" in output and "rule import_sae:" in output
    assert "train_sae" not in output and "fetch_" not in output
