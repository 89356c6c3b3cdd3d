"""Evaluate the SAEs of every training corpus on one held-out corpus."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import read_arrow
from faithful_sae.models import load_model
from faithful_sae.reconstruction import reconstruction
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions
from faithful_sae.tidy import with_coordinates, write_parquet

wildcards, params = snakemake.wildcards, snakemake.params
folders = sae_folders(snakemake.input.saes)
saes = {tuple(key): SAE.load(folder) for key, folder in zip(params.saes, folders, strict=True)}
table = reconstruction(
    load_model(Path(snakemake.input.model)),
    saes,
    wildcards.corpus,
    read_arrow(Path(snakemake.input.contexts)),
    [Path(path) for path in snakemake.input.activations],
    Positions(**params.positions),
    wildcards.hook,
    params.ce_tokens,
)
coordinates = {"model": wildcards.model, "hook": wildcards.hook, "sae": wildcards.sae}
table = with_coordinates(table, coordinates | {"eval_corpus": wildcards.corpus})
write_parquet(table, Path(snakemake.output[0]))
