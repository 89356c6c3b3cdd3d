"""Link the folder of a local model."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.files import link_folder

link_folder(Path(snakemake.params.path), Path(snakemake.output[0]))
