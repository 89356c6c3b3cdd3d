"""Files that are there whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Temporary name beside `path`, renamed to it at the end and removed if anything fails."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name, so that the next run clears away what a killed one left.
    folder = path.parent / f".{path.name}.partial"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder / path.name
        with open(folder / path.name, "rb") as file:
            os.fsync(file.fileno())  # else a machine that crashes can leave a name without content
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder)
