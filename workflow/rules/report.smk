"""Gather the jobs' tidy tables once, and draw every figure from the gathered tables alone.

IN   one Parquet per job, from the rules before
OUT  results/{study}/tables/{table}.csv, SHA256SUMS
     results/{study}/figures/{figure}.{png,pdf}
"""

# What each table is gathered from. `ground_truth` and `summary` are made from other tables.
GATHERED = {
    "activation_statistics": gathered("{hook}/activation_statistics"),
    "training": gathered("{hook}/{sae}/seed{seed}/training"),
    "similarity": gathered("{hook}/{sae}/similarity", [*CORPORA, "between-corpora"]),
    "fake_features": gathered("{hook}/{sae}/fake_features"),
    "firing_frequencies": gathered("{hook}/{sae}/firing_frequencies"),
}
if LANGUAGE_MODELS:
    GATHERED["corpus_statistics"] = gathered("corpus_statistics")
    GATHERED["first_tokens"] = gathered("first_tokens")
    GATHERED["norms"] = gathered("{hook}/norms")
    GATHERED["reconstruction"] = gathered("{hook}/{sae}/reconstruction")
else:
    GATHERED["recovery"] = gathered("{hook}/{sae}/recovery")
if TASKS:
    GATHERED["probing"] = [
        *gathered("{hook}/{sae}/probing"),
        *gathered("{hook}/probing", ["probing-baselines"]),
    ]
SUMMARISED = [*GATHERED, *(["ground_truth"] if KNOWN else [])]
TABLES = [*SUMMARISED, "summary"]
FIGURES = [
    *(["recovery", "fake_calls"] if KNOWN else []),
    "shared_features",
    "threshold_curves",
    *(["reconstruction"] if LANGUAGE_MODELS else []),
    "fake_features",
    "firing_frequencies",
    *(["probing"] if TASKS else []),
    *(["dose_response", "first_tokens", "norms"] if LANGUAGE_MODELS else []),
    "training_curves",
]


rule gather_table:
    input:
        lambda wildcards: GATHERED[wildcards.table],
    output:
        "results/{study}/tables/{table}.csv",
    log:
        "results/logs/gather_table/{study}/{table}.log",
    wildcard_constraints:
        table=one_of(GATHERED),
    conda:
        "../../envs/plot.yaml"
    params:
        code=code_digest("gather_table"),
    script:
        "../scripts/gather_table.py"


rule summarise:
    input:
        expand(
            "results/{study}/tables/{table}.csv", table=SUMMARISED, allow_missing=True
        ),
    output:
        summary=report(
            "results/{study}/tables/summary.csv",
            caption=caption("summary"),
            category="Tables",
        ),
        sums="results/{study}/tables/SHA256SUMS",
    log:
        "results/logs/summarise/{study}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(
            dpath="evaluations/fake_features/min_activation", within=config
        ),
        tables=["reconstruction", "similarity", "fake_features", "probing", "recovery"],
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
