"""Evaluate SAEs, all seeds of a group in one job, on held-out text.

IN   results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/ and activations
OUT  one tidy Parquet per job, below results/{study}/{model}/{corpus}/{hook}/{sae}/
"""


rule reconstruction:
    # {corpus} is the corpus evaluated on; the SAEs of all training corpora are evaluated at once,
    # so that the model's own pass over the text is made once.
    input:
        saes=lambda wildcards: expand(
            SAE, corpus=compared(wildcards), seed=seeds(wildcards), allow_missing=True
        ),
        contexts="results/{study}/{model}/{corpus}/heldout.parquet",
        activations=activations("heldout"),
        model=model_folder,
    output:
        "results/{study}/{model}/{corpus}/{hook}/{sae}/reconstruction.parquet",
    log:
        "results/logs/reconstruction/{study}/{model}/{corpus}/{hook}/{sae}.log",
    benchmark:
        "results/logs/reconstruction/{study}/{model}/{corpus}/{hook}/{sae}.tsv"
    wildcard_constraints:
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        saes=lambda wildcards: [
            (c, seed) for c in compared(wildcards) for seed in seeds(wildcards)
        ],
        positions=config["positions"],
        ce_tokens=lookup(dpath="evaluations/reconstruction/ce_tokens", within=config),
        code=code_digest("reconstruction"),
    script:
        "../scripts/reconstruction.py"


rule similarity:
    input:
        saes=saes,
        activations=heldout,
    output:
        "results/{study}/{model}/{corpus}/{hook}/{sae}/similarity.parquet",
    log:
        "results/logs/similarity/{study}/{model}/{corpus}/{hook}/{sae}.log",
    benchmark:
        "results/logs/similarity/{study}/{model}/{corpus}/{hook}/{sae}.tsv"
    wildcard_constraints:
        corpus=one_of([*CORPORA, PRETRAINED]),
    conda:
        "../../envs/torch.yaml"
    params:
        seeds=seeds,
        positions=config["positions"],
        thresholds=lookup(dpath="evaluations/similarity/thresholds", within=config),
        code=code_digest("similarity"),
    script:
        "../scripts/similarity.py"


rule similarity_between_corpora:
    input:
        saes=lambda wildcards: expand(
            SAE, corpus=compared(wildcards), seed=seeds(wildcards), allow_missing=True
        ),
        activations=lambda wildcards: [
            path
            for corpus in compared(wildcards)
            for path in activations("heldout", corpus)
        ],
    output:
        "results/{study}/{model}/between-corpora/{hook}/{sae}/similarity.parquet",
    log:
        "results/logs/similarity_between_corpora/{study}/{model}/{hook}/{sae}.log",
    benchmark:
        "results/logs/similarity_between_corpora/{study}/{model}/{hook}/{sae}.tsv"
    conda:
        "../../envs/torch.yaml"
    params:
        saes=lambda wildcards: [
            (c, seed) for c in compared(wildcards) for seed in seeds(wildcards)
        ],
        corpora=compared,
        positions=config["positions"],
        thresholds=lookup(dpath="evaluations/similarity/thresholds", within=config),
        code=code_digest("similarity_between_corpora"),
    script:
        "../scripts/similarity_between_corpora.py"


rule fake_features:
    input:
        saes=saes,
        random=[path for name in RANDOM_INPUTS for path in activations("heldout", name)],
        heldout=heldout,
    output:
        fake_features="results/{study}/{model}/{corpus}/{hook}/{sae}/fake_features.parquet",
        # One row per latent: too large to gather.
        firing_frequencies="results/{study}/{model}/{corpus}/{hook}/{sae}/firing_frequencies.parquet",
        firing_histogram="results/{study}/{model}/{corpus}/{hook}/{sae}/firing_histogram.parquet",
    log:
        "results/logs/fake_features/{study}/{model}/{corpus}/{hook}/{sae}.log",
    benchmark:
        "results/logs/fake_features/{study}/{model}/{corpus}/{hook}/{sae}.tsv"
    wildcard_constraints:
        corpus=one_of([*CORPORA, PRETRAINED]),
    conda:
        "../../envs/torch.yaml"
    params:
        seeds=seeds,
        random_inputs=RANDOM_INPUTS,
        positions=config["positions"],
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("fake_features"),
    script:
        "../scripts/fake_features.py"


rule probing:
    input:
        saes=saes,
        examples=expand(
            "results/{study}/{model}/{task}/examples.parquet",
            task=TASKS,
            allow_missing=True,
        ),
        activations=[path for task in TASKS for path in activations("examples", task)],
    output:
        "results/{study}/{model}/{corpus}/{hook}/{sae}/probing.parquet",
    log:
        "results/logs/probing/{study}/{model}/{corpus}/{hook}/{sae}.log",
    benchmark:
        "results/logs/probing/{study}/{model}/{corpus}/{hook}/{sae}.tsv"
    wildcard_constraints:
        corpus=one_of([*CORPORA, PRETRAINED]),
    conda:
        "../../envs/torch.yaml"
    params:
        seeds=seeds,
        tasks=TASKS,
        positions=config["positions"],
        k=lookup(dpath="evaluations/probing/k", within=config),
        probe_seeds=lookup(dpath="evaluations/probing/seeds", within=config),
        code=code_digest("probing"),
    script:
        "../scripts/probing.py"


rule probing_baselines:
    input:
        # The shape of a pretrained SAE stands in its files alone.
        pretrained=lambda wildcards: expand(
            SAE,
            sae=audited_at(wildcards),
            corpus=PRETRAINED,
            seed=0,
            allow_missing=True,
        ),
        examples=expand(
            "results/{study}/{model}/{task}/examples.parquet",
            task=TASKS,
            allow_missing=True,
        ),
        activations=[path for task in TASKS for path in activations("examples", task)],
    output:
        "results/{study}/{model}/probing-baselines/{hook}/probing.parquet",
    log:
        "results/logs/probing_baselines/{study}/{model}/{hook}.log",
    benchmark:
        "results/logs/probing_baselines/{study}/{model}/{hook}.tsv"
    conda:
        "../../envs/torch.yaml"
    params:
        seeds=SEEDS,
        dictionaries=lambda wildcards: {
            sae: (config["saes"][sae]["expansion"], config["saes"][sae]["k"])
            for sae in saes_of(config, wildcards.model)
        },
        pretrained=audited_at,
        tasks=TASKS,
        positions=config["positions"],
        k=lookup(dpath="evaluations/probing/k", within=config),
        probe_seeds=lookup(dpath="evaluations/probing/seeds", within=config),
        code=code_digest("probing_baselines"),
    script:
        "../scripts/probing_baselines.py"
