"""Summarise a study: mean and interval over seeds of every headline metric."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import seal
from faithful_sae.statistics import summarise
from faithful_sae.tables import read_csv, write_csv

paths = [Path(path) for path in snakemake.input]
tables = {path.stem: read_csv(path) for path in paths}
summary = summarise(
    **{name: tables.get(name) for name in snakemake.params.tables},
    frequency=snakemake.params.frequency,
    min_activation=snakemake.params.min_activation,
)
output = Path(snakemake.output.summary)
write_csv(summary, output)
seal(output.parent, output, *paths)
