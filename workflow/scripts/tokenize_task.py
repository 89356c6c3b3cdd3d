"""Turn one labelled task into contexts."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import write_arrow
from faithful_sae.checksums import read_json
from faithful_sae.models import load_tokenizer
from faithful_sae.tasks import build_task
from faithful_sae.text import read_task

facts = read_json(Path(snakemake.input.facts))
examples = build_task(
    snakemake.wildcards.corpus,
    read_task(snakemake.params.task, Path(snakemake.input.sources[0])),
    load_tokenizer(Path(snakemake.input.model)),
    start_token=facts["start_token"],
    context_length=snakemake.params.context_length,
    n_examples=snakemake.params.task["examples"],
)
write_arrow(examples, Path(snakemake.output[0]))
