"""Write one shard of a corpus's activations at one hook."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import read_arrow
from faithful_sae.models import load_model
from faithful_sae.shards import write_shard
from faithful_sae.state import State

wildcards, params = snakemake.wildcards, snakemake.params
state = State(Path(params.state), dict(params.items()), map(Path, snakemake.input))
write_shard(
    Path(snakemake.output[0]),
    load_model(Path(snakemake.input.model)),
    read_arrow(Path(snakemake.input.contexts)),
    wildcards.hook,
    dtype=params.dtype,
    shard=int(wildcards.shard),
    shards=params.shards,
    metadata={"model": Path(snakemake.input.model).name, "corpus": wildcards.corpus},
    state=state,
)
state.remove()
