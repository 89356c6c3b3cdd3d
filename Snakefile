"""FaithfulSAE: model -> corpora -> activations -> SAEs per seed -> evaluations -> tables -> figures."""

from snakemake.utils import min_version

min_version("9.27.1")


# A file given with --configfile replaces the default study instead of being merged into it.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/inputs.smk"
include: "workflow/rules/models.smk"
include: "workflow/rules/corpus.smk"
include: "workflow/rules/activations.smk"
include: "workflow/rules/sae.smk"
include: "workflow/rules/pretrained.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/ground_truth.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/plan.smk"


report: "workflow/report/workflow.rst"


rule all:
    # The SAEs are results like the tables; they alone are not in the repository, so that a fresh
    # clone runs the study instead of finding its published tables done.
    input:
        GATHERED.get("training", []),
        expand(
            "results/{study}/tables/{table}.csv", study=config["study"], table=TABLES
        ),
        expand(
            "results/{study}/figures/{figure}.png",
            study=config["study"],
            figure=FIGURES,
        ),
        expand("results/{study}/ro-crate-metadata.json", study=config["study"]),
        expand("results/{study}/config.json", study=config["study"]),


rule export:
    input:
        exports,
