"""Tidy tables as jobs write them: one row per value, coordinates as columns."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from faithful_sae.checksums import damage
from faithful_sae.files import written_whole

COORDINATES = [
    "model", "hook", "sae", "corpus", "corpus_b", "seed", "seed_b", "task", "eval_corpus"
]  # fmt: skip
SEEDS = ["seed", "seed_b"]  # the coordinates that are integers


def with_coordinates(table: pl.DataFrame, coordinates: Mapping[str, Any]) -> pl.DataFrame:
    """The table with a column for each coordinate that it lacks, coordinates first.

    Seeds become integers; `study` is left out, since tables never mix studies.
    """
    given = {
        name: int(value) if name in SEEDS else str(value)
        for name, value in coordinates.items()
        if name in COORDINATES and name not in table.columns
    }
    whole = table.with_columns(pl.lit(value).alias(name) for name, value in given.items())
    first = [name for name in COORDINATES if name in whole.columns]
    seeds = [name for name in SEEDS if name in whole.columns]
    return whole.select(*first, pl.exclude(first)).with_columns(pl.col(seeds).cast(pl.Int64))


def write_parquet(table: pl.DataFrame, path: Path) -> None:
    """Parquet file that is there whole or not at all and carries the digest of its content."""
    with written_whole(path) as temporary:
        table.write_parquet(temporary, metadata={"sha256": _digest(table)})


def read_parquet(path: Path) -> pl.DataFrame:
    """What `write_parquet` wrote; ValueError naming the file if it is damaged."""
    try:
        table = pl.read_parquet(path)
        if pl.read_parquet_metadata(path).get("sha256") == _digest(table):
            return table
    # A damaged footer can name anything, and polars' reader then panics as well as raising.
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise damage(path, str(error).splitlines()[0]) from error
    raise damage(path, "its content differs from its sha256")


def _digest(table: pl.DataFrame) -> str:
    return hashlib.sha256(table.write_csv().encode()).hexdigest()
