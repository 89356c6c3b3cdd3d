"""Train sparse autoencoders.

IN   results/{study}/{model}/{corpus}/{hook}/train/
OUT  results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/   a folder that SAELens opens
"""


rule train_sae:
    input:
        activations=activations("train"),
    output:
        weights="results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/sae_weights.safetensors",
        config="results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/cfg.json",
        training="results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/training.parquet",
    log:
        "results/logs/train_sae/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}.log",
    benchmark:
        "results/logs/train_sae/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}.tsv"
    wildcard_constraints:
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
        checkpoint_minutes=10,  # what a kill can cost
    params:
        sae=lambda wildcards: sae_entry(config, wildcards.sae),
        positions=config["positions"],
        state="state/train_sae/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}",
        code=code_digest("train_sae"),
    script:
        "../scripts/train_sae.py"
