"""Kill the tiny study again and again at random moments, and compare what comes out.

    python tests/chaos.py --kills 25

Every time, the whole process group gets SIGKILL: Snakemake, its jobs, whatever they were writing.
Then the same command runs again. In the end tables, weights and corpora must have the bytes of an
undisturbed run. Every second kill is aimed at a job that has just saved what it has done so far.
Prints how many kills were survived, how many jobs went on from their state, which some must, and
how many results were lost.
"""

import argparse
import contextlib
import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from repository import copy_repository

# Not the crate, which has a date.
COMPARED = ("*.csv", "*.parquet", "*.safetensors", "model.json", "counts.json", "cfg.json")
MEAN = 12.0  # seconds from a start to its kill, on average: some fall into Snakemake's own start


AIMED = 1.0  # seconds that a kill may come after a job saved its state, at most
STATEFUL = ["generate_corpus", "extract_activations", "train_sae"]  # in this order in a study


def prepare(folder: Path) -> None:
    """The tiny study, its training long enough to be met by a kill: seconds."""
    folder.mkdir()
    copy_repository(folder)
    config = folder / "tests/tiny/config.yaml"
    text = config.read_text()
    assert "training_tokens: 8_000" in text
    config.write_text(text.replace("training_tokens: 8_000", "training_tokens: 50_000"))


@contextlib.contextmanager
def running(folder: Path) -> Iterator[subprocess.Popen]:
    """The study in a process group of its own, its training saved after every step.

    Nothing of the group is alive afterwards.
    """
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "2"]
    command += ["--set-resources", "train_sae:checkpoint_minutes=0"]
    with open(folder / "log", "a") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def ended_before(process: subprocess.Popen, seconds: float) -> bool:
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def wait_for_state(process: subprocess.Popen, folder: Path, rules: list[str]) -> None:
    """Until a job of these rules saves pieces or a checkpoint, or the study is done."""
    begin = time.time()
    patterns = ("checkpoint.safetensors", "[0-9]*.parquet")
    while process.poll() is None:
        with contextlib.suppress(FileNotFoundError):  # a job that ends removes its state
            states = [folder / "tests/tiny/state" / rule for rule in rules]
            saved = [path for s in states for pattern in patterns for path in s.rglob(pattern)]
            if any(path.stat().st_mtime > begin for path in saved):
                return
        time.sleep(0.01)


def resumed(folder: Path) -> set[tuple[str, int]]:
    """Jobs that went on from their state, by log and time: each starts its log anew."""
    logs = folder / "tests/tiny/results/logs"
    return {
        (str(log.relative_to(logs)), log.stat().st_mtime_ns)
        for log in logs.rglob("*.log")
        if re.search("going on (after|from)", log.read_text())
    }


def unlock(folder: Path) -> None:
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--unlock"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def digests(folder: Path) -> dict[str, str]:
    """Digest of every table, weight file and corpus of the study."""
    study = folder / "tests/tiny/results/tiny"
    files = sorted(path for pattern in COMPARED for path in study.rglob(pattern))
    return {
        str(path.relative_to(study)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def finish(folder: Path) -> None:
    with running(folder) as process:
        failed = process.wait()
    if failed:
        sys.exit((folder / "log").read_text()[-4000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that `finally` is reached
    with tempfile.TemporaryDirectory() as temporary:
        calm, killed = Path(temporary, "calm"), Path(temporary, "killed")
        for folder in (calm, killed):
            prepare(folder)
        finish(calm)
        survived, went_on = 0, set()
        for number in range(options.kills):
            with running(killed) as process:
                if number % 2:
                    # Training first, then what comes before it too.
                    first = len(STATEFUL) - 1 - number // 2 % len(STATEFUL)
                    wait_for_state(process, killed, STATEFUL[first:])
                    ended = ended_before(process, moments.uniform(0, AIMED))
                else:
                    ended = ended_before(process, moments.expovariate(1 / MEAN))
            went_on |= resumed(killed)
            if not ended:
                time.sleep(0.5)
                unlock(killed)
                survived += 1
                print(f"kill {survived}: {len(digests(killed))} files are there", flush=True)
                continue
            if process.returncode:
                sys.exit((killed / "log").read_text()[-4000:])
            # Done before all kills were spent: once more from nothing, with the rest of them.
            compare(calm, killed)
            shutil.rmtree(killed)
            prepare(killed)
            print(f"finished after {number - survived + 1} runs; starting anew", flush=True)
        finish(killed)
        went_on |= resumed(killed)
        compare(calm, killed)
        if state := [p for p in (killed / "tests/tiny/state").rglob("*") if p.is_file()]:
            sys.exit(f"state was left behind: {state}")
    if not went_on:
        sys.exit(f"{survived} kills survived, but no job went on from its state")
    for log, _ in sorted(went_on):
        print(f"resumed: {log}")
    print(f"{survived} kills survived, {len(went_on)} jobs resumed, 0 results lost or changed")


def compare(calm: Path, killed: Path) -> None:
    expected, found = digests(calm), digests(killed)
    if not expected:
        sys.exit("nothing was compared")
    wrong = sorted(k for k in expected | found if expected.get(k) != found.get(k))
    if wrong:
        sys.exit(f"{len(wrong)} of {len(expected)} results were lost or changed: {wrong[:20]}")


if __name__ == "__main__":
    main()
