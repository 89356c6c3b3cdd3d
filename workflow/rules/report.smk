"""Gather the jobs' tidy tables once, and draw every figure from the gathered tables alone.

IN   one Parquet per job, from the rules before
OUT  results/{study}/tables/{table}.csv
     results/{study}/figures/{figure}.{png,pdf}
"""

STUDIED = [(model, hook) for model in MODELS for hook in config["models"][model]["hooks"]]
BY_CORPUS = "results/{study}/{model}/{corpus}"
BY_SAE = BY_CORPUS + "/{hook}/{sae}"


def gathered(pattern, **names):
    """Paths of a table in all (model, hook) studied, for all corpora, SAEs and seeds it names."""
    names = {"corpus": CORPORA, "sae": SAES, "seed": SEEDS, "study": config["study"]} | names
    return sorted(
        {
            path
            for model, hook in STUDIED
            for path in expand(pattern, model=model, hook=hook, **names)
        }
    )


PROBING = gathered(BY_SAE + "/probing.parquet") + gathered(
    BY_SAE.removesuffix("/{sae}") + "/probing.parquet", corpus="probing-baselines"
)
# What each table is gathered from. `summary` is made from other tables.
GATHERED = {
    "corpus_statistics": gathered(BY_CORPUS + "/corpus_statistics.parquet"),
    "first_tokens": gathered(BY_CORPUS + "/first_tokens.parquet"),
    "activation_statistics": gathered(BY_CORPUS + "/{hook}/activation_statistics.parquet"),
    "norms": gathered(BY_CORPUS + "/{hook}/norms.parquet"),
    "training": gathered(BY_SAE + "/seed{seed}/training.parquet"),
    "reconstruction": gathered(BY_SAE + "/reconstruction.parquet"),
    "similarity": gathered(BY_SAE + "/similarity.parquet", corpus=[*CORPORA, "between-corpora"]),
    "fake_features": gathered(BY_SAE + "/fake_features.parquet"),
    "firing_frequencies": gathered(BY_SAE + "/firing_frequencies.parquet"),
    "probing": PROBING if TASKS else [],
}
GATHERED = {table: paths for table, paths in GATHERED.items() if paths}
TABLES = [*GATHERED, "summary"]
FIGURES = [
    "shared_features",
    "threshold_curves",
    "reconstruction",
    "fake_features",
    "firing_frequencies",
    *(["probing"] if TASKS else []),
    "dose_response",
    "first_tokens",
    "norms",
    "training_curves",
]


def caption(name):
    return f"../report/{name}.rst"


rule gather_table:
    input:
        lambda wildcards: GATHERED[wildcards.table],
    output:
        "results/{study}/tables/{table}.csv",
    log:
        "results/logs/gather_table/{study}/{table}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        library=library_digest("tables"),
    wildcard_constraints:
        table=one_of(GATHERED),
    script:
        "../scripts/gather_table.py"


rule summarise:
    input:
        [
            f"results/{{study}}/tables/{table}.csv"
            for table in ("reconstruction", "similarity", "fake_features", "probing")
            if table in GATHERED
        ],
    output:
        report(
            "results/{study}/tables/summary.csv", caption=caption("summary"), category="Tables"
        ),
    log:
        "results/logs/summarise/{study}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(dpath="evaluations/fake_features/min_activation", within=config),
        library=library_digest("statistics", "tables"),
    script:
        "../scripts/summarise.py"


rule draw_figures:
    # One job for all: a figure takes a second to draw, starting a job three.
    input:
        expand("results/{study}/tables/{table}.csv", table=TABLES, allow_missing=True),
    output:
        **{
            figure: report(
                f"results/{{study}}/figures/{figure}.png",
                caption=caption(figure),
                category="Figures",
            )
            for figure in FIGURES
        },
        pdf=expand("results/{study}/figures/{figure}.pdf", figure=FIGURES, allow_missing=True),
    log:
        "results/logs/draw_figures/{study}.log",
    conda:
        "../../envs/plot.yaml"
    params:
        corpora=CORPORA,
        figures=FIGURES,
        dpi=lookup(dpath="figures/dpi", within=config),
        frequency=lookup(dpath="evaluations/fake_features/frequency", within=config),
        min_activation=lookup(dpath="evaluations/fake_features/min_activation", within=config),
        library=library_digest("figures"),
    script:
        "../scripts/draw_figures.py"
