"""Probe raw activations and the majority class on every task."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.probing import probe_baselines, read_tasks
from faithful_sae.shards import Positions
from faithful_sae.tidy import with_coordinates, write_parquet

table = probe_baselines(
    read_tasks(
        snakemake.params.tasks,
        snakemake.input.examples,
        snakemake.input.activations,
        Positions(**snakemake.params.positions),
    ),
    snakemake.params.seeds,
)
# No corpus and no SAE made these features.
coordinates = dict(snakemake.wildcards.items()) | {"corpus": "", "sae": ""}
write_parquet(with_coordinates(table, coordinates), Path(snakemake.output[0]))
