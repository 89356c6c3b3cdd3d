"""Compare SAEs trained on different corpora."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.similarity import similarity_of_corpora
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
folders = sae_folders(snakemake.input.saes)
positions = Positions(**params.positions)
heldout = {
    corpus: Shards([Path(path)], positions)
    for corpus, path in zip(params.corpora, snakemake.input.activations, strict=True)
}
table = similarity_of_corpora(
    {tuple(key): SAE.load(folder) for key, folder in zip(params.saes, folders, strict=True)},
    heldout,
    params.thresholds,
)
write_parquet(with_coordinates(table, snakemake.wildcards), Path(snakemake.output[0]))
