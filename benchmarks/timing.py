"""What every benchmark shares: taking turns on one thread, and the table that comes out."""

import csv
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
Number = str | int | float


def one_thread() -> None:
    """One thread for everything loaded from here on; call it before importing numpy or torch."""
    for name in ("OMP", "MKL", "OPENBLAS"):
        os.environ[f"{name}_NUM_THREADS"] = "1"
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # as the workflow sets it


def interleaved(
    candidates: Mapping[str, Callable[[], object]], rounds: int = 5
) -> dict[str, float]:
    """Median CPU seconds of each candidate over `rounds` rounds, after one round to warm up.

    Candidates run in turn, so that a busy machine disturbs all alike.
    """
    names = list(candidates)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            start = time.process_time()
            candidates[name]()
            if number:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def cells_of(rows: Sequence[Mapping[str, Number]]) -> list[list[str]]:
    """Header and rows as text; floats keep three significant digits: no timing is good to more."""
    shown = [[f"{v:.3g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows]
    return [list(rows[0]), *shown]


def print_table(cells: Sequence[Sequence[str]]) -> list[str]:
    """Print cells as a Markdown table, and return its lines."""
    head, *rows = cells
    lines = ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]
    print("\n".join(lines), flush=True)
    return lines


def write_table(name: str, rows: Sequence[Mapping[str, Number]]) -> None:
    """Print a table, write results/{name}.csv, and renew the table in README.md.

    There it follows the line `<!-- {name} -->`; a page without that line is an error.
    """
    cells = cells_of(rows)
    lines = print_table(cells)
    RESULTS.mkdir(exist_ok=True)
    with open(RESULTS / f"{name}.csv", "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(cells)
    readme = RESULTS.parent / "README.md"
    before, mark, after = readme.read_text().partition(f"<!-- {name} -->\n")
    if not mark:
        raise ValueError(f"{readme} has no line <!-- {name} --> for this table to follow: add it.")
    rest = after.splitlines(keepends=True)
    while rest and rest[0].startswith("|"):
        del rest[0]
    readme.write_text(before + mark + "\n".join(lines) + "\n" + "".join(rest))
