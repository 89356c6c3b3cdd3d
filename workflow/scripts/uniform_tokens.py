"""Make contexts of uniformly random tokens."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import write_arrow
from faithful_sae.checksums import read_json
from faithful_sae.contexts import uniform_tokens

facts = read_json(Path(snakemake.input.facts))
contexts = uniform_tokens(
    facts["vocab_size"],
    start_token=facts["start_token"],
    context_length=snakemake.params.context_length,
    tokens=snakemake.params.tokens,
)
write_arrow(contexts, Path(snakemake.output[0]))
