"""Make contexts of uniformly random tokens."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

import json
from pathlib import Path

from faithful_sae.contexts import uniform_tokens, write_contexts

facts = json.loads(Path(snakemake.input.facts).read_text())
contexts = uniform_tokens(
    facts["vocab_size"],
    start_token=facts["start_token"],
    context_length=snakemake.params.context_length,
    tokens=snakemake.params.tokens,
)
write_contexts(contexts, Path(snakemake.output[0]))
