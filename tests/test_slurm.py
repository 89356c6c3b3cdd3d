"""The Slurm profile on a Slurm of two nodes on this machine: a study, a failure, a node's crash."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml
from repository import ROOT, copy_repository

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not shutil.which("slurmctld"), reason="Slurm (slurmctld) is not installed"),
    pytest.mark.skipif(os.geteuid() != 0, reason="Slurm's node daemon must be started as root"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs of this Slurm are make-believe"),
]

TINY = "tests/tiny"
SAE = "results/tiny/tiny/faithful/resid_pre.1/topk/seed0/sae_weights.safetensors"
TRAINING_LOG = "results/logs/train_sae/tiny/tiny/faithful/resid_pre.1/topk/seed0.log"
SENT_TO_GPUS = yaml.safe_load((ROOT / "workflow/profiles/slurm/config.yaml").read_text())[
    "set-resources"
]
# The profile as it is, but for what a Slurm without accounts needs, and for polling sooner.
PROFILE = [
    *("--workflow-profile", "workflow/profiles/slurm"),
    *("--slurm-status-command", "squeue"),
    *("--slurm-init-seconds-before-status-checks", "1"),
]


def snakemake(*arguments: str, directory: str = TINY) -> list[str]:
    """A command line; a run that hangs is ended."""
    command = [sys.executable, "-m", "snakemake", "--directory", directory, *arguments]
    return ["timeout", "--kill-after=10", "1200", *command]


def start(command: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )


def finish(process: subprocess.Popen) -> str:
    """Standard output and error; the exit status is in the last line."""
    output, _ = process.communicate()
    return f"{output}\nexit {process.returncode}"


def wait_until(condition: Callable[[], object], what: str, seconds: int = 600) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.2)


class Job(NamedTuple):
    """What Slurm says of a job; the comment holds its rule."""

    state: str
    partition: str
    comment: str
    node: str = ""  # pending jobs have none


class Cluster:
    """A Slurm of two nodes; `environment` is that of whoever uses it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Below the ports that systems lend out, and others for every process that runs tests.
        self.environment = os.environ | {"MINI_SLURM_PORT": f"{18_000 + os.getpid() % 4_000 * 3}"}

    def control(self, command: str, *arguments: str) -> str:
        script = ROOT / "tests/slurm/mini-slurm.sh"
        return self.ask(str(script), command, str(self.folder), *arguments)

    def start(self) -> None:
        exports = re.findall(r"^export (\w+)=(.*)$", self.control("start"), flags=re.M)
        self.environment |= dict(exports)

    def ask(self, *command: str) -> str:
        return subprocess.check_output(command, env=self.environment, text=True)

    def jobs(self) -> dict[str, Job]:
        """All jobs since the start, by number."""
        listed = self.ask("squeue", "--noheader", "--states=all", "--format=%i %T %P %k %N")
        return {number: Job(*rest) for number, *rest in map(str.split, listed.splitlines())}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.control("stop")


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory) -> Path:
    """A copy of the repository in which a part of the tiny study has run through Slurm.

    One corpus, one kind of SAE, one shard: each job takes ten seconds, whatever it does.
    """
    repository = tmp_path_factory.mktemp("repository")
    copy_repository(repository)
    config = repository / TINY / "config.yaml"
    others = "notes|mixed|batch-topk|untrained"
    text, edits = re.subn(rf"  (?:{others}):\n(?:    .*\n)+", "", config.read_text())
    assert edits == 4
    config.write_text(text.replace("shards: 2", "shards: 1"))
    output = finish(start(snakemake(*PROFILE), cwd=repository, env=cluster.environment))
    assert output.endswith("exit 0"), output[-8000:]
    return repository


def test_a_study_runs_through_slurm_with_small_jobs_together_and_tiny_ones_here(study, cluster):
    tables = {path.stem for path in (study / TINY / "results/tiny/tables").glob("*.csv")}
    assert len(tables) == 14 and "summary" in tables
    jobs = cluster.jobs().values()
    assert {job.state for job in jobs} == {"COMPLETED"}
    rules = [job.comment for job in jobs]
    assert sum("train_sae" in rule for rule in rules) == 2
    for job in jobs:
        rule = re.match(r"rule_(\w+?)_wildcards_", job.comment)
        needs_gpu = rule is not None and rule[1] in SENT_TO_GPUS  # a group has no rule
        assert job.partition == ("gpu" if needs_gpu else "cpu"), job
    assert sum("evaluations" in rule for rule in rules) == 2
    assert not any("summarise" in rule or "draw_figures" in rule for rule in rules)


def test_a_failure_names_the_logs_of_the_rule_and_of_slurm(study, cluster):
    shard = study / TINY / "results/tiny/tiny/faithful/resid_pre.1/train/shard0.parquet"
    whole = shard.read_bytes()
    middle = len(whole) // 3
    shard.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    command = snakemake(SAE, "--forcerun", "train_sae", "--retries", "0", *PROFILE)
    output = finish(start(command, cwd=study, env=cluster.environment))
    shard.write_bytes(whole)
    assert output.endswith("exit 1")
    error = output[output.index("Error in rule train_sae") :]
    assert "shard0.parquet is damaged" in error  # the log itself
    assert TRAINING_LOG in error
    (slurm_log,) = set(re.findall(r"/\S+/results/logs/slurm/\S+\.log", error))
    assert "train_sae" in Path(slurm_log).read_text()


def test_a_job_whose_node_crashed_ends_as_if_nothing_had_happened(study, cluster):
    config = study / TINY / "config.yaml"
    long = config.read_text().replace("batch_size: 256", "batch_size: 64")
    config.write_text(long.replace("training_tokens: 8_000", "training_tokens: 320_000"))
    undisturbed = study / "tests/undisturbed"
    shutil.copytree(study / TINY, undisturbed)
    log = study / TINY / TRAINING_LOG
    log.unlink(missing_ok=True)

    # After every step, which takes a training of 20 seconds long enough to be crashed. Not by
    # --set-resources, which would take the partitions of the profile away.
    profile = study / "workflow/profiles/slurm/config.yaml"
    gpu = "  generate_corpus: &gpu\n"
    assert gpu in profile.read_text()
    profile.write_text(profile.read_text().replace(gpu, f"{gpu}    checkpoint_minutes: 0\n"))
    run = start(snakemake(SAE, *PROFILE), cwd=study, env=cluster.environment)
    alone = start(snakemake(SAE, "--cores", "1", directory="tests/undisturbed"), cwd=study)
    try:
        state = study / TINY / "state/train_sae/tiny/tiny/faithful/resid_pre.1/topk/seed0"
        wait_until((state / "checkpoint.safetensors").exists, "a checkpoint")
        jobs = cluster.jobs()
        (number,) = [number for number, job in jobs.items() if job.state == "RUNNING"]
        assert jobs[number].partition == "gpu"
        cluster.control("crash-node", jobs[number].node, number)
        wait_until(lambda: cluster.jobs()[number].state == "PENDING", "Slurm to notice the crash")
        cluster.ask("scontrol", "update", f"JobId={number}", "StartTime=now")  # not in two minutes
        for process in (run, alone):
            output = finish(process)
            assert output.endswith("exit 0"), output[-4000:]
    finally:
        run.terminate()
        alone.terminate()
    again = cluster.jobs()[number]
    assert again.state == "COMPLETED" and again.node != jobs[number].node
    assert "going on from where the job stopped" in log.read_text()
    assert not state.exists()
    assert (study / TINY / SAE).read_bytes() == (undisturbed / SAE).read_bytes()
