"""benchmarks/README.md shows the tables that the benchmarks wrote, and names every script."""

import csv
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
README = (BENCHMARKS / "README.md").read_text()
SCRIPTS = sorted(p.name for p in BENCHMARKS.glob("*.py") if p.name != "timing.py")
TABLES = sorted(p.stem for p in (BENCHMARKS / "results").glob("*.csv"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_explained(script):
    assert f"benchmarks/{script}" in README


@pytest.mark.parametrize("table", TABLES)
def test_every_table_is_the_one_that_a_run_wrote(table):
    with open(BENCHMARKS / "results" / f"{table}.csv", newline="") as file:
        head, *rows = csv.reader(file)
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    _, mark, after = README.partition(f"<!-- {table} -->\n")
    assert mark, f"benchmarks/README.md has no table {table}"
    shown = after.splitlines()
    end = next((i for i, line in enumerate(shown) if not line.startswith("|")), len(shown))
    assert shown[:end] == lines


def test_a_new_table_takes_the_place_of_the_old_one(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import timing

    monkeypatch.setattr(timing, "RESULTS", tmp_path / "results")
    page = "before\n\n<!-- speed -->\n{}\nafter\n"
    for old in ("", "| was |\n| --- |\n| 1 |\n"):
        (tmp_path / "README.md").write_text(page.format(old))
        timing.write_table("speed", [{"what": "x", "s": 0.12345}])
        table = "| what | s |\n| --- | --- |\n| x | 0.123 |\n"
        assert (tmp_path / "README.md").read_text() == page.format(table)
    assert (tmp_path / "results/speed.csv").read_text() == "what,s\nx,0.123\n"
