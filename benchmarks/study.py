"""Two finished runs of the default study, rule by rule: what a change of the code saved.

    git clone . /tmp/before && cd /tmp/before && git checkout COMMIT && make run    # likewise after
    python benchmarks/study.py /tmp/before /tmp/after

Reads what Snakemake measured of every job, wall and CPU seconds, and its own report of the whole.
Run one after the other on an otherwise idle machine, with the archives already downloaded.
"""

import sys
from collections import defaultdict
from pathlib import Path

import polars as pl
from timing import write_table


def seconds(clone: Path) -> dict[str, tuple[int, float, float]]:
    """Rule -> (jobs, wall, CPU seconds); `the study` is wall time from Snakemake's log."""
    logs, jobs = clone / "results/logs", defaultdict(list)
    for table in logs.rglob("*.tsv"):
        row = pl.read_csv(table, separator="\t", null_values=["-", "NA"]).row(0, named=True)
        jobs[table.relative_to(logs).parts[0]].append((row["s"], row["cpu_time"] or 0.0))
    return {
        rule: (len(rows), sum(s for s, _ in rows), sum(cpu for _, cpu in rows))
        for rule, rows in jobs.items()
    }


def elapsed(clone: Path) -> float:
    """Wall seconds of the longest run of Snakemake in this clone."""
    found = []
    for log in (clone / ".snakemake/log").glob("*.snakemake.log"):
        for line in log.read_text().splitlines():
            if line.startswith("Elapsed time: "):
                hours, minutes, rest = line.removeprefix("Elapsed time: ").split(":")
                found.append(3600 * int(hours) + 60 * int(minutes) + float(rest))
    return max(found)


def main() -> None:
    before, after = map(Path, sys.argv[1:])
    old, new = seconds(before), seconds(after)
    rows = [
        {
            "rule": rule,
            "jobs": new[rule][0],
            "wall before, s": old[rule][1],
            "wall after, s": new[rule][1],
            "CPU before, s": old[rule][2],
            "CPU after, s": new[rule][2],
            "wall before / after": old[rule][1] / new[rule][1],
        }
        for rule in sorted(new, key=lambda rule: -new[rule][1])
    ]
    wall = elapsed(before), elapsed(after)
    total = {"rule": "the study", "jobs": "-", "wall before, s": wall[0], "wall after, s": wall[1]}
    none = {"CPU before, s": "-", "CPU after, s": "-"}
    rows.append(total | none | {"wall before / after": wall[0] / wall[1]})
    write_table("study", rows)


if __name__ == "__main__":
    main()
