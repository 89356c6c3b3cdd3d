"""Count the latents that fire on random tokens, for all seeds of one corpus."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.fake_features import fake_features_of_seeds
from faithful_sae.heldout import Heldout
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
positions = Positions(**params.positions)
random = {
    name: Shards([Path(path)], positions)
    for name, path in zip(params.random_inputs, snakemake.input.random, strict=True)
}
heldout = Heldout([Shards([Path(path)], positions) for path in snakemake.input.heldout])
fake_features, firing_frequencies, firing_histogram = fake_features_of_seeds(
    {seed: SAE.load(folder) for seed, folder in zip(params.seeds, folders, strict=True)},
    random,
    heldout,
    params.min_activation,
    params.frequency,
)
for table, path in (
    (fake_features, snakemake.output.fake_features),
    (firing_frequencies, snakemake.output.firing_frequencies),
    (firing_histogram, snakemake.output.firing_histogram),
):
    write_parquet(with_coordinates(table, snakemake.wildcards), Path(path))
