"""Coordinates of tidy tables, and files that are there whole or not at all."""

import polars as pl
import pytest

from faithful_sae.files import written_whole
from faithful_sae.prepare import link_model
from faithful_sae.tidy import COORDINATES, with_coordinates, write_parquet

TABLE = pl.DataFrame({"metric": ["l0", "fvu"], "value": [1.0, 2.0]})
GIVEN = {"study": "demo", "seed": "3", "sae": "topk", "corpus": "code", "model": "m", "hook": "h"}


def test_coordinates_come_first_in_their_order_and_study_is_left_out():
    table = with_coordinates(TABLE, GIVEN)
    assert table.columns == ["model", "hook", "sae", "corpus", "seed", "metric", "value"]
    assert table.columns[:5] == [name for name in COORDINATES if name in GIVEN]
    assert table.row(1) == ("m", "h", "topk", "code", 3, "fvu", 2.0)


def test_seeds_are_integers_and_names_are_text():
    numbered = TABLE.with_columns(seed_b=pl.lit(1, pl.Int32), eval_corpus=pl.lit("wiki"))
    table = with_coordinates(numbered, {"seed": "0", "model": 7})
    assert with_coordinates(TABLE, {"seed_b": "4"})["seed_b"].to_list() == [4, 4]
    assert table.schema["seed"] == table.schema["seed_b"] == pl.Int64
    assert table.schema["model"] == table.schema["eval_corpus"] == pl.String


def test_a_column_that_the_table_has_is_kept():
    table = with_coordinates(TABLE.with_columns(seed=pl.Series([5, 6])), GIVEN)
    assert table["seed"].to_list() == [5, 6]


def test_a_table_without_seeds_needs_none():
    assert with_coordinates(TABLE, {"model": "m"}).columns == ["model", "metric", "value"]


def test_an_empty_table_gets_its_coordinate_columns():
    table = with_coordinates(TABLE.clear(), GIVEN)
    assert table.is_empty() and table.schema["seed"] == pl.Int64 and "model" in table.columns


def test_order_does_not_depend_on_that_of_the_coordinates():
    backwards = dict(reversed(GIVEN.items()))
    assert with_coordinates(TABLE, GIVEN).equals(with_coordinates(TABLE, backwards))


def test_a_written_table_comes_back_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "table.parquet"
    write_parquet(TABLE, path)
    assert pl.read_parquet(path).equals(TABLE)
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "out.txt"
    for existing in ([], [path]):
        with pytest.raises(error), written_whole(path) as temporary:
            temporary.write_text("half")
            assert list(tmp_path.glob("*.txt")) == existing  # not under its name yet
            raise error
        assert list(tmp_path.iterdir()) == existing
        path.write_text("old")
    assert path.read_text() == "old"


def test_forgetting_to_write_is_an_error_and_keeps_the_old_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), written_whole(path):
        pass
    assert [f.name for f in tmp_path.iterdir()] == ["out.txt"] and path.read_text() == "old"


def test_what_a_killed_run_left_is_cleared_by_the_next(tmp_path):
    path = tmp_path / "out.txt"
    with written_whole(path) as temporary:
        temporary.write_text("first")
    temporary.parent.mkdir()  # as a killed run leaves it
    temporary.write_text("half")
    with written_whole(path) as temporary:
        temporary.write_text("whole")
    assert list(tmp_path.iterdir()) == [path] and path.read_text() == "whole"


def test_a_new_file_has_the_users_usual_permissions(tmp_path):
    with written_whole(tmp_path / "ours") as temporary:
        temporary.write_text("")
    (tmp_path / "usual").write_text("")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_folder_of_links_shows_the_files_without_copying_them(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_text("1")
    link_model(tmp_path / "model", tmp_path / "links")
    assert (tmp_path / "links" / "weights").is_symlink()
    assert (tmp_path / "links" / "weights").read_text() == "1"
