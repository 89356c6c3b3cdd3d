"""Run the model over contexts and keep what enters a block.

IN   results/{study}/{model}/{corpus}/{split}.parquet
OUT  results/{study}/{model}/{corpus}/{hook}/{split}/shard{shard}.parquet
     results/{study}/{model}/{corpus}/{hook}/activation_statistics.parquet, norms.parquet
"""


rule extract_activations:
    input:
        contexts="results/{study}/{model}/{corpus}/{split}.parquet",
        model=model_folder,
    output:
        "results/{study}/{model}/{corpus}/{hook}/{split}/shard{shard}.parquet",
    log:
        "results/logs/extract_activations/{study}/{model}/{corpus}/{hook}/{split}-{shard}.log",
    benchmark:
        "results/logs/extract_activations/{study}/{model}/{corpus}/{hook}/{split}-{shard}.tsv"
    wildcard_constraints:
        model=one_of(LANGUAGE_MODELS),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        dtype=lookup(dpath="activations/dtype", within=config),
        shards=lambda wildcards: shard_count(wildcards.split),
        state="state/extract_activations/{study}/{model}/{corpus}/{hook}/{split}/shard{shard}",
        code=code_digest("extract_activations"),
    script:
        "../scripts/extract_activations.py"


rule activation_statistics:
    input:
        activations=activations("train"),
    output:
        statistics="results/{study}/{model}/{corpus}/{hook}/activation_statistics.parquet",
        norms="results/{study}/{model}/{corpus}/{hook}/norms.parquet",
    log:
        "results/logs/activation_statistics/{study}/{model}/{corpus}/{hook}.log",
    wildcard_constraints:
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    params:
        positions=config["positions"],
        code=code_digest("activation_statistics"),
    script:
        "../scripts/activation_statistics.py"
