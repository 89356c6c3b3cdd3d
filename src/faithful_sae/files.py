"""Files that are there whole or not at all, and folders of links."""

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
        os.replace(folder / path.name, path)
    finally:
        shutil.rmtree(folder)


def link_folder(source: Path, destination: Path) -> None:
    """A folder of links to the files of `source`: nothing is copied, however large the files."""
    destination.mkdir(parents=True)
    for path in source.iterdir():
        (destination / path.name).symlink_to(path.resolve())
