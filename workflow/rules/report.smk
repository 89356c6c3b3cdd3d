"""Gather the jobs' tidy tables, summarise them, and draw every figure from these tables alone.

IN   one Parquet per job, from the rules before
OUT  results/{study}/tables/{table}.csv, SHA256SUMS
     results/{study}/figures/{figure}.{png,pdf}
     results/{study}/config.json, ro-crate-metadata.json   what the study was made from and by
"""

# Pretrained SAEs with another one at their hook.
PAIRED = [
    a
    for a in AUDITED
    for b in AUDITED
    if a != b and a["model"] == b["model"] and a["hook"] == b["hook"]
]

# What each table is gathered from; SUMMARIES are made from these.
GATHERED = {
    "activation_statistics": gathered("{hook}/activation_statistics", READ),
    "similarity": [
        *gathered("{hook}/{sae}/similarity", STUDIED + AUDITED),
        *gathered("{hook}/{sae}/similarity", STUDIED, corpus="between-corpora"),
        *gathered("{hook}/similarity", PAIRED),
    ],
    "fake_features": gathered("{hook}/{sae}/fake_features", STUDIED + AUDITED),
    "firing_histogram": gathered("{hook}/{sae}/firing_histogram", STUDIED + AUDITED),
}
if STUDIED:
    GATHERED["training"] = gathered("{hook}/{sae}/seed{seed}/training", STUDIED)
if AUDITED:
    GATHERED["audit"] = gathered("{hook}/{sae}/audit", AUDITED)
if LANGUAGE_MODELS:
    GATHERED["corpus_statistics"] = gathered("corpus_statistics", READ)
    GATHERED["first_tokens"] = gathered("first_tokens", READ)
    GATHERED["norms"] = gathered("{hook}/norms", READ)
    GATHERED["reconstruction"] = gathered("{hook}/{sae}/reconstruction", READ)
else:
    GATHERED["recovery"] = gathered("{hook}/{sae}/recovery", STUDIED)
if TASKS:
    GATHERED["probing"] = [
        *gathered("{hook}/{sae}/probing", STUDIED + AUDITED),
        *gathered("{hook}/probing", READ, corpus="probing-baselines"),
    ]
SUMMARIES = [
    "summary",
    "differences",
    *(["dose_response", "claims"] if LANGUAGE_MODELS else ["ground_truth"]),
]
TABLES = [*GATHERED, *SUMMARIES]
REPORTED = [*SUMMARIES, *(["audit"] if AUDITED else [])]
# The outside texts that each corpus holds; a model's writing holds none.
WRITTEN = SAMPLED + [
    corpus for corpus in CORPORA if config["corpora"][corpus].get("shift") == 0
]
TEXTS = {
    corpus: [
        part
        for part in config["corpora"][corpus].get("of", [corpus])
        if part not in WRITTEN
    ]
    for corpus in CORPORA
}
# Controls are no evidence on the paper's claims: a studied model's random twin, an untrained SAE.
EVIDENCE = {
    "models": [m for m in MODELS if config["models"][m].get("model") not in MODELS],
    "saes": [name for name, sae in trained(config).items() if sae["training_tokens"]],
}
COMPARABLE = LANGUAGE_MODELS and EVIDENCE["saes"] and any(map(TEXTS.get, CORPORA[1:]))
FIGURES = [
    *(["recovery", "fake_calls"] if KNOWN else []),
    "shared_features",
    "threshold_curves",
    "similarity_forms",
    *(["reconstruction"] if LANGUAGE_MODELS else []),
    "fake_features",
    "firing_frequencies",
    *(["probing", "sparse_probing"] if TASKS else []),
    *(["differences"] if STUDIED and len(CORPORA) > 1 else []),
    *(["dose_response"] if STUDIED and LANGUAGE_MODELS else []),
    *(["claims"] if COMPARABLE else []),
    *(["first_tokens", "norms"] if LANGUAGE_MODELS else []),
    *(["training_curves"] if STUDIED else []),
]
# Where the report shows a figure or table, and what it says there.
SHOWN = {
    "claims": ("Findings", "the paper's claims, one by one"),
    "summary": ("Findings", "every headline metric"),
    "audit": ("Findings", "is each pretrained SAE used as it was trained"),
    "differences": ("Findings", "the first corpus minus each other"),
    "dose_response": ("Findings", "metrics against the surprise gap"),
    "ground_truth": ("Findings", "what is measured against what is true"),
    "recovery": ("Known features", "recovered features beside what can be measured"),
    "fake_calls": ("Known features", "fake features beside truly fake latents"),
    "reconstruction": ("Reconstruction", "every corpus by the SAEs of every other"),
    "training_curves": ("Reconstruction", "the course of training"),
    "shared_features": ("Stability", "shared features and their nulls"),
    "threshold_curves": ("Stability", "shared features at every threshold"),
    "similarity_forms": ("Stability", "similarity counted in other ways"),
    "fake_features": ("Fake features", "fake features on three random inputs"),
    "firing_frequencies": ("Fake features", "how often latents fire"),
    "probing": ("Probing", "accuracy from all latents"),
    "sparse_probing": ("Probing", "accuracy from few latents"),
    "first_tokens": ("Text and activations", "with which tokens documents begin"),
    "norms": ("Text and activations", "norms by position"),
}


