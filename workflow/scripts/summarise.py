"""Summarise a study: mean and interval over seeds of every headline metric."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.statistics import summarise
from faithful_sae.tables import read_csv, write_csv

tables = {Path(path).stem: read_csv(Path(path)) for path in snakemake.input}
summary = summarise(
    **tables,
    frequency=snakemake.params.frequency,
    min_activation=snakemake.params.min_activation,
)
write_csv(summary, Path(snakemake.output[0]))
