"""Compare the pretrained SAEs of one model and hook."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.heldout import Heldout
from faithful_sae.names import PRETRAINED
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.similarity import similarity_of_pretrained
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
positions = Positions(**params.positions)
table = similarity_of_pretrained(
    {name: SAE.load(folder) for name, folder in zip(params.saes, folders, strict=True)},
    Heldout([Shards([Path(path)], positions) for path in snakemake.input.heldout]),
    params.thresholds,
)
coordinates = dict(snakemake.wildcards.items()) | {"corpus": PRETRAINED}
write_parquet(with_coordinates(table, coordinates), Path(snakemake.output[0]))
