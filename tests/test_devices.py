"""Every GPU job has a device of its own; the devices here are names, so no GPU is needed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faithful_sae import devices
from faithful_sae.devices import gpus

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
    """Start a process that claims a device and holds it until its input closes."""
    running = []

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
        return running[-1]

    yield start
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
