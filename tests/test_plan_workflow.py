"""`snakemake plan` as typed: of the default study beside its measurement, and of the paper's."""

import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.workflow
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "MB": 1, "GB": 1e3, "TB": 1e6}


def planned(folder: Path, config: str, *resources: str) -> str:
    """What a plan of this study prints where nothing of it is there."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    command += ["--directory", str(folder), "--configfile", str(ROOT / config), "--cores", "1"]
    command += ["plan", "--set-resources", *resources]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not (folder / "results" / "tables").exists()
    return done.stdout


def amount(text: str, pattern: str) -> float:
    """The number and unit that the pattern's group finds, in seconds or MB."""
    number, unit = re.search(pattern.replace("#", r"([\d.]+) (\w+)"), text).groups()
    return float(number) * UNITS[unit]


def test_the_plan_of_the_default_study_is_near_what_it_took(tmp_path):
    text = planned(tmp_path, "config.yaml", "plan:cores=2")
    table = pl.read_csv(ROOT / "benchmarks/results/plan.csv")
    measured = dict(table.select("what", "measured").iter_rows())
    wall = amount(text, r"Time +about #") / measured["the study, wall, s"]
    assert 1 / 2 < wall < 2
    assert amount(text, r"Disk +# kept") / measured["disk, MB"] == pytest.approx(1, abs=0.1)
    assert "UNKNOWN" not in text and "again" in text
    assert (tmp_path / "results/logs/plan/demo.log").read_text().strip() in text


def test_the_paper_is_planned_without_a_network_and_fits_its_device(tmp_path):
    text = planned(tmp_path, "workflow/studies/paper.yaml", "plan:hardware=h100", "plan:cores=16")
    jobs = dict(re.findall(r"^(\w+) +(\d+) ", text, flags=re.M))
    corpora = 4 + 6 * 3
    assert int(jobs["train_sae"]) == corpora * 3
    assert int(jobs["fetch_model"]) == 7 and int(jobs["fetch_dataset"]) == 3 + 3
    assert int(jobs["probing_baselines"]) == 7
    assert "WARNING The disk is too small" in text
    assert "holds" not in text  # no job exceeds 80 GB
    assert re.findall("UNKNOWN (.*?):", text) == [
        "fancyzhx/yelp_polarity/plain_text/test-00000-of-00001.parquet"
    ]
    (gated,) = re.findall("GATED .* licences of (.*) and set HF_TOKEN", text)
    assert len(gated.split(", ")) == 4 and "google/gemma-2-2b" in gated
    assert float(re.search(r"([\d.]+) GPU-hours", text).group(1)) > 10
