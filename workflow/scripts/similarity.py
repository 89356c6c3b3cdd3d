"""Compare the SAEs of all seeds of one corpus, and their nulls."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.heldout import Heldout
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.similarity import similarity_of_seeds
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
positions = Positions(**params.positions)
table = similarity_of_seeds(
    {seed: SAE.load(folder) for seed, folder in zip(params.seeds, folders, strict=True)},
    Heldout([Shards([Path(path)], positions) for path in snakemake.input.activations]),
    params.thresholds,
)
corpus = {"corpus_b": snakemake.wildcards.corpus}
table = with_coordinates(table, dict(snakemake.wildcards.items()) | corpus)
write_parquet(table, Path(snakemake.output[0]))
