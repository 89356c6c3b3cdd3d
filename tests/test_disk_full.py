"""A disk that fills up: a clear error, no half-written file, and the rest once there is room."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from repository import copy_repository

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk"),
]
TARGETS = [f"results/tiny/tiny/notes/resid_pre.1/topk/seed{seed}/cfg.json" for seed in (0, 1)]


def mount(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


@pytest.fixture
def disk(tmp_path, request) -> Path:
    """A disk of its own for the results, or another folder, of a copy of the repository."""
    copy_repository(tmp_path)
    folder = tmp_path / "tests/tiny" / getattr(request, "param", "results")
    folder.mkdir()
    done = mount("-t", "tmpfs", "-o", "size=64m", "tmpfs", str(folder))
    if done.returncode:
        pytest.skip(f"this machine mounts no tmpfs: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def resize(disk: Path, kilobytes: int) -> None:
    done = mount("-o", f"remount,size={kilobytes}k", str(disk))
    assert done.returncode == 0, done.stderr


def run(disk: Path) -> str:
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "1"]
    done = subprocess.run(
        [*command, *TARGETS], cwd=disk.parents[2], capture_output=True, text=True, check=False
    )
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def used(disk: Path) -> int:
    space = os.statvfs(disk)
    return (space.f_blocks - space.f_bfree) * space.f_frsize // 1024


def test_a_full_disk_is_named_and_costs_nothing_but_time(disk):
    first, second = (disk.parent / target for target in TARGETS)
    tiny = disk.parents[2] / "tests/tiny"
    assert run(disk).endswith("exit 0")
    expected = second.with_name("sae_weights.safetensors").read_bytes()
    for path in (first, second):
        for file in path.parent.iterdir():
            file.unlink()
    resize(disk, used(disk) + 16)  # room for logs, not for the weights of an SAE
    output = run(disk)
    assert output.endswith("exit 1")
    assert "No space left on device" in output
    assert "sae_weights.safetensors, whose disk has 0.0 MB free" in output
    assert not first.exists() and not list(disk.rglob("*.partial"))
    resize(disk, 64 * 1024)
    output = run(disk)
    assert output.endswith("exit 0"), output[-3000:]
    assert second.with_name("sae_weights.safetensors").read_bytes() == expected
    assert not [path for path in (tiny / "state").rglob("*") if path.is_file()]


@pytest.mark.parametrize("disk", ["state"], indirect=True)
def test_state_that_does_not_fit_is_named_and_the_job_is_done_once_there_is_room(disk):
    resize(disk, 32)  # room for locks and fingerprints, not for a piece of activations
    output = run(disk)
    assert output.endswith("exit 1")
    assert "No space left on device" in output
    assert not list(disk.rglob("*.partial"))
    # The first training shard holds nothing: the second has all of this corpus.
    assert not list(disk.parent.glob("results/tiny/tiny/notes/resid_pre.1/train/shard1*"))
    resize(disk, 64 * 1024)
    output = run(disk)
    assert output.endswith("exit 0"), output[-3000:]
    assert not [path for path in disk.rglob("*") if path.is_file()]
