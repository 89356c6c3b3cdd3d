"""Wheels as archives: their members are read in place, never extracted or installed."""

import difflib
import zipfile
from pathlib import Path


def read_member(archive: Path, member: str) -> bytes:
    """The bytes of one file inside a wheel or zip."""
    try:
        with zipfile.ZipFile(archive) as opened:
            if member in (names := opened.namelist()):
                return opened.read(member)
    except FileNotFoundError:
        raise
    except Exception as error:  # what a damaged directory makes zipfile raise depends on the byte
        raise ValueError(f"{archive} is damaged, or is no wheel or zip: {error}") from error
    nearest = difflib.get_close_matches(member, names, n=3, cutoff=0)
    raise ValueError(f"{archive} has no member {member!r}; the nearest are: {', '.join(nearest)}")