rule summarise:
    # One job from the jobs' tables to the seal, so that no table lies about unsealed and is read.
    input:
        **GATHERED,
    output:
        **{
            table: f"results/{{study}}/tables/{table}.csv"
            for table in GATHERED
            if table not in REPORTED
        },
        **{
            table: report(
                f"results/{{study}}/tables/{table}.csv",
                caption=caption(table),
                category=SHOWN[table][0],
                labels={"shows": SHOWN[table][1], "as": "table"},
            )
            for table in REPORTED
        },
        sums="results/{study}/tables/SHA256SUMS",
    log:
        "results/logs/summarise/{study}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        texts=TEXTS,
        models=EVIDENCE["models"],
        saes=EVIDENCE["saes"],
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("summarise"),
    script:
        "../scripts/summarise.py"


rule draw_figures:
    # One job for all: a figure takes a second to draw, starting a job three.
    input:
        expand("results/{study}/tables/{table}.csv", table=TABLES, allow_missing=True),
        "results/{study}/tables/SHA256SUMS",
    output:
        **{
            figure: report(
                f"results/{{study}}/figures/{figure}.png",
                caption=caption(figure),
                category=SHOWN[figure][0],
                labels={"shows": SHOWN[figure][1], "as": "figure"},
            )
            for figure in FIGURES
        },
        pdf=expand(
            "results/{study}/figures/{figure}.pdf", figure=FIGURES, allow_missing=True
        ),
    log:
        "results/logs/draw_figures/{study}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        corpora=CORPORA + ([PRETRAINED] if AUDITED else []),
        figures=FIGURES,
        dpi=lookup(dpath="figures/dpi", within=config),
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("draw_figures"),
    script:
        "../scripts/draw_figures.py"


rule provenance:
    # In the environment that computed the results, so that its versions are theirs.
    input:
        sources=outside_files(),
        sums="results/{study}/tables/SHA256SUMS",
        tables=expand(
            "results/{study}/tables/{table}.csv", table=TABLES, allow_missing=True
        ),
        figures=expand(
            "results/{study}/figures/{figure}.{kind}",
            figure=FIGURES,
            kind=["png", "pdf"],
            allow_missing=True,
        ),
    output:
        crate="results/{study}/ro-crate-metadata.json",
        config="results/{study}/config.json",
    log:
        "results/logs/provenance/{study}.log",
    conda:
        "../../envs/torch.yaml"
    params:
        config=config,
        snakemake=SNAKEMAKE_VERSION,
        code=code_digest("provenance"),
    script:
        "../scripts/provenance.py"
