"""Write one shard of a corpus's activations at one hook."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

import pyarrow.parquet as pq

from faithful_sae.models import load_model
from faithful_sae.shards import write_shard

wildcards = snakemake.wildcards
write_shard(
    Path(snakemake.output[0]),
    load_model(Path(snakemake.input.model)),
    pq.read_table(snakemake.input.contexts),
    wildcards.hook,
    dtype=snakemake.params.dtype,
    shard=int(wildcards.shard),
    shards=snakemake.params.shards,
    metadata={"model": Path(snakemake.input.model).name, "corpus": wildcards.corpus},
)
