"""One page of single latents to look at: target `features`, seconds of work after a study.

IN   results/{study}/{model}/{corpus}/{hook}/{sae}/seed{seed}/, firing frequencies, activations
OUT  results/{study}/{model}/{corpus}/{hook}/{sae}/features/{table}.parquet
     results/{study}/features.html   of the SAEs that evaluations.features chooses
"""

FEATURE_TABLES = ["latents", "contexts", "logits"]
FEATURE_LIMITS = {
    "latents": max(
        1, config["evaluations"]["features"]["latents"] // len(FEATURES.corpora)
    ),
    "contexts": config["evaluations"]["features"]["contexts"],
    "window": config["evaluations"]["features"]["window"],
}


rule feature_facts:
    input:
        # The SAE and, if the study has a second seed, the one that its latents are paired with.
        saes=expand(
            SAE,
            seed=dict.fromkeys([FEATURES.seed, FEATURES.sibling]),
            allow_missing=True,
        ),
        firing_frequencies="results/{study}/{model}/{corpus}/{hook}/{sae}/firing_frequencies.parquet",
        heldout=activations("heldout"),
        random=activations("heldout", UNIFORM),
        model=model_folder,
    output:
        **{
            table: "results/{study}/{model}/{corpus}/{hook}/{sae}/features/"
            f"{table}.parquet"
            for table in FEATURE_TABLES
        },
    log:
        "results/logs/feature_facts/{study}/{model}/{corpus}/{hook}/{sae}.log",
    benchmark:
        "results/logs/feature_facts/{study}/{model}/{corpus}/{hook}/{sae}.tsv"
    wildcard_constraints:
        model=one_of(LANGUAGE_MODELS),
        corpus=one_of(CORPORA),
    conda:
        "../../envs/torch.yaml"
    resources:
        gpu=1,
    params:
        seed=FEATURES.seed,
        random_inputs=RANDOM_INPUTS,
        positions=config["positions"],
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        limits=FEATURE_LIMITS,
        code=code_digest("feature_facts"),
    script:
        "../scripts/feature_facts.py"


rule features:
    input:
        **{table: shown_features(table) for table in FEATURE_TABLES},
    output:
        report(
            f"results/{config['study']}/features.html",
            caption=caption("features"),
            category="Features",
            labels={"shows": "single latents to look at", "as": "page"},
        ),
    log:
        f"results/logs/features/{config['study']}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        study=config["study"],
        sibling=FEATURES.sibling,
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        limits=FEATURE_LIMITS,
        template=file_digest(ROOT / "src/faithful_sae/features.html"),
        code=code_digest("features"),
    script:
        "../scripts/features.py"
