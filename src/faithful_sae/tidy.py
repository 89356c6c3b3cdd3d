"""Tidy tables as jobs write them: one row per value, coordinates as columns."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from faithful_sae.arrow import read_arrow, write_arrow

COORDINATES = [
    "model", "hook", "sae", "corpus", "corpus_b", "seed", "seed_b", "task", "eval_corpus",
    "probe_seed",
]  # fmt: skip
SEEDS = ["seed", "seed_b", "probe_seed"]  # the coordinates that are integers


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
    """Parquet file that is there whole or not at all and carries digests."""
    write_arrow(table.to_arrow(), path)


def read_parquet(path: Path) -> pl.DataFrame:
    """What `write_parquet` wrote; ValueError naming the file if it is damaged.

    Not by polars' own reader: a damaged footer can make it abort the process.
    """
    return pl.DataFrame(pl.from_arrow(read_arrow(path)))
