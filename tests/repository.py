"""A copy of what runs the workflow, so that tests may edit it."""

import shutil
from pathlib import Path

ROOT = Path(__file__).parents[1]


def copy_repository(target: Path) -> None:
    """Copy the workflow and the tiny study, without what it has made, into an empty folder."""
    for name in ("Snakefile", "config.yaml", "workflow", "src", "envs"):
        source = ROOT / name
        copy = shutil.copytree if source.is_dir() else shutil.copy
        copy(source, target / name)
    shutil.copytree(
        ROOT / "tests/tiny",
        target / "tests/tiny",
        ignore=shutil.ignore_patterns("results", "resources", ".snakemake"),
    )
