"""Names that several places share and no config invents."""

# Stands where the training corpus would, of an SAE that was trained elsewhere.
PRETRAINED = "pretrained"

# The environment variable in which a job finds the process that started it, whose child it need not
# be: before its version 5.1 bash stays in between.
SNAKEMAKE_PID = "FAITHFUL_SAE_SNAKEMAKE_PID"
