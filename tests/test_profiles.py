"""The Slurm profile, as Snakemake itself reads it; on a Slurm of its own in test_slurm.py."""

import re
import subprocess
import sys

import pytest
import yaml
from repository import ROOT

pytestmark = pytest.mark.workflow
SLURM = ROOT / "workflow/profiles/slurm"


def rules_with(pattern: str) -> set[str]:
    """Rules whose text matches."""
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    rules = re.findall(r"^rule (\w+):\n((?:(?!^rule ).*\n)*)", text, re.M)
    return {name for name, rule in rules if re.search(pattern, rule, re.M)}


def test_a_rule_that_asks_for_a_gpu_is_sent_to_one_and_shares_no_job():
    profile = yaml.safe_load((SLURM / "config.yaml").read_text())
    assert set(profile["set-resources"]) == rules_with(r"^ +gpu=1,")
    assert set(profile["groups"]) <= rules_with("") - set(profile["set-resources"])
    assert set(profile["groups"].values()) == set(profile["group-components"])


def test_a_rule_that_loads_a_model_or_trains_asks_for_a_gpu():
    """Else Slurm sends it to a node without one, and it computes there on the CPU."""
    scripts = (ROOT / "workflow/scripts").glob("*.py")
    uses = {p.stem for p in scripts if re.search(r"\b(load_model|train_sae)\(", p.read_text())}
    assert uses == rules_with(r"^ +gpu=1,")


def test_a_job_that_failed_asks_for_more_memory_and_time_each_time(tmp_path):
    """Rules of the profile's names that always fail, run here: what they ask for is printed."""
    profile = yaml.safe_load((SLURM / "config.yaml").read_text())
    rules = ["needs_no_gpu", *profile["set-resources"]]
    text = f"rule all:\n    input: {rules!r}\n"
    for rule in rules:
        text += f'rule {rule}:\n    output: "{rule}"\n    shell: "exit 1"\n'
    (tmp_path / "Snakefile").write_text(text)
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--keep-going"]
    command += ["--workflow-profile", str(SLURM), "--executor", "local", "--latency-wait", "0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    for rule in rules:
        jobs = rf"^localrule {rule}:\n(?:    .*\n)*"
        blocks = re.findall(jobs, done.stdout + done.stderr, flags=re.M)
        asked = {
            name: [int(re.search(rf"\b{name}=(\d+)", block).group(1)) for block in blocks]
            for name in ("mem_mb", "runtime")
        }
        for amounts in asked.values():
            assert len(amounts) == 1 + profile["retries"] >= 2, (rule, asked)
            assert amounts == sorted(set(amounts)), (rule, asked)
