"""Gather a study's tables and summarise them: headline metrics, differences, doses, claims."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import seal
from faithful_sae.summary import summarise
from faithful_sae.tables import gather, write_csv

params = snakemake.params
tables = {name: gather([Path(path) for path in paths]) for name, paths in snakemake.input.items()}
tables |= summarise(
    tables,
    texts=params.texts,
    models=params.models,
    saes=params.saes,
    frequency=params.frequency,
    min_activation=params.min_activation,
)
paths = {name: Path(path) for name, path in snakemake.output.items() if name != "sums"}
for name, path in paths.items():
    write_csv(tables[name], path)
seal(Path(snakemake.output.sums).parent, *paths.values())
