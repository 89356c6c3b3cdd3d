"""Summarise a study: headline metrics, differences between corpora, doses, claims."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import seal
from faithful_sae.summary import summarise
from faithful_sae.tables import read_csv, write_csv

params = snakemake.params
gathered = [Path(path) for path in snakemake.input]
made = [Path(path) for name, path in snakemake.output.items() if name != "sums"]
tables = summarise(
    {path.stem: read_csv(path) for path in gathered},
    texts=params.texts,
    models=params.models,
    saes=params.saes,
    frequency=params.frequency,
    min_activation=params.min_activation,
)
for path in made:
    write_csv(tables[path.stem], path)
seal(made[0].parent, *made, *gathered)
