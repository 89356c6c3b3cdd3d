"""What an unfinished job has done so far, so that a kill costs minutes and not the job.

State lies outside the outputs that Snakemake removes from a failed job. Only a job with the same
fingerprint (settings, inputs, library code) takes it up again; it goes when the job is done, and no
bit of a result depends on it.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from itertools import count, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor, get_num_threads

from faithful_sae.checksums import file_digest
from faithful_sae.devices import gpus
from faithful_sae.files import files_below, runs, written_whole
from faithful_sae.names import SNAKEMAKE_PID
from faithful_sae.tensors import tensors_digest

FINGERPRINT, CHECKPOINT, LOCK = "fingerprint.json", "checkpoint.safetensors", "lock"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # a user, a scheduler, Slurm's warning


class State:
    """The state of one job in a folder of its own.

    settings: what the result depends on beside its inputs, by name, as JSON can hold it.
    inputs: files or folders; their contents count, not their times.
    minutes: of work between two checkpoints, the most that a kill can cost.

    A long job keeps either pieces, files that together make its output, or one checkpoint that the
    next replaces.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], inputs: Iterable[Path], minutes: float = 10
    ) -> None:
        self.folder, self.minutes = folder, minutes
        self._settings, self._inputs = dict(settings), list(inputs)
        self._locked: int | None = None
        self._signal: int | None = None
        self._saved = time.monotonic()

    def begin(self) -> None:
        """Make the folder, or keep it if it is this very job's; anything else in it goes.

        Raises RuntimeError while another process works on the same job.
        """
        self._lock()
        try:
            found = dict(json.loads((self.folder / FINGERPRINT).read_text()))
        except FileNotFoundError:
            found = {"fingerprint": "missing"}
        except (OSError, ValueError, TypeError):
            found = {"fingerprint": "cannot be read"}
        if found == self._fingerprint:
            if self.pieces():
                sys.stderr.write(f"{self.folder}: going on after {len(self.pieces())} pieces\n")
            return
        if self._content():
            either = found | self._fingerprint
            changed = sorted(k for k in either if found.get(k) != self._fingerprint.get(k))
            self._drop(f"it is of another job: {', '.join(changed)} changed")
        with written_whole(self.folder / FINGERPRINT) as temporary:
            temporary.write_text(json.dumps(self._fingerprint, indent=2) + "\n")

    @cached_property
    def _fingerprint(self) -> dict[str, Any]:
        """What the bits of the result depend on. Digests of large inputs take time: made once."""
        told = {
            "settings": self._settings,
            "software": {name: version(name) for name in ("torch", "transformers", "numpy")},
            # A job that moves to another kind of GPU goes on: on a GPU bits are not promised.
            "device": "cuda" if gpus() else "cpu",
            "threads": get_num_threads(),
        }
        known: dict[str, Any] = json.loads(json.dumps(told))
        return known | {str(path): _digest(path) for path in self._inputs}

    def _lock(self) -> None:
        """Keep the folder for this process until it ends, however it ends.

        A job can outlive its Snakemake, whose successor would start the same job beside it.
        """
        lock = self.folder / LOCK
        if self._locked is not None and lock.exists():
            if os.path.samestat(os.fstat(self._locked), lock.stat()):
                return
        self.folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.lockf(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            os.close(opened)
            raise RuntimeError(
                f"{self.folder} is in use by process {lock.read_text() or '?'}: a job that "
                "outlived its Snakemake, or another one's; wait for it or end it, and run again."
            ) from error
        except OSError as error:  # some network file systems have no locks
            sys.stderr.write(f"{self.folder} cannot be locked ({error}); going on without\n")
        os.truncate(opened, 0)
        os.write(opened, f"{os.getpid()} on {socket.gethostname()}".encode())
        self._locked = opened

    def piece(self, number: int) -> Path:
        """Where the piece of this number belongs; it must be written whole or not at all."""
        return self.folder / f"{number}.parquet"

    def pieces(self) -> list[Path]:
        """The pieces that are there, from the first without a gap."""
        return list(takewhile(Path.exists, map(self.piece, count())))

    def whole(self, number: int) -> list[Path]:
        """All of this many pieces; RuntimeError if some are gone, so that none is left out."""
        pieces = self.pieces()
        if len(pieces) != number:
            raise RuntimeError(
                f"{self.folder} holds {len(pieces)} of {number} pieces: it was changed while the "
                "job ran; run the same command again."
            )
        return pieces

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Inside, a signal to stop makes a checkpoint due, and saving it ends the process."""

        def stop(number: int, _frame: FrameType | None) -> None:
            self._signal = number

        before = [signal.signal(number, stop) for number in SIGNALS]
        try:
            yield
        finally:
            for number, handler in zip(SIGNALS, before, strict=True):
                signal.signal(number, handler)

    def due(self) -> bool:
        """Whether a checkpoint should be saved now."""
        return self._signal is not None or time.monotonic() - self._saved >= 60 * self.minutes

    def save(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Replace the checkpoint; `facts` is as JSON can hold it.

        Raises SystemExit afterwards if a signal asked to stop.
        """
        from safetensors.torch import save_file

        self.begin()
        text = json.dumps(facts)
        metadata = {"facts": text, "sha256": tensors_digest(tensors, text)}
        with written_whole(self.folder / CHECKPOINT) as temporary:
            save_file(tensors, temporary, metadata)
        self._saved = time.monotonic()
        if self._signal is not None:
            raise SystemExit(
                f"stopped by {signal.Signals(self._signal).name}; the state is saved in "
                f"{self.folder}, and the same command goes on from there."
            )

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The tensors and facts of the last checkpoint, if there is a whole one of this job."""
        from safetensors import SafetensorError, safe_open

        self.begin()
        if not (self.folder / CHECKPOINT).exists():
            return None
        try:
            with safe_open(self.folder / CHECKPOINT, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if tensors_digest(tensors, metadata["facts"]) == metadata["sha256"]:
                sys.stderr.write(f"{self.folder}: going on from where the job stopped\n")
                return tensors, json.loads(metadata["facts"])
        except (SafetensorError, KeyError, TypeError):
            pass
        self._drop(f"{CHECKPOINT} is damaged")
        return None

    def remove(self) -> None:
        """The job is done: its outputs are whole.

        If the Snakemake that started it has died, nobody notes that: the next one throws the
        outputs away and starts the job again. It then finds the state, which stays.
        """
        if not runs(int(os.environ.get(SNAKEMAKE_PID, os.getpid()))):
            sys.stderr.write(f"{self.folder} stays: the Snakemake that started this job is gone\n")
            return
        shutil.rmtree(self.folder, ignore_errors=True)

    def _drop(self, reason: str) -> None:
        sys.stderr.write(f"{self.folder} is ignored: {reason}. The job starts from zero.\n")
        for path in self._content():
            shutil.rmtree(path) if path.is_dir() else path.unlink()  # a killed writer's temporary

    def _content(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name != LOCK]


def _digest(path: Path) -> str:
    """sha256 of a file, or of all files of a folder and their names."""
    if not path.is_dir():
        return file_digest(path)
    lines = [f"{file_digest(file)}  {file.relative_to(path)}" for file in files_below(path)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
