"""Measure what a corpus is to its model."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

import json
from pathlib import Path

import pyarrow.parquet as pq

from faithful_sae.corpus_statistics import corpus_statistics
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.tidy import with_coordinates, write_parquet

facts = json.loads(Path(snakemake.input.facts).read_text())
statistics, first_tokens = corpus_statistics(
    load_model(Path(snakemake.input.model)),
    load_tokenizer(Path(snakemake.input.model)),
    json.loads(Path(snakemake.input.counts).read_text()),
    pq.read_table(snakemake.input.train),
    pq.read_table(snakemake.input.heldout),
    start_token=facts["start_token"],
    tokens=snakemake.params.tokens,
)
for table, path in (
    (statistics, snakemake.output.statistics),
    (first_tokens, snakemake.output.first_tokens),
):
    write_parquet(with_coordinates(table, snakemake.wildcards), Path(path))
