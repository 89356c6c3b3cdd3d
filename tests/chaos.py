"""Kill the tiny study again and again at random moments, and compare what comes out.

    python tests/chaos.py --kills 25

Every time, the whole process group gets SIGKILL: Snakemake, its jobs, whatever they were writing.
Then the same command runs again. In the end tables, weights and corpora must have the bytes of an
undisturbed run. Prints how many kills were survived and how many results were lost.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from repository import copy_repository

COMPARED = ("*.csv", "*.parquet", "*.safetensors", "*.json")
MEAN = 12.0  # seconds from a start to its kill, on average: some fall into Snakemake's own start


def start(folder: Path) -> subprocess.Popen:
    """The study in a process group of its own, its training saved after every step."""
    command = [sys.executable, "-m", "snakemake", "--directory", "tests/tiny", "--cores", "2"]
    command += ["--set-resources", "train_sae:checkpoint_minutes=0"]
    with open(folder / "log", "a") as log:
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)


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
    process = start(folder)
    if process.wait():
        sys.exit((folder / "log").read_text()[-4000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    moments = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as temporary:
        calm, killed = Path(temporary, "calm"), Path(temporary, "killed")
        for folder in (calm, killed):
            folder.mkdir()
            copy_repository(folder)
        finish(calm)
        survived = 0
        for number in range(options.kills):
            process = start(killed)
            try:
                process.wait(timeout=moments.expovariate(1 / MEAN))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
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
            killed.mkdir()
            copy_repository(killed)
            print(f"finished after {number - survived + 1} runs; starting anew", flush=True)
        finish(killed)
        compare(calm, killed)
        if state := [p for p in (killed / "tests/tiny/state").rglob("*") if p.is_file()]:
            sys.exit(f"state was left behind: {state}")
    print(f"{survived} kills survived, 0 results lost or changed")


def compare(calm: Path, killed: Path) -> None:
    expected, found = digests(calm), digests(killed)
    if not expected:
        sys.exit("nothing was compared")
    wrong = sorted(k for k in expected | found if expected.get(k) != found.get(k))
    if wrong:
        sys.exit(f"{len(wrong)} of {len(expected)} results were lost or changed: {wrong[:20]}")


if __name__ == "__main__":
    main()
