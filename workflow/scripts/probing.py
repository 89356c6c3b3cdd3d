"""Probe the SAEs of all seeds of one corpus on every task."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.probing import probe_saes, read_tasks
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
table = probe_saes(
    {seed: SAE.load(folder) for seed, folder in zip(params.seeds, folders, strict=True)},
    read_tasks(
        params.tasks,
        snakemake.input.examples,
        snakemake.input.activations,
        Positions(**params.positions),
    ),
    params.k,
    params.probe_seeds,
)
write_parquet(with_coordinates(table, snakemake.wildcards), Path(snakemake.output[0]))
