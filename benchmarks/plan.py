"""What a plan of the default study says, beside what the study took.

    git clone . /tmp/clone && cd /tmp/clone && make run   # two idle cores, archives there
    python benchmarks/plan.py /tmp/clone

Reads what Snakemake measured of every job and of the whole, and what the clone's results and
resources take on the disk. Plans the default study of this repository with the same rates.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from study import elapsed, seconds
from timing import write_table

from faithful_sae.config import load_config
from faithful_sae.plan import Machine, plan, read_dry_run
from faithful_sae.shapes import known_shapes
from faithful_sae.study_sizes import Study

ROOT = Path(__file__).parents[1]
CORES = 2


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def main() -> None:
    clone = Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as empty:
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
        command += ["--configfile", str(ROOT / "config.yaml"), "--directory", empty, "--dry-run"]
        listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    config = load_config(read("config.yaml"), read("workflow/schemas/config.schema.yaml"), ROOT)
    rates = read("workflow/plan/hardware.yaml")["cpu"]
    machine = Machine("cpu", rates, rates, 0, CORES)
    folders = {model: Path("not here") for model in config["models"]}
    shapes = known_shapes(config["models"], folders, read("workflow/plan/models.yaml"))
    study = Study(config, shapes, read("workflow/plan/downloads.yaml"), "cpu")
    jobs = read_dry_run(listed)
    made = plan([job for job in jobs if job.rule != "fetch_archive"], {}, study, machine)
    kept = plan(jobs, {}, study, machine).kept
    planned = {row.rule: row.seconds for row in made.rows}
    measured = {rule: wall for rule, (_, wall, _) in seconds(clone).items()}
    study_name = clone / "results" / config["study"]
    disk = sum(
        file.stat().st_size
        for folder in (study_name, clone / "resources")
        for file in folder.rglob("*")
        if file.is_file()
    )
    pairs = [(f"{rule}, s", measured[rule], planned[rule]) for rule in planned if rule in measured]
    pairs += [
        ("the study, wall, s", elapsed(clone), made.wall),
        ("disk, MB", disk / 1e6, kept / 1e6),
    ]
    write_table(
        "plan",
        [
            {"what": what, "measured": found, "planned": said, "planned / measured": said / found}
            for what, found, said in pairs
        ],
    )


if __name__ == "__main__":
    main()
