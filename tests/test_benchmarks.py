"""benchmarks/README.md shows the tables that the benchmarks wrote, and names every script."""

import ast
import csv
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
README = (BENCHMARKS / "README.md").read_text()
SCRIPTS = sorted(p.name for p in BENCHMARKS.glob("*.py") if p.name != "timing.py")
TABLES = sorted(p.stem for p in (BENCHMARKS / "results").glob("*.csv"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_every_script_is_explained(script):
    assert f"benchmarks/{script}" in README


def test_make_bench_runs_every_script_but_those_that_need_a_gpu_or_a_finished_clone():
    makefile = (ROOT / "Makefile").read_text()
    lists = re.findall(r"^BENCHMARKS\w* := (.*)$", makefile, flags=re.M)
    assert sorted(f"{name}.py" for line in lists for name in line.split()) == [
        script for script in SCRIPTS if script not in ("cuda_step.py", "plan.py", "study.py")
    ]


@pytest.mark.parametrize("script", SCRIPTS)
def test_what_a_script_imports_is_defined_there(script):
    for node in ast.walk(ast.parse((BENCHMARKS / script).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faithful_sae."):
            source = ast.parse((ROOT / "src" / (node.module.replace(".", "/") + ".py")).read_text())
            defined = {
                name
                for statement in source.body
                for name in [getattr(statement, "name", None)]
                + [getattr(target, "id", None) for target in getattr(statement, "targets", [])]
            }
            assert {alias.name for alias in node.names} <= defined, node.module


def test_peers_are_measured_beside_the_versions_that_the_project_pins():
    pins = dict(
        line.split("==") for line in (BENCHMARKS / "peers.txt").read_text().split() if "==" in line
    )
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    ours = dict(line.split("==") for line in project)
    assert {name: ours[name] for name in pins.keys() & ours.keys()} == {
        name: pins[name] for name in pins.keys() & ours.keys()
    }


def test_the_page_has_a_place_for_every_table_and_shows_none_that_no_run_wrote():
    places = re.findall(r"^<!-- (\w+) -->\n(\|)?", README, flags=re.M)
    assert sorted(name for name, _ in places) == [script.removesuffix(".py") for script in SCRIPTS]
    assert {name for name, table in places if table} == set(TABLES)


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
