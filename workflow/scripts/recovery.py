"""Grade the SAEs of one corpus, all seeds, against the known features."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.known_features import KnownFeatures
from faithful_sae.recovery import recovery_of_seeds
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
own, faithful, random = (
    Shards([Path(path) for path in snakemake.input[name]], Positions(**params.positions))
    for name in ("own", "faithful", "random")
)
table = recovery_of_seeds(
    {seed: SAE.load(folder) for seed, folder in zip(params.seeds, folders, strict=True)},
    KnownFeatures(**params.model),
    own,
    faithful,
    random,
    params.min_activation,
    params.frequency,
)
write_parquet(with_coordinates(table, snakemake.wildcards), Path(snakemake.output[0]))
