"""Kills, other shards and cores, and a second Snakemake change no bit of a study."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from repository import ROOT, copy_repository
from tiny_study import CONFIG, planned, snakemake

pytestmark = pytest.mark.workflow


def comparable(study: Path) -> dict[str, bytes]:
    """Corpora, weights, tables: all but what holds or digests the activations, shard by shard."""
    results = study / "tests/tiny/results/tiny"
    files = [
        *results.glob("tables/*"),
        *results.rglob("sae_weights.safetensors"),
        *(path for path in results.rglob("*.parquet") if "shard" not in path.name),
    ]
    return {str(path.relative_to(results)): path.read_bytes() for path in files}


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
    shard = "results/tiny/tiny/*/*/train/shard0.parquet"  # what is left to do then takes far longer
    while killed.poll() is None and not list((tmp_path / "tests/tiny").glob(shard)):
        time.sleep(0.05)
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
    # That of outputs is written last, and whole at once.
    locks = (study / "tests/tiny/.snakemake/locks").glob
    while first.poll() is None and not any(p.stat().st_size for p in locks("*.output.lock")):
        time.sleep(0.05)
    # The first stands still while the second starts, or its lock could be gone before.
    first.send_signal(signal.SIGSTOP)
    try:
        second = snakemake(study, weights, "-R", "train_sae", "--cores", "1")
    finally:
        first.send_signal(signal.SIGCONT)
    assert first.wait() == 0
    assert "cannot be locked" in second and "--unlock" in second and not second.endswith("exit 0")
    assert (study / "tests/tiny" / weights).read_bytes() == before


def test_files_without_a_record_are_found_as_the_readme_says(study, edit):
    """What a job of Slurm's leaves that outlived its Snakemake: here the record is removed."""
    weights = "results/tiny/tiny/notes/resid_pre.1/topk/seed0/sae_weights.safetensors"
    assert snakemake(study, "--cleanup-metadata", weights).endswith("exit 0")
    readme = (ROOT / "workflow/profiles/README.md").read_text()
    (listing,) = re.findall(r"`snakemake (--summary .*)`", readme)
    command = f"{sys.executable} -m snakemake --directory tests/tiny {listing}"
    listed = subprocess.check_output(command, shell=True, cwd=study, text=True).split()
    assert listed == [weights]
    edit(CONFIG, "k: 4", "k: 5")
    without_it = planned(snakemake(study, "-n"))["train_sae"]
    (study / "tests/tiny" / weights).unlink()
    assert planned(snakemake(study, "-n"))["train_sae"] == without_it + 1
