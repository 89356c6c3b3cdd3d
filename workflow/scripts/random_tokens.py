"""Make contexts of random tokens."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import read_arrow, write_arrow
from faithful_sae.checksums import read_json
from faithful_sae.random_tokens import random_tokens

facts = read_json(Path(snakemake.input.facts))
contexts = random_tokens(
    snakemake.wildcards.corpus,
    [read_arrow(Path(path)) for path in snakemake.input.heldout],
    vocab_size=facts["vocab_size"],
    start_token=facts["start_token"],
    context_length=snakemake.params.context_length,
    tokens=snakemake.params.tokens,
)
write_arrow(contexts, Path(snakemake.output[0]))
