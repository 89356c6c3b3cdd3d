"""SAEs that others trained: fetch, make what ours are, and check that they are used as trained.

IN   the hub or a local folder, held-out text and activations
OUT  resources/saes/{sae}@{revision}/  as on the hub, checked against its commit
     results/{study}/{model}/pretrained/{hook}/{sae}/seed0/  where a trained SAE would be
     results/{study}/{model}/pretrained/{hook}/{sae}/audit.parquet, {hook}/similarity.parquet
"""


rule fetch_sae:
    output:
        directory("resources/saes/{sae}@{revision}"),
    log:
        "results/logs/fetch_sae/{sae}@{revision}.log",
    wildcard_constraints:
        revision="[0-9a-f]{40}",
    priority: 2  # what can be refused is asked for before anything is computed
    conda:
        "../../envs/torch.yaml"
    params:
        hub=lookup(dpath="saes/{sae}/hub", within=config),
        folder=lookup(dpath="saes/{sae}/folder", within=config),
    script:
        "../scripts/fetch_sae.py"


rule import_sae:
    input:
        folder=lambda wildcards: pretrained_folder(wildcards.sae),
        heldout=heldout,
    output:
        weights="results/{study}/{model}/{corpus}/{hook}/{sae}/seed0/sae_weights.safetensors",
        config="results/{study}/{model}/{corpus}/{hook}/{sae}/seed0/cfg.json",
    log:
        "results/logs/import_sae/{study}/{model}/{corpus}/{hook}/{sae}.log",
    wildcard_constraints:
        corpus=PRETRAINED,
    conda:
        "../../envs/torch.yaml"
    params:
        entry=lambda wildcards: sae_entry(config, wildcards.sae),
        revision=lambda wildcards: pretrained_revision(wildcards.sae),
        positions=config["positions"],
        code=code_digest("import_sae"),
    script:
        "../scripts/import_sae.py"


rule audit_sae:
    input:
        sae=expand(SAE, seed=0, allow_missing=True),
        contexts=lambda wildcards: expand(
            "results/{study}/{model}/{text}/heldout.parquet",
            text=corpora_of(config, wildcards.model, wildcards.sae),
            allow_missing=True,
        ),
        model=model_folder,
    output:
        "results/{study}/{model}/{corpus}/{hook}/{sae}/audit.parquet",
    log:
        "results/logs/audit_sae/{study}/{model}/{corpus}/{hook}/{sae}.log",
    wildcard_constraints:
        corpus=PRETRAINED,
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        corpora=lambda wildcards: corpora_of(config, wildcards.model, wildcards.sae),
        outside=lambda wildcards: [
            corpus
            for corpus in corpora_of(config, wildcards.model, wildcards.sae)
            if corpus not in SAMPLED
        ],
        positions=config["positions"],
        code=code_digest("audit_sae"),
    script:
        "../scripts/audit_sae.py"


rule similarity_of_pretrained:
    input:
        saes=lambda wildcards: expand(
            SAE,
            sae=audited_at(wildcards),
            corpus=PRETRAINED,
            seed=0,
            allow_missing=True,
        ),
        heldout=lambda wildcards: heldout(wildcards, PRETRAINED),
    output:
        "results/{study}/{model}/pretrained/{hook}/similarity.parquet",
    log:
        "results/logs/similarity_of_pretrained/{study}/{model}/{hook}.log",
    benchmark:
        "results/logs/similarity_of_pretrained/{study}/{model}/{hook}.tsv"
    conda:
        "../../envs/torch.yaml"
    params:
        saes=audited_at,
        positions=config["positions"],
        thresholds=lookup(dpath="evaluations/similarity/thresholds", within=config),
        code=code_digest("similarity_of_pretrained"),
    script:
        "../scripts/similarity_of_pretrained.py"
