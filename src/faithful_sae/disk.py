"""Disk that activations need, estimated before anything is written."""

import shutil
from pathlib import Path

BYTES = {"float16": 2, "bfloat16": 2, "float32": 4}  # per value


def require_disk(folder: Path, n_bytes: int, what: str) -> None:
    """Raise OSError before any work when the disk cannot hold what is planned."""
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise OSError(
            f"{what} need {n_bytes / 1e9:.1f} GB but the disk of {folder} has {free / 1e9:.1f} GB "
            "free; free space, lower corpus_size.train_tokens or choose a narrower "
            "activations.dtype."
        )


def row_bytes(d_in: int, dtype: str) -> int:
    """Bytes of one token in a shard: its activation, and at most 20 of document, position, ..."""
    return d_in * BYTES[dtype] + 20
