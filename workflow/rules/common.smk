"""What the workflow's other files share: checked config, names, settings of jobs, constraints."""

import os
import re
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import yaml
from snakemake import __version__ as SNAKEMAKE_VERSION
from snakemake.exceptions import WorkflowError


def repository():
    """The folder that this workflow's files lie in, also when it is a module of another workflow.

    Of a module that comes from a git host, Snakemake keeps a clone without files and reads rules and
    scripts out of it one by one. Python cannot, so the rest is laid out inside the clone, once.
    """
    here = workflow.current_basedir
    if here.is_local:
        return Path(here.get_path_or_uri(secret_free=True)).parents[1]
    clone = here.hosted_repo.repo
    folder = Path(clone.git_dir, "files", clone.commit(here.ref).hexsha)
    folder.parent.mkdir(exist_ok=True)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=folder.parent) as temporary:
            packed, files = f"{temporary}/files.tar", f"{temporary}/files"
            clone.git.archive(folder.name, "src", "workflow", output=packed)
            # No `filter`: Python 3.11.2 lacks it, and git packs no path that leads out of the folder.
            shutil.unpack_archive(packed, files)
            with suppress(OSError):  # another job has just laid them out
                os.rename(files, folder)
    return folder


ROOT = repository()
# Snakemake passes its own search path on to scripts, so they find the library without an install.
sys.path.insert(0, str(ROOT / "src"))

from faithful_sae.checksums import file_digest, read_json
from faithful_sae.config import check_model, load_config
from faithful_sae.devices import gpus
from faithful_sae.digest import folder_stamp, script_digest
from faithful_sae.entries import (
    audited_model,
    corpora_of,
    corpus_size_of,
    model_entry,
    sae_entry,
    saes_of,
    trained,
)
from faithful_sae.names import PRETRAINED, SNAKEMAKE_PID
from faithful_sae.random_inputs import RANDOM_INPUTS, UNIFORM
from faithful_sae.shown import shown
from faithful_sae.verdicts import suspicions

try:
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    config = load_config(config, schema, Path.cwd())
    FEATURES = shown(config)  # what their page shows
    for facts in Path("results", config["study"]).glob("*/model.json"):
        if facts.parent.name in config["models"]:
            check_model(config, read_json(facts))
except ValueError as error:
    raise WorkflowError(str(error))


# A job computes on one thread unless --set-threads says otherwise. Snakemake tells torch, numpy and
# pyarrow; these two have pools of their own.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Large pages spare jobs the page faults of large tensors: a third of the time of a softmax over the
# vocabulary, 4 % of sampling.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

# A job that outlives this process keeps its state, since nobody notes that it is done.
os.environ[SNAKEMAKE_PID] = str(os.getpid())

# As many GPU jobs at a time as there are devices, each of which claims one (devices.py). Without a
# device, and where a scheduler gives them out, nothing is limited here.
if gpus() and workflow.local_exec:
    workflow.global_resources.setdefault("gpu", len(gpus()))


# Run where snakemake does, also on a cluster: what needs the network, which its nodes may lack, and
# what takes seconds.
localrules:
    all,
    export,
    fetch_archive,
    fetch_model,
    fetch_dataset,
    fetch_sae,
    link_model,
    describe_model,
    summarise,
    draw_figures,
    provenance,
    features,
    plan,


onstart:
    # Who forces jobs wants them from zero, not from where killed ones stood. Another study's jobs,
    # which may be running beside this one, keep theirs.
    forced = workflow.dag_settings
    for name in {known.name for known in workflow.rules}:
        if forced.forceall or name in forced.forcerun:
            shutil.rmtree(Path("state", name, config["study"]), ignore_errors=True)


onsuccess:
    # A study that audits nothing may still have the table of when it did.
    audit = Path("results", config["study"], "tables/audit.csv")
    for suspicion in suspicions(audit) if AUDITED else []:
        logger.warning(f"Suspect: {suspicion}.")


def code_digest(rule):
    """Digest of the script of a rule, and of all that it imports from the library."""
    return script_digest(ROOT / f"workflow/scripts/{rule}.py")


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


# A study is about language models or about models of known features, never about both.
KNOWN = sources("models", "known_features")
LANGUAGE_MODELS = [name for name in config["models"] if name not in KNOWN]
if KNOWN:
    RANDOM_INPUTS = [UNIFORM]  # the others are made from text

STUDIED = [
    {"model": model, "hook": hook, "sae": sae, "corpus": corpus}
    for model in MODELS
    for hook in config["models"][model]["hooks"]
    for sae in sources("saes", "trained")
    for corpus in corpora_of(config, model, sae)
]
# An SAE that was trained elsewhere takes the place of one seed, of a corpus that is not here.
AUDITED = [
    {
        "model": audited_model(config, sae),
        "hook": config["saes"][sae]["hook"],
        "sae": sae,
        "corpus": PRETRAINED,
    }
    for sae in sources("saes", "pretrained")
]
# Where text is read: by a pretrained SAE all that its model is studied on.
READ = STUDIED + [
    group | {"corpus": corpus}
    for group in AUDITED
    for corpus in corpora_of(config, group["model"], group["sae"])
]


def caption(name):
    return f"../report/{name}.rst"


wildcard_constraints:
    study=re.escape(config["study"]),
    model=one_of(config["models"]),
    corpus=one_of([*CORPORA, *TASKS, *RANDOM_INPUTS, PRETRAINED]),
    hook=one_of(HOOKS),
    sae=one_of(SAES),
    seed=one_of(map(str, SEEDS)),
    split="train|heldout|examples",
    shard="[0-9]+",
