"""Link the folder of a local model."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.prepare import link_model

link_model(Path(snakemake.params.path), Path(snakemake.output[0]))
