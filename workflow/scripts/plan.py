"""Print what the next run of the study will do and cost; nothing is run."""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from faithful_sae.plan import gated_models, machine_of, plan, read_dry_run, sizes_of_outputs
from faithful_sae.plan_text import plan_text
from faithful_sae.shapes import known_shapes
from faithful_sae.study_sizes import Study

params, resources, config = snakemake.params, snakemake.resources, snakemake.config
data = Path(params.data)
models, downloads, hardware = (
    yaml.safe_load((data / f"{name}.yaml").read_text())
    for name in ("models", "downloads", "hardware")
)
machine = machine_of(hardware, resources.hardware, resources.devices, resources.cores)
with tempfile.TemporaryDirectory() as folder:
    configfile = Path(folder, "config.json")
    configfile.write_text(json.dumps(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", params.snakefile, "--dry-run"]
    command += ["--nocolor", "--configfile", str(configfile), *params.software]
    listed = subprocess.run(command, capture_output=True, text=True)
if listed.returncode:
    sys.exit(listed.stderr)
jobs = read_dry_run(listed.stdout)
folders = {model: Path(folder) for model, folder in params.folders.items()}
shapes = known_shapes(config["models"], folders, models)
study = Study(config, shapes, downloads, machine.rates["device"])
found = plan(jobs, sizes_of_outputs(jobs), study, machine)
gated = gated_models(jobs, config["models"], models)
text = plan_text(found, machine, shutil.disk_usage(".").free, gated)
Path(snakemake.log[0]).write_text(text + "\n")
sys.stdout.write("\n" + text + "\n\n")
