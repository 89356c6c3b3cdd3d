"""Digests that files carry, so that damage is found when they are read, not in a result."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from faithful_sae.files import files_below, written_whole

SEAL = "SHA256SUMS"  # as `sha256sum --check` reads it


def damage(path: Path, reason: str, folder: Path | None = None) -> ValueError:
    """What to raise for a damaged file; `folder`: the rule's output, if that is not the file."""
    what = f"the folder {folder}" if folder else "it"
    return ValueError(f"{path} is damaged ({reason}); delete {what} and run again to make it anew.")


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, in hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path, *files: Path) -> None:
    """Write the digests of files in the folder, of all if none is named, for `verify`."""
    files = files or tuple(path for path in files_below(folder) if path != folder / SEAL)
    with written_whole(folder / SEAL) as temporary:
        temporary.write_text(
            "".join(f"{file_digest(path)}  {path.relative_to(folder)}\n" for path in sorted(files))
        )


def verify(folder: Path, *files: Path, without: str = "") -> None:
    """Check files of a sealed folder, all if none is named; those that end in `without` are not.

    Raises ValueError naming the file that was changed, is missing or was not there when the folder
    was sealed. A folder without a seal, one that the workflow did not make, is taken as it is.
    """
    if not (folder / SEAL).exists():
        return
    whole = None if files else folder
    sealed = _read_seal(folder, whole)
    paths = set(files) or {*files_below(folder), *(folder / name for name in sealed)}
    for path in sorted(paths - {folder / SEAL}):
        name = str(path.relative_to(folder))
        if without and name.endswith(without):
            continue
        if not path.is_file():
            raise damage(path, f"it is missing beside {SEAL}", whole)
        if name not in sealed:
            raise damage(path, f"{SEAL} does not list it", whole)
        if file_digest(path) != sealed[name]:
            raise damage(path, f"it differs from {SEAL}", whole)


def _read_seal(folder: Path, whole: Path | None) -> dict[str, str]:
    """Digest of each file that a seal lists, by its path in the folder."""
    try:
        lines = (folder / SEAL).read_text().removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise damage(folder / SEAL, "it is no text", whole) from error
    sealed = {}
    for line in filter(None, lines):
        digest, _, name = line.partition("  ")
        if not (re.fullmatch("[0-9a-f]{64}", digest) and name):
            raise damage(folder / SEAL, f"it holds {line!r}", whole)
        sealed[name] = digest
    return sealed


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
