"""What the next run of this study will do and cost, without a network or a GPU.

IN   Snakemake's own dry run of the study, and what is known of models and machines (workflow/plan/)
OUT  printed, and kept as results/logs/plan/{study}.log
"""

# How whoever asks has software installed: in any other way it would look changed.
SOFTWARE = []
if "conda" in map(str, workflow.deployment_settings.deployment_method):
    SOFTWARE.append("--use-conda")
if workflow.deployment_settings.conda_prefix:
    SOFTWARE += ["--conda-prefix", str(workflow.deployment_settings.conda_prefix)]


rule plan:
    log:
        f"results/logs/plan/{config['study']}.log",
    conda:
        lambda wildcards: None  # it runs Snakemake, in the environment of whoever asks
    resources:
        hardware="cpu",  # an entry of workflow/plan/hardware.yaml
        devices=1,  # GPUs of it
        cores=os.cpu_count(),
    params:
        snakefile=str(ROOT / "Snakefile"),
        software=SOFTWARE,
        data=str(ROOT / "workflow/plan"),
        folders={model: model_folder(None, model) for model in LANGUAGE_MODELS},
    script:
        "../scripts/plan.py"
