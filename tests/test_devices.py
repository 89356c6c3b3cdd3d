"""Every GPU job has a device of its own; the devices here are names, so no GPU is needed."""

import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from repository import copy_repository

from faithful_sae import devices
from faithful_sae.devices import gpus

# Stands for what asks for a device; a machine without them computes on its CPU afterwards.
COMPUTING = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from faithful_sae import devices
from faithful_sae.models import device
devices.LOCKS = Path({folder!r})
device()
print(os.environ["CUDA_VISIBLE_DEVICES"])
"""
JOB = """
import sys, time
sys.path[:0] = {path!r}
import os
from pathlib import Path
from faithful_sae import devices
from faithful_sae.devices import claim_gpu
devices.LOCKS = Path({folder!r})
claim_gpu()
claim_gpu()  # a second call keeps the first's
print(os.environ.get("CUDA_VISIBLE_DEVICES"), flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def job(tmp_path):
    """Start a process that claims a device and holds it until its input closes.

    It is killed after ten minutes: what waits for its next line then reads that there is none.
    """
    running, timers = [], []

    def start(visible: str | None, **more: str) -> subprocess.Popen:
        names = ("CUDA_VISIBLE_DEVICES", "SLURM_JOB_ID")
        environment = {k: v for k, v in os.environ.items() if k not in names} | more
        if visible is not None:
            environment["CUDA_VISIBLE_DEVICES"] = visible
        code = JOB.format(path=sys.path, folder=str(tmp_path))
        pipe = subprocess.PIPE
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
                env=environment,
            )
        )
        timers.append(threading.Timer(600, running[-1].kill))
        timers[-1].start()
        return running[-1]

    yield start
    for timer in timers:
        timer.cancel()
    for process in running:
        process.kill()
        process.communicate()


def claimed(process: subprocess.Popen) -> str:
    return process.stdout.readline().strip()


def test_two_jobs_get_different_devices_and_a_third_waits_for_one_that_is_killed(job):
    first, second = job("0,GPU-5f"), job("0,GPU-5f")
    held = claimed(first)
    assert {held, claimed(second)} == {"0", "GPU-5f"}
    third = job("0,GPU-5f")
    assert third.stderr.readline() == "waiting for one of the CUDA devices 0, GPU-5f\n"
    first.kill()  # SIGKILL: only the kernel can release what it held
    assert claimed(third) == held
    assert "is this job's" in third.stderr.readline()


def test_a_device_named_twice_takes_two_jobs(job):
    jobs = [job("1,1") for _ in range(2)]
    assert [claimed(process) for process in jobs] == ["1", "1"]
    assert "waiting" in job("1,1").stderr.readline()


def test_a_job_that_ends_gives_its_device_back(job):
    first = job("3")
    assert claimed(first) == "3"
    first.communicate(input="\n")
    assert claimed(job("3")) == "3"


def test_whoever_asks_for_the_device_to_compute_on_has_claimed_it(job, tmp_path):
    held = claimed(job("70,71"))  # no machine has so many
    code = COMPUTING.format(path=sys.path, folder=str(tmp_path))
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment | {"CUDA_VISIBLE_DEVICES": "70,71"},
        capture_output=True,
        text=True,
    )
    assert {held, done.stdout.strip()} == {"70", "71"}, done.stderr


@pytest.mark.workflow
@pytest.mark.parametrize("visible", ["70", "70,71", ""])
def test_snakemake_starts_as_many_gpu_jobs_as_there_are_devices(tmp_path, visible):
    copy_repository(tmp_path)
    # The first thing that a study does, since Snakemake tells its limits only when it works.
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "4"]
    environment = {k: v for k, v in os.environ.items() if k != "SLURM_JOB_ID"}
    done = subprocess.run(
        [*command, "--until", "link_model"],
        cwd=tmp_path,
        env=environment | {"CUDA_VISIBLE_DEVICES": visible},
        capture_output=True,
        text=True,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    (limit,) = re.findall(r"^Provided resources: (.*)$", said, flags=re.M) or [None]
    assert limit == (f'gpu=Resource("gpu", {len(visible.split(","))})' if visible else None)


@pytest.mark.parametrize("visible", ["", "-1"])
def test_without_a_device_nothing_is_claimed(job, visible, tmp_path):
    assert claimed(job(visible)) == visible
    assert not list(tmp_path.iterdir())


def test_jobs_inside_one_slurm_allocation_share_its_devices_out(job):
    jobs = [job("0,1", SLURM_JOB_ID="7") for _ in range(2)]
    assert {claimed(process) for process in jobs} == {"0", "1"}
    assert "waiting" in job("0,1", SLURM_JOB_ID="7").stderr.readline()


def test_device_0_of_two_slurm_allocations_need_not_be_one_device(job):
    assert [claimed(job("0", SLURM_JOB_ID=number)) for number in ("7", "8")] == ["0", "0"]


def test_users_of_one_machine_have_locks_of_their_own(monkeypatch, tmp_path):
    """One cannot open the other's, and need not: only Slurm keeps users apart."""
    monkeypatch.setattr(devices, "LOCKS", tmp_path)
    for user in (1, 2):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "70,71")
        monkeypatch.setattr(os, "getuid", lambda user=user: user)
        monkeypatch.setattr(devices, "_claimed", [])
        devices.claim_gpu()
        assert os.environ["CUDA_VISIBLE_DEVICES"] == "70"
    assert [folder.stat().st_mode & 0o777 for folder in tmp_path.iterdir()] == [0o700, 0o700]


def test_a_job_says_once_that_it_waits_however_long(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(devices, "LOCKS", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "70")
    monkeypatch.setattr(devices, "_claimed", [])
    devices.claim_gpu()
    (held,) = devices._claimed
    looks = []

    def sleep(_seconds: float) -> None:
        looks.append(held)
        if len(looks) == 3:
            os.close(held)

    monkeypatch.setattr(devices, "_claimed", [])
    monkeypatch.setattr(devices.time, "sleep", sleep)
    devices.claim_gpu()
    assert len(looks) == 3 and capsys.readouterr().err.count("waiting for") == 1


def test_a_device_may_have_slashes_in_its_name(job):
    assert claimed(job("MIG-GPU-5f/1/0")) == "MIG-GPU-5f/1/0"


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        ("0,1", ["0", "1"]),
        ("2", ["2"]),
        (" 0 , 3", ["0", "3"]),
        ("", []),
        ("-1", []),
        ("0,-1,1", ["0"]),
        ("NoDevFiles", []),  # what some containers and clusters set where there is none
        ("GPU-5f,MIG-6a,none,1", ["GPU-5f", "MIG-6a"]),
        (None, ["0", "1", "2"]),
    ],
)
def test_devices_are_those_cuda_would_see(monkeypatch, tmp_path, visible, expected):
    for card in ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0"):
        (tmp_path / card).mkdir()
    monkeypatch.setattr(devices, "NVIDIA", Path(tmp_path))
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus() == expected
