"""Measure what a corpus is to its model."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import read_arrow
from faithful_sae.checksums import read_json
from faithful_sae.corpus_statistics import corpus_statistics
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.tidy import with_coordinates, write_parquet

facts = read_json(Path(snakemake.input.facts))
statistics, first_tokens = corpus_statistics(
    load_model(Path(snakemake.input.model)),
    load_tokenizer(Path(snakemake.input.model)),
    read_json(Path(snakemake.input.counts)),
    read_arrow(Path(snakemake.input.train)),
    read_arrow(Path(snakemake.input.heldout)),
    start_token=facts["start_token"],
    tokens=snakemake.params.tokens,
)
for table, path in (
    (statistics, snakemake.output.statistics),
    (first_tokens, snakemake.output.first_tokens),
):
    write_parquet(with_coordinates(table, snakemake.wildcards), Path(path))
