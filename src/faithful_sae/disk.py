"""Disk that activations need, estimated before anything is written."""

import shutil
from pathlib import Path
from typing import Any

from faithful_sae.random_inputs import RANDOM_INPUTS

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


def require_disk_for_study(folder: Path, d_in: int, config: dict[str, Any]) -> None:
    """Raise OSError when the activations of one model's study will not fit on the disk.

    folder: the model's results; shards already there are not counted again.
    """
    model = config["models"][folder.name]
    hooks, corpora = len(model["hooks"]), model["corpora"] or config["corpora"]
    size = config["corpus_size"]
    tokens = len(corpora) * (size["train_tokens"] + size["heldout_tokens"])
    tokens += len(RANDOM_INPUTS) * config["evaluations"]["fake_features"]["tokens"]
    planned = hooks * tokens * row_bytes(d_in, config["activations"]["dtype"])
    present = sum(path.stat().st_size for path in folder.glob("*/resid_pre.*/*/shard*.parquet"))
    require_disk(folder, planned - present, "the activations of this study")


def row_bytes(d_in: int, dtype: str) -> int:
    """Bytes of one token in a shard: its activation, and at most 20 of document, position, ..."""
    return d_in * BYTES[dtype] + 20
