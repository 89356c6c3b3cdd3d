"""Let a model write one shard of a corpus from its start token."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

import json
from pathlib import Path

from faithful_sae.corpus import documents_to_sample, write_samples
from faithful_sae.models import load_model
from faithful_sae.sampling import sample_documents
from faithful_sae.shards import shard_of

params = snakemake.params
facts = json.loads(Path(snakemake.input.facts).read_text())
blocks = documents_to_sample(params.documents, params.block, **params.size) // params.block
shard = shard_of(blocks, int(snakemake.wildcards.shard), params.shards)
samples = sample_documents(
    load_model(Path(snakemake.input.model)),
    range(shard.start * params.block, shard.stop * params.block),
    start_token=facts["start_token"],
    end_tokens=facts["end_tokens"],
    context_length=params.size["context_length"],
    temperature=params.temperature,
    top_p=params.top_p,
    seed=params.seed,
    block=params.block,
)
write_samples(samples, Path(snakemake.output[0]))
