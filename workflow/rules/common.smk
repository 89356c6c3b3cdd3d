"""What every rule file shares: the checked config, the library, wildcard constraints."""

import re
import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

ROOT = Path(workflow.basedir)
# Snakemake passes its own search path on to scripts, so they find the library without an install.
sys.path.insert(0, str(ROOT / "src"))

from faithful_sae.config import ConfigError, load_config
from faithful_sae.digest import library_digest

try:
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    config = load_config(config, schema, Path.cwd())
except ConfigError as error:
    raise WorkflowError(str(error))


# Until several devices are shared out, one GPU job at a time on a machine that has a GPU.
if list(Path("/proc/driver/nvidia/gpus").glob("*")):
    workflow.global_resources.setdefault("gpu", 1)


def one_of(names):
    """A wildcard pattern that matches these names and nothing else."""
    return "|".join(map(re.escape, names)) or "(?!)"


MODELS = [name for name, model in config["models"].items() if model["hooks"]]
CORPORA = list(config["corpora"])
TASKS = list(config["tasks"])
HOOKS = sorted({hook for model in config["models"].values() for hook in model["hooks"]})
SAES = list(config["saes"])
SEEDS = config["seeds"]


def sources(section, *kinds):
    """Names of the entries of a section whose source is one of these."""
    return [name for name, entry in config[section].items() if entry["source"] in kinds]


wildcard_constraints:
    study=re.escape(config["study"]),
    model=one_of(config["models"]),
    corpus=one_of([*CORPORA, *TASKS, "uniform-tokens"]),
    hook=one_of(HOOKS),
    sae=one_of(SAES),
    seed=one_of(map(str, SEEDS)),
    split="train|heldout|examples",
    shard="[0-9]+",


localrules:
    all,
