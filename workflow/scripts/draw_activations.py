"""Draw one shard of a corpus's activations from known features."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.known_features import KnownFeatures, draw_activations

wildcards, params = snakemake.wildcards, snakemake.params
draw_activations(
    Path(snakemake.output[0]),
    KnownFeatures(**params.model),
    params.shift,
    f"{wildcards.corpus}/{wildcards.split}",
    tokens=params.tokens,
    context_length=params.context_length,
    dtype=params.dtype,
    shard=int(wildcards.shard),
    shards=params.shards,
    metadata={"model": wildcards.model, "corpus": wildcards.corpus, "hook": wildcards.hook},
)
