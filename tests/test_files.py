"""Files appear whole or not at all, whoever else writes them or was killed while doing so."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from faithful_sae import files
from faithful_sae.files import files_below, written_whole

WRITER = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
from faithful_sae.files import written_whole
with written_whole(Path({target!r})) as temporary:
    with open(temporary, "w") as file:
        file.write("first half, ")
        file.flush()
        print(temporary.parent, flush=True)
        sys.stdin.readline()
        file.write("second half")
"""


@pytest.fixture
def writer(tmp_path):
    """A process that has written one half of a file, and writes the other when told."""
    code = WRITER.format(path=sys.path, target=str(tmp_path / "file"))
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, text=True)
    process.temporary = Path(process.stdout.readline().strip())
    assert process.temporary.is_dir()
    yield process
    process.kill()
    process.communicate()


def write(path: Path, text: str) -> None:
    with written_whole(path) as temporary:
        temporary.write_text(text)


def test_two_writers_of_one_file_each_write_it_whole(tmp_path, writer):
    write(tmp_path / "file", "mine")
    assert (tmp_path / "file").read_text() == "mine"
    writer.communicate("\n")
    assert writer.returncode == 0
    assert (tmp_path / "file").read_text() == "first half, second half"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("reaped", [True, False])
def test_what_a_killed_writer_left_goes_with_the_next_write(tmp_path, writer, reaped):
    """A killed process stays a zombie until its parent, if there is a good one, asks for it."""
    os.kill(writer.pid, signal.SIGKILL)
    if reaped:
        writer.wait()
    else:
        while Path(f"/proc/{writer.pid}/stat").read_text().split()[2] != "Z":
            time.sleep(0.01)
    write(tmp_path / "other", "no name of its own")
    assert writer.temporary.exists()  # another file's is not looked at
    write(tmp_path / "file", "mine")
    assert {path.name for path in tmp_path.iterdir()} == {"file", "other"}


def test_an_error_in_the_middle_of_a_write_names_the_file_and_the_room_on_its_disk(tmp_path):
    """A full disk: from a flush, from safetensors, from matplotlib it comes without a name."""
    with pytest.raises(AttributeError) as raised, written_whole(tmp_path / "figure.pdf"):
        raise AttributeError("'Stream' object has no attribute 'pos'")
    (note,) = raised.value.__notes__
    assert re.fullmatch(rf"while writing {tmp_path}/figure.pdf, .* [0-9,.]+ MB free", note)
    assert not list(tmp_path.iterdir())


def test_what_another_machine_left_goes_when_it_has_not_changed_for_a_day(tmp_path):
    left = tmp_path / ".file.node7.cluster.1.partial"
    left.mkdir()
    (left / "file").write_text("half")
    write(tmp_path / "file", "mine")
    assert left.exists()
    for path in (left / "file", left):
        os.utime(path, (time.time(), time.time() - files.FORGOTTEN - 60))
    write(tmp_path / "file", "mine")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("fresh", ["", "file"])
def test_what_another_machine_still_writes_stays_however_old_the_rest_is(tmp_path, fresh):
    """A file that grows leaves its folder's time as it was."""
    other = tmp_path / ".file.node7.1.partial"
    other.mkdir()
    (other / "file").write_text("half")
    for path in (other / "file", other):
        if path != other / fresh:
            os.utime(path, (time.time(), time.time() - files.FORGOTTEN - 60))
    write(tmp_path / "file", "mine")
    assert other.exists()


def test_a_process_that_is_dead_is_known_by_any_name(tmp_path):
    """Its state follows its name in /proc, which may hold spaces and brackets."""
    program = tmp_path / "a) S (b"
    program.symlink_to("/bin/true")
    with subprocess.Popen([program]) as ended:
        while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
            time.sleep(0.01)
        left = tmp_path / f".file.{os.uname().nodename}.{ended.pid}.partial"
        left.mkdir()
        write(tmp_path / "file", "mine")
    assert not left.exists()


def test_a_machine_whose_name_ends_in_this_ones_is_another(tmp_path):
    """Of `gpu.lab` no process runs on `lab`, and it may well be writing."""
    other = tmp_path / f".file.gpu.{os.uname().nodename}.{2**30}.partial"
    other.mkdir()
    write(tmp_path / "file", "mine")
    assert other.exists()


@pytest.mark.parametrize("name", ["file", "file[1]"])
def test_what_a_killed_process_of_the_same_number_left_is_cleared(tmp_path, name):
    """In containers that are started again, numbers repeat."""
    left = tmp_path / f".{name}.{os.uname().nodename}.{os.getpid()}.partial"
    left.mkdir()
    (left / name).write_text("half")
    write(tmp_path / name, "mine")
    assert list(tmp_path.iterdir()) == [tmp_path / name]


def test_another_users_process_may_still_write(tmp_path, writer, monkeypatch):
    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    write(tmp_path / "file", "mine")
    assert writer.temporary.exists()


@pytest.mark.parametrize("proc", ["/proc", "/nowhere"])
def test_whether_a_process_runs_is_known_without_proc_too(tmp_path, writer, monkeypatch, proc):
    """macOS has none; where there is one, a process that is missing there has just ended."""
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    monkeypatch.setattr(files, "Path", lambda path: Path(str(path).replace("/proc", proc)))
    ended = tmp_path / f".file.{os.uname().nodename}.{2**30}.partial"
    ended.mkdir()
    write(tmp_path / "file", "mine")
    assert writer.temporary.exists()
    assert ended.exists() == (proc == "/nowhere")


def test_a_failed_write_leaves_the_old_file_alone(tmp_path):
    write(tmp_path / "file", "old")
    with pytest.raises(RuntimeError), written_whole(tmp_path / "file") as temporary:
        temporary.write_text("new")
        raise RuntimeError
    assert (tmp_path / "file").read_text() == "old"
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_content_and_name_are_on_the_disk_before_the_write_ends(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.fstat(number).st_ino))
    write(tmp_path / "file", "mine")
    assert synced == [(tmp_path / "file").stat().st_ino, tmp_path.stat().st_ino]


def test_files_below_are_those_of_all_subfolders_but_hidden_ones(tmp_path):
    for name in ("b", "a/c", ".hidden", "a/.snakemake_timestamp", ".git/config"):
        (tmp_path / "top" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "top" / name).touch()
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside/d").touch()
    (tmp_path / "top/linked").symlink_to(tmp_path / "beside")
    (tmp_path / "top/broken").symlink_to(tmp_path / "nowhere")
    found = [str(path.relative_to(tmp_path / "top")) for path in files_below(tmp_path / "top")]
    assert found == ["a/c", "b", "linked/d"]
