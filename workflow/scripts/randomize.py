"""Make a model of the same architecture with random weights."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.prepare import randomize

randomize(Path(snakemake.input.architecture), Path(snakemake.output[0]), snakemake.params.seed)
