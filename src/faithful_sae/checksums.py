"""Digests that files carry, so that damage is found when they are read, not in a result."""

import hashlib
import json
from pathlib import Path
from typing import Any

from faithful_sae.files import written_whole

SEAL = "SHA256SUMS"  # as `sha256sum --check` reads it


def damage(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path} is damaged ({reason}); delete it and run again to make it anew.")


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, *files: Path) -> None:
    """Write the digests of files in the folder, of all if none is named, for `verify`."""
    files = files or tuple(p for p in folder.rglob("*") if p.is_file() and p != folder / SEAL)
    with written_whole(folder / SEAL) as temporary:
        temporary.write_text(
            "".join(f"{file_digest(path)}  {path.relative_to(folder)}\n" for path in sorted(files))
        )


def verify(folder: Path, *, without: str = "") -> None:
    """Check the files of a sealed folder; names that end in `without` are passed over.

    Raises ValueError naming the file that was changed or is missing. A folder without a seal, one
    that the workflow did not make, is taken as it is.
    """
    if not (folder / SEAL).exists():
        return
    for line in (folder / SEAL).read_text().splitlines():
        digest, _, name = line.partition("  ")
        if without and name.endswith(without):
            continue
        path = folder / name
        if not path.is_file():
            raise damage(path, "it is missing")
        if file_digest(path) != digest:
            raise damage(path, f"it differs from {SEAL}")


def write_json(content: dict[str, Any], path: Path) -> None:
    """A JSON object with the digest of its own content, whole or not at all."""
    content = json.loads(json.dumps(content))  # keys become strings, as they are when read
    sealed = {"sha256": _digest(content)} | content
    with written_whole(path) as temporary:
        temporary.write_text(json.dumps(sealed, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The object that `write_json` wrote; ValueError naming the file if it was changed."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        if content.pop("sha256") == _digest(content):
            return content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise damage(path, "it is not the JSON that was written") from error
    raise damage(path, "its content differs from its sha256")


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
