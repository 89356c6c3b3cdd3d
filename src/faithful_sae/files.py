"""Files that are there whole or not at all."""

import glob
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FORGOTTEN = 24 * 3600  # seconds without a change that make another machine's temporary litter


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Temporary name for `path`, renamed to it at the end and removed if anything fails.

    Two processes that write the same file do not meet; the one that ends last wins.
    """
    path = Path(path)
    with scratch(path) as folder:
        yield folder / path.name
        _sync(folder / path.name)  # else a machine that crashes can leave a name without content
        os.replace(folder / path.name, path)
        _sync(path.parent)  # else it can lose the name


@contextmanager
def scratch(path: Path) -> Iterator[Path]:
    """A folder of this process beside `path`, for what it is made from; in the end it goes.

    What killed processes left of theirs is cleared away first. Errors are told the path and the
    room on its disk: libraries report a full one in their own ways, most of them without a name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for other in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        if _abandoned(other, path):
            shutil.rmtree(other, ignore_errors=True)
    folder = path.parent / f".{path.name}.{os.uname().nodename}.{os.getpid()}.partial"
    folder.mkdir()
    try:
        yield folder
    except Exception as error:
        free = shutil.disk_usage(path.parent).free
        error.add_note(f"while writing {path}, whose disk has {free / 1e6:,.1f} MB free")
        raise
    finally:
        shutil.rmtree(folder)


def files_below(folder: Path) -> list[Path]:
    """The files of a folder and of its subfolders, linked ones too, in order of their paths.

    Hidden ones are no content: Snakemake and file managers put them anywhere.
    """
    found = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    return sorted(path for path in found if path.is_file())


def _abandoned(temporary: Path, path: Path) -> bool:
    """Whether the process that a temporary of `path` is named after no longer writes it."""
    writer = temporary.name.removeprefix(f".{path.name}.").removesuffix(".partial")
    machine, _, pid = writer.rpartition(".")
    if machine != os.uname().nodename:
        try:
            changed = max(path.stat().st_mtime for path in [temporary, *temporary.rglob("*")])
        except FileNotFoundError:  # its writer has just ended
            return False
        return time.time() - changed > FORGOTTEN
    return int(pid) == os.getpid() or not runs(int(pid))


def runs(pid: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:  # a zombie, which nobody waits for in many containers, has a number and writes nothing
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return not Path("/proc/self").exists()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
