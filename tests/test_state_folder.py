"""The folder of a job: one process works in it, and what is not this very job's is not used."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from faithful_sae.state import CHECKPOINT, FINGERPRINT, LOCK, State

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


@pytest.mark.parametrize("name", [FINGERPRINT, CHECKPOINT, "0.parquet"])
def test_what_a_killed_writer_left_is_cleared_away_with_the_rest(tmp_path, name):
    """Its temporary is a folder: it must stop neither this job nor one with other settings."""
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from faithful_sae.files import written_whole
with written_whole(Path({str(tmp_path / "state" / name)!r})) as temporary:
    temporary.write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL and any((tmp_path / "state").iterdir())
    state = State(tmp_path / "state", {}, [])
    state.begin()
    assert {path.name for path in state.folder.iterdir()} == {LOCK, FINGERPRINT}


@pytest.mark.parametrize("shell", [[], ["bash", "-c", '"$@"; exit', "bash"]])
def test_state_of_a_job_that_outlived_its_snakemake_stays(tmp_path, shell):
    """Nobody has noted that the job is done: the next Snakemake starts it once more."""
    child = f"""
import sys
sys.path[:0] = {sys.path!r}
from pathlib import Path
from faithful_sae.state import State
state = State(Path({str(tmp_path / "state")!r}), {{}}, [])
state.save({{}}, {{"done": 7}})
print("saved", flush=True)
sys.stdin.readline()
state.remove()
print("done", flush=True)
"""
    parent = "import os, subprocess, sys; from faithful_sae.names import SNAKEMAKE_PID; "
    parent += "os.environ[SNAKEMAKE_PID] = str(os.getpid()); subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-c", parent, *shell, sys.executable, "-c", child]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    pipe = subprocess.PIPE
    snakemake = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
    assert snakemake.stdout.readline() == "saved\n"
    snakemake.kill()
    snakemake.wait()
    snakemake.stdin.write("\n")
    snakemake.stdin.close()
    assert snakemake.stdout.readline() == "done\n"
    assert (tmp_path / "state" / CHECKPOINT).exists()


@pytest.mark.parametrize("found", [b"", b"half", b"5", b"[1]", b"\xff", b"null"])
def test_a_fingerprint_that_is_none_is_another_jobs(tmp_path, found, capsys):
    state = State(tmp_path / "state", {}, [])
    state.begin()
    state.piece(0).touch()
    (tmp_path / "state" / FINGERPRINT).write_bytes(found)
    state.begin()
    assert state.pieces() == [] and "is ignored" in capsys.readouterr().err
    state.piece(0).touch()
    state.begin()
    assert state.pieces() == [state.piece(0)]


def test_a_piece_too_many_is_no_whole_either(tmp_path):
    state = State(tmp_path / "state", {}, [])
    state.begin()
    for number in range(2):
        state.piece(number).touch()
    assert state.whole(2) == state.pieces()
    for other in (1, 3):
        with pytest.raises(RuntimeError, match=f"holds 2 of {other} pieces"):
            state.whole(other)
