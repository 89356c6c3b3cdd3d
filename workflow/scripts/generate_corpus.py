"""Let a model write one shard of a corpus from its start token."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from functools import partial
from pathlib import Path

from faithful_sae.checksums import read_json
from faithful_sae.contexts import shard_of
from faithful_sae.corpus import write_samples
from faithful_sae.entries import documents_to_sample
from faithful_sae.models import load_model
from faithful_sae.sampling import sample_documents
from faithful_sae.state import State

params = snakemake.params
facts = read_json(Path(snakemake.input.facts))
blocks = documents_to_sample(params.documents, params.block, **params.size) // params.block
shard = shard_of(blocks, int(snakemake.wildcards.shard), params.shards)
state = State(Path(params.state), dict(params.items()), map(Path, snakemake.input))
sample = partial(
    sample_documents,
    load_model(Path(snakemake.input.model)),
    start_token=facts["start_token"],
    end_tokens=facts["end_tokens"],
    context_length=params.size["context_length"],
    temperature=params.temperature,
    top_p=params.top_p,
    repetition_penalty=params.repetition_penalty,
    seed=params.seed,
    block=params.block,
)
documents = range(shard.start * params.block, shard.stop * params.block)
write_samples(sample, documents, params.block, Path(snakemake.output[0]), state)
state.remove()
