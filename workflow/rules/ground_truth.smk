"""Known features in place of a language model: draw activations, grade SAEs against the truth.

IN   the config alone
OUT  results/{study}/{model}/{corpus}/{hook}/{split}/shard{shard}.parquet
     results/{study}/{model}/{corpus}/{hook}/{sae}/recovery.parquet
"""


rule draw_activations:
    output:
        "results/{study}/{model}/{corpus}/{hook}/{split}/shard{shard}.parquet",
    log:
        "results/logs/draw_activations/{study}/{model}/{corpus}/{hook}/{split}-{shard}.log",
    wildcard_constraints:
        model=one_of(KNOWN),
    conda:
        "../../envs/torch.yaml"
    params:
        model=known_features,
        shift=shift,
        tokens=drawn_tokens,
        context_length=lookup(dpath="corpus_size/context_length", within=config),
        dtype=lookup(dpath="activations/dtype", within=config),
        shards=lambda wildcards: shard_count(wildcards.split),
        code=code_digest("draw_activations"),
    script:
        "../scripts/draw_activations.py"


rule recovery:
    input:
        saes=expand(SAE, seed=SEEDS, allow_missing=True),
        own=activations("heldout"),
        faithful=own_distribution,
        random=activations("heldout", UNIFORM),
    output:
        "results/{study}/{model}/{corpus}/{hook}/{sae}/recovery.parquet",
    log:
        "results/logs/recovery/{study}/{model}/{corpus}/{hook}/{sae}.log",
    wildcard_constraints:
        corpus=one_of(CORPORA),
        model=one_of(KNOWN),
    conda:
        "../../envs/torch.yaml"
    params:
        model=known_features,
        seeds=SEEDS,
        positions=config["positions"],
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("recovery"),
    script:
        "../scripts/recovery.py"
