"""Exports, made by the target `export`: SAEs for other tools, sampled corpora for a hub.

IN   SAEs, their evaluations, sampled text and its statistics
OUT  results/{study}/export/saes/{model}/{corpus}/{sae}/seed{seed}/   README.md and, named after the
     place as sparsify does, a folder for each hook: layers.7/ for resid_pre.8
     results/{study}/export/corpora/{model}/{corpus}/                 README.md and data/
"""


rule export_sae:
    input:
        saes=of_hooks(SAE),
        reconstruction=lambda wildcards: [
            f"results/{{study}}/{{model}}/{corpus}/{hook}/{{sae}}/reconstruction.parquet"
            for hook in config["models"][wildcards.model]["hooks"]
            for corpus in compared(wildcards)
        ],
        similarity=of_hooks(
            "results/{study}/{model}/{corpus}/{hook}/{sae}/similarity.parquet"
        ),
        fake_features=of_hooks(
            "results/{study}/{model}/{corpus}/{hook}/{sae}/fake_features.parquet"
        ),
        facts="results/{study}/{model}/model.json",
        model=model_folder,
    output:
        directory("results/{study}/export/saes/{model}/{corpus}/{sae}/seed{seed}"),
    log:
        "results/logs/export_sae/{study}/{model}/{corpus}/{sae}/seed{seed}.log",
    wildcard_constraints:
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    params:
        revision=lambda wildcards: model_revision(wildcards.model),
        corpus=lookup(dpath="corpora/{corpus}", within=config),
        context_length=context_length,
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("export_sae"),
    script:
        "../scripts/export_sae.py"


rule export_corpus:
    input:
        shards=expand(
            "results/{study}/{model}/{corpus}/generated/shard{shard}.parquet",
            shard=range(config["shards"]),
            allow_missing=True,
        ),
        statistics="results/{study}/{model}/{corpus}/corpus_statistics.parquet",
        writer=lambda wildcards: model_folder(wildcards, writer(wildcards)),
        reader=model_folder,
        facts=lambda wildcards: f"results/{{study}}/{writer(wildcards)}/model.json",
    output:
        directory("results/{study}/export/corpora/{model}/{corpus}"),
    log:
        "results/logs/export_corpus/{study}/{model}/{corpus}.log",
    wildcard_constraints:
        corpus=one_of(SAMPLED),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        revision=lambda wildcards: model_revision(writer(wildcards)),
        entry=lookup(dpath="corpora/{corpus}", within=config),
        heldout_fraction=lookup(dpath="corpus_size/heldout_fraction", within=config),
        context_length=context_length,
        code=code_digest("export_corpus"),
    script:
        "../scripts/export_corpus.py"
