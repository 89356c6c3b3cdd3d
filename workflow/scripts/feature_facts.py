"""Describe the latents of one SAE: kind, partner, strongest contexts, logit effect."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

import polars as pl

from faithful_sae.feature_facts import Limits, feature_facts
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions, Shards
from faithful_sae.tidy import read_parquet, with_coordinates, write_parquet

params, files = snakemake.params, snakemake.input
saes = [SAE.load(folder) for folder in sae_folders(files.saes)]
firing = read_parquet(Path(files.firing_frequencies)).filter(pl.col("seed") == params.seed)
tables = feature_facts(
    saes[0],
    saes[1] if len(saes) > 1 else None,
    firing.select("latent", "heldout", *params.random_inputs),
    {
        name: Shards([Path(path) for path in files[name]], Positions(**params.positions))
        for name in ("heldout", "random")
    },
    load_model(Path(files.model)),
    load_tokenizer(Path(files.model)),
    params.frequency,
    Limits(**params.limits),
)
coordinates = dict(snakemake.wildcards.items()) | {"seed": params.seed}
for name, table in tables.items():
    write_parquet(with_coordinates(table, coordinates), Path(snakemake.output[name]))
