"""The real workflow: the tiny study end to end, what reruns, what fails early, what is documented.

The tests work on a copy of the repository, so that they may edit it.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import copy_repository

PROFILE = "workflow/profiles/default/config.yaml"
pytestmark = pytest.mark.workflow


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


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A copy of the repository in which the tiny study has been run."""
    repository = tmp_path_factory.mktemp("repository")
    copy_repository(repository)
