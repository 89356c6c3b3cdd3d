"""A copy of what runs the workflow, so that tests may edit it."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_repository(target: Path) -> None:
    """Copy the workflow and the tiny study, without what it has made, into an empty folder."""
    for name in ("Snakefile", "README.md", "config.yaml", "profiles"):
        shutil.copy(ROOT / name, target / name, follow_symlinks=False)
    made_here = shutil.ignore_patterns("results", "resources", "state", ".snakemake")
    for name in ("workflow", "src", "envs", "tests/tiny"):
        shutil.copytree(ROOT / name, target / name, ignore=made_here)
