"""Gathering tidy tables: order of jobs, mixed files, numbers that survive a CSV."""

import math
import random

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.tables import gather, read_csv, write_csv
from faithful_sae.tidy import COORDINATES, SEEDS, write_parquet

ROWS = pl.DataFrame(
    {
        "corpus": ["faithful", "code", "code", "faithful"],
        "seed": [1, 0, 1, 0],
        "metric": ["fvu", "fvu", "fvu", "fvu"],
        "value": [0.4, 0.3, 0.2, 0.1],
    }
)


def _written(folder, tables):
    paths = [folder / f"{i}.parquet" for i in range(len(tables))]
    for path, table in zip(paths, tables, strict=True):
        write_parquet(table, path)
    return paths


def test_gathered_rows_do_not_depend_on_the_order_of_jobs(tmp_path):
    paths = _written(tmp_path, [ROWS[i] for i in range(4)])
    expected = gather(paths)
    for shuffle in range(5):
        random.Random(shuffle).shuffle(paths)
        assert gather(paths).equals(expected)
    assert expected["value"].to_list() == [0.3, 0.2, 0.1, 0.4]


def test_value_is_the_last_sort_key_wherever_its_column_stands(tmp_path):
    moved = ROWS.select("value", "corpus", "seed", "metric")
    assert (
        gather(_written(tmp_path, [moved]))["corpus"].to_list() == ["code"] * 2 + ["faithful"] * 2
    )


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (ROWS.drop("metric"), "metric"),
        (ROWS.with_columns(extra=1), "extra"),
        (ROWS.with_columns(pl.col("seed").cast(pl.Float64)), "seed"),
    ],
)
def test_a_file_with_other_columns_is_named_with_the_column(tmp_path, other, named):
    paths = _written(tmp_path, [ROWS, ROWS, other])
    with pytest.raises(ValueError, match=rf"2\.parquet.*{named}"):
        gather(paths)


def test_nothing_to_gather_is_an_error():
    with pytest.raises(ValueError, match="no table to gather"):
        gather([])


@given(values=st.lists(st.floats(allow_nan=False), min_size=1, max_size=20))
def test_floats_come_back_from_csv_bit_for_bit(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    write_csv(pl.DataFrame({"value": values}, schema={"value": pl.Float64}), path)
    back = read_csv(path)["value"].to_list()
    assert [value.hex() for value in back] == [value.hex() for value in values]


def test_csv_tells_missing_from_not_a_number_and_from_empty_text(tmp_path):
    table = pl.DataFrame(
        {"corpus": ["", "code"], "k": [None, 5], "value": [math.nan, None]},
        schema={"corpus": pl.String, "k": pl.Int64, "value": pl.Float64},
    )
    write_csv(table, tmp_path / "table.csv")
    assert read_csv(tmp_path / "table.csv").equals(table, null_equal=True)


def test_names_that_look_like_numbers_stay_text_and_seeds_stay_integers(tmp_path):
    names = [name for name in COORDINATES if name not in SEEDS]
    table = pl.DataFrame({name: ["2024", "007"] for name in names} | {s: [0, 1] for s in SEEDS})
    write_csv(table, tmp_path / "table.csv")
    assert read_csv(tmp_path / "table.csv").equals(table)
    write_csv(table.clear(), tmp_path / "empty.csv")
    assert read_csv(tmp_path / "empty.csv").schema == table.schema


@given(text=st.text(st.characters(codec="utf-8"), max_size=8))
def test_any_token_text_comes_back_from_csv(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("csv") / "table.csv"
    table = pl.DataFrame({"token": [1], "text": [text]})
    write_csv(table, path)
    assert read_csv(path).equals(table)


def test_a_failed_csv_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    write_csv(ROWS, path)
    before = path.read_bytes()
    with pytest.raises(pl.exceptions.ComputeError):
        write_csv(pl.DataFrame({"nested": [[1, 2]]}), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
