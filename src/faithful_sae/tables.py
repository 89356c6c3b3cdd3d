"""Gathering the tidy tables that jobs write, one Parquet each, into one table per kind."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from faithful_sae.checksums import SEAL, verify
from faithful_sae.files import written_whole
from faithful_sae.tidy import COORDINATES, SEEDS, read_parquet

CSV_TYPES: dict[str, Any] = {
    **dict.fromkeys(["value", "threshold", "frequency", "mean", "low", "high"], pl.Float64),
    # A corpus may be called 2024, a token may be a digit.
    **dict.fromkeys([*COORDINATES, "metric", "text"], pl.String),
    **dict.fromkeys([*SEEDS, "k"], pl.Int64),
}


def gather(paths: Sequence[Path]) -> pl.DataFrame:
    """All rows of several tidy Parquet files of one kind, in an order that depends on rows alone.

    Rows are sorted by every column from left to right, `value` last, so neither the order of
    `paths` nor that of the jobs shows. Raises ValueError for no path, and for a file whose
    columns or types differ from those of the first.
    """
    if not paths:
        raise ValueError("no table to gather: give at least one Parquet file")
    tables = [read_parquet(path) for path in paths]
    for path, table in zip(paths[1:], tables[1:], strict=True):
        _require_same_columns(path, table, paths[0], tables[0])
    whole = pl.concat([table.select(tables[0].columns) for table in tables])
    return whole.sort(sorted(whole.columns, key=lambda name: name == "value"))


def read_csv(path: Path) -> pl.DataFrame:
    """A gathered table with the types it was written with, whatever names and gaps it holds."""
    return pl.read_csv(path, schema_overrides=CSV_TYPES, infer_schema_length=None)


def read_tables(paths: Sequence[Path]) -> dict[str, pl.DataFrame]:
    """Gathered tables by name, checked against the SHA256SUMS among the paths.

    Raises ValueError naming the table that was changed.
    """
    tables = [path for path in paths if path.name != SEAL]
    for seal in set(paths) - set(tables):
        verify(seal.parent, *(path for path in tables if path.parent == seal.parent))
    return {path.stem: read_csv(path) for path in tables}


def write_csv(table: pl.DataFrame, path: Path) -> None:
    """CSV file that is there whole or not at all; floats have the digits to be read back exactly.

    A missing value is an empty field, not-a-number is NaN.
    """
    with written_whole(path) as temporary:
        table.write_csv(temporary)


def _require_same_columns(
    path: Path, table: pl.DataFrame, first_path: Path, first: pl.DataFrame
) -> None:
    found, expected = dict(table.schema), dict(first.schema)
    if found == expected:
        return
    differing = [
        f"{name} ({found.get(name, 'missing')} instead of {expected.get(name, 'no such column')})"
        for name in sorted(found.keys() | expected.keys())
        if found.get(name) != expected.get(name)
    ]
    raise ValueError(
        f"{path} does not match {first_path} in {', '.join(differing)}: "
        "gather tables of one kind, written by one version of the workflow"
    )
