"""Probe raw activations, random dictionaries and the majority class on every task."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.probing import probe_baselines, read_tasks, shapes_of
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.pretrained)
pretrained = {
    name: SAE.load(folder) for name, folder in zip(params.pretrained, folders, strict=True)
}
table = probe_baselines(
    read_tasks(
        params.tasks,
        snakemake.input.examples,
        snakemake.input.activations,
        Positions(**params.positions),
    ),
    params.dictionaries | shapes_of(pretrained),
    params.seeds,
    params.k,
    params.probe_seeds,
)
# No corpus made these features.
coordinates = dict(snakemake.wildcards.items()) | {"corpus": ""}
write_parquet(with_coordinates(table, coordinates), Path(snakemake.output[0]))
