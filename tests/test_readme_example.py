"""The README's ten lines of YAML are run as they stand, on a tiny model and made text."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
