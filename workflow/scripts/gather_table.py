"""Gather one kind of table from all jobs."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.tables import gather, write_csv

write_csv(gather([Path(path) for path in snakemake.input]), Path(snakemake.output[0]))
