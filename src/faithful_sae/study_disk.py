"""Disk for a whole study's activations, asked for before its first job that costs anything."""

from pathlib import Path

from faithful_sae.disk import require_disk, row_bytes
from faithful_sae.entries import Config, corpora_of
from faithful_sae.random_inputs import RANDOM_INPUTS


def require_disk_for_study(folder: Path, d_in: int, config: Config) -> None:
    """Raise OSError when the activations of one model's study will not fit on the disk.

    folder: the model's results; shards already there are not counted again.
    """
    hooks = len(config["models"][folder.name]["hooks"])
    corpora = {c for sae in config["saes"] for c in corpora_of(config, folder.name, sae)}
    size = config["corpus_size"]
    tokens = len(corpora) * (size["train_tokens"] + size["heldout_tokens"])
    tokens += len(RANDOM_INPUTS) * config["evaluations"]["fake_features"]["tokens"]
    planned = hooks * tokens * row_bytes(d_in, config["activations"]["dtype"])
    present = sum(path.stat().st_size for path in folder.glob("*/resid_pre.*/*/shard*.parquet"))
    require_disk(folder, planned - present, "the activations of this study")
