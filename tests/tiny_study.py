"""The tiny study as the workflow's tests ask for it: runs of Snakemake, jobs planned, tables."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl

CONFIG = "tests/tiny/config.yaml"


def snakemake(repository: Path, *arguments: str, directory: str = "tests/tiny") -> str:
    """Standard output and error of Snakemake; its exit status is in the last line."""
    command = [sys.executable, "-m", "snakemake", "--directory", directory, *arguments]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True, check=False)
    return f"{done.stdout}{done.stderr}\nexit {done.returncode}"


def planned(output: str) -> dict[str, int]:
    """Rule -> number of jobs, from the statistics of a dry run."""
    table = output.partition("Job stats:")[2]
    return {
        rule: int(count)
        for rule, count in re.findall(r"^(\w+) +(\d+)$", table, flags=re.M)
        if rule not in ("total", "all", "exit")
    }


def table(study: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(
        study / f"tests/tiny/results/tiny/tables/{name}.csv", infer_schema_length=None
    )
