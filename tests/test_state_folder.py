"""The folder of a job: one process works in it, and what is not this very job's is not used."""

import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from faithful_sae.state import CHECKPOINT, LOCK, State

HOLDER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from faithful_sae.state import State
State(Path({folder!r}), {{}}, []).begin()
print("begun", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def holder(tmp_path):
    """Starts another process that holds the lock of `state` until it is told to end."""
    held = []

    def start() -> subprocess.Popen:
        code = HOLDER.format(path=sys.path, folder=str(tmp_path / "state"))
        pipe = subprocess.PIPE
        held.append(subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe))
        assert held[-1].stdout.readline() == b"begun\n"
        return held[-1]

    yield start
    for process in held:
        process.kill()
        process.wait()


def test_a_lock_names_its_holder_alone_whatever_stood_there_before(tmp_path):
    State(tmp_path / "state", {}, []).begin()
    (tmp_path / "state" / LOCK).write_text("123456789 on a machine of a very long name" * 9)
    State(tmp_path / "state", {}, []).begin()
    assert len((tmp_path / "state" / LOCK).read_text()) < 100


def test_a_lock_that_was_removed_with_its_folder_is_another_processs_by_now(tmp_path, holder):
    """The folder goes when a job is done: a checkpoint of one that goes on must not meet another's.

    Its old lock, of a file that no name leads to any more, keeps nobody out.
    """
    state = State(tmp_path / "state", {}, [])
    state.begin()
    shutil.rmtree(tmp_path / "state")
    holder()
    with pytest.raises(RuntimeError, match="is in use by process"):
        state.save({}, {})


def test_a_lock_that_was_refused_is_not_held(tmp_path, holder):
    other = holder()
    state = State(tmp_path / "state", {}, [])
    for _ in range(2):
        with pytest.raises(RuntimeError, match=rf"is in use by process {other.pid} on"):
            state.begin()
    other.communicate(b"\n")
    state.begin()


def test_a_hidden_file_in_an_input_is_no_reason_to_start_from_zero(tmp_path):
    """Snakemake and file managers put them anywhere."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    State(tmp_path / "state", {}, [tmp_path / "model"]).save({}, {"done": 7})
    (tmp_path / "model/.snakemake_timestamp").touch()
    assert State(tmp_path / "state", {}, [tmp_path / "model"]).load()[1] == {"done": 7}


def test_a_renamed_file_in_an_input_is_another_job(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/a").write_text("{}")
    State(tmp_path / "state", {}, [tmp_path / "model"]).save({}, {"done": 7})
    (tmp_path / "model/a").rename(tmp_path / "model/b")
    assert State(tmp_path / "state", {}, [tmp_path / "model"]).load() is None


def test_a_checkpoint_that_says_nothing_of_itself_is_never_used(tmp_path):
    State(tmp_path / "state", {}, []).save({"x": torch.zeros(1)}, {"done": 7})
    save_file({"x": torch.zeros(1)}, tmp_path / "state" / CHECKPOINT)
    assert State(tmp_path / "state", {}, []).load() is None
    assert not (tmp_path / "state" / CHECKPOINT).exists()
