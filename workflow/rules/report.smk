"""Gather the jobs' tidy tables, summarise them, and draw every figure from these tables alone.

IN   one Parquet per job, from the rules before
OUT  results/{study}/tables/{table}.csv, SHA256SUMS
     results/{study}/figures/{figure}.{png,pdf}
"""

# What each table is gathered from; SUMMARIES are made from these.
GATHERED = {
    "corpus_statistics": gathered("corpus_statistics"),
    "first_tokens": gathered("first_tokens"),
    "activation_statistics": gathered("{hook}/activation_statistics"),
    "norms": gathered("{hook}/norms"),
    "training": gathered("{hook}/{sae}/seed{seed}/training"),
    "reconstruction": gathered("{hook}/{sae}/reconstruction"),
    "similarity": [
        *gathered("{hook}/{sae}/similarity"),
        *gathered("{hook}/{sae}/similarity", corpus="between-corpora"),
    ],
    "fake_features": gathered("{hook}/{sae}/fake_features"),
    "firing_frequencies": gathered("{hook}/{sae}/firing_frequencies"),
}
if TASKS:
    GATHERED["probing"] = [
        *gathered("{hook}/{sae}/probing"),
        *gathered("{hook}/probing", corpus="probing-baselines"),
    ]
SUMMARIES = ["summary", "differences", "dose_response", "claims"]
TABLES = [*GATHERED, *SUMMARIES]
# The outside texts that each corpus holds; a model's writing holds none.
TEXTS = {
    corpus: (
        entry["of"]
        if entry["source"] == "mixture"
        else [] if entry["source"] in ("faithful", "written_by") else [corpus]
    )
    for corpus, entry in config["corpora"].items()
}
# Controls are no evidence on the paper's claims: a studied model's random twin, an untrained SAE.
EVIDENCE = {
    "models": [m for m in MODELS if config["models"][m].get("model") not in MODELS],
    "saes": [sae for sae in SAES if config["saes"][sae]["training_tokens"]],
}
FIGURES = [
    "shared_features",
    "threshold_curves",
    "similarity_forms",
    "reconstruction",
    "fake_features",
    "firing_frequencies",
    *(["probing", "sparse_probing"] if TASKS else []),
    *(["differences"] if len(CORPORA) > 1 else []),
    "dose_response",
    *(["claims"] if EVIDENCE["saes"] and any(TEXTS[c] for c in CORPORA[1:]) else []),
    "first_tokens",
    "norms",
    "training_curves",
]


rule summarise:
    # One job from the jobs' tables to the seal, so that no table lies about unsealed and is read.
    input:
        **GATHERED,
    output:
        **{table: f"results/{{study}}/tables/{table}.csv" for table in GATHERED},
        **{
            table: report(
                f"results/{{study}}/tables/{table}.csv",
                caption=caption(table),
                category="Tables",
            )
            for table in SUMMARIES
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
                category="Figures",
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
        corpora=CORPORA,
        figures=FIGURES,
        dpi=lookup(dpath="figures/dpi", within=config),
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        code=code_digest("draw_figures"),
    script:
        "../scripts/draw_figures.py"
