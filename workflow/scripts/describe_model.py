"""State the facts of a model and check the study against them."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

import json
from pathlib import Path

from faithful_sae.models import describe_model
from faithful_sae.shards import require_disk_for_study

facts = describe_model(
    snakemake.wildcards.model,
    Path(snakemake.input.folder),
    snakemake.params.hooks,
    snakemake.params.saes,
    snakemake.params.start_token,
    snakemake.params.end_tokens,
    snakemake.params.context_length,
)
require_disk_for_study(
    Path(snakemake.output[0]).parent,
    d_in=facts["d_in"],
    dtype=snakemake.params.dtype,
    hooks=len(snakemake.params.hooks),
    corpora=snakemake.params.corpora,
    tokens=snakemake.params.tokens,
)
Path(snakemake.output[0]).write_text(json.dumps(facts, indent=2) + "\n")
