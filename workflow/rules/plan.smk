"""What the next run of this study will do and cost, without a network or a GPU.

IN   Snakemake's own dry run of the study, and what is known of models and machines (workflow/plan/)
OUT  printed, and kept as results/logs/plan/{study}.log
"""


rule plan:
    # It runs Snakemake, so that it needs the environment of whoever asks, and none of its own.
    log:
        f"results/logs/plan/{config['study']}.log",
    resources:
        hardware="cpu",  # an entry of workflow/plan/hardware.yaml
        devices=1,  # GPUs of it
        cores=os.cpu_count(),
    params:
        snakefile=str(ROOT / "Snakefile"),
        data=str(ROOT / "workflow/plan"),
        folders={model: model_folder(None, model) for model in LANGUAGE_MODELS},
    script:
        "../scripts/plan.py"
