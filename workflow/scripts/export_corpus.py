"""Write a corpus that a model wrote as a data set for a hub."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import read_json
from faithful_sae.export_corpus import export_corpus
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.tidy import read_parquet

params, inputs = snakemake.params, snakemake.input
# The whole config is in the card's digest but is no param: another figure must not export anew.
export_corpus(
    [Path(path) for path in inputs.shards],
    Path(snakemake.output[0]),
    load_model(Path(inputs.writer)),
    load_tokenizer(Path(inputs.writer)),
    load_tokenizer(Path(inputs.reader)),
    read_parquet(Path(inputs.statistics)),
    facts=read_json(Path(inputs.facts)),
    revision=params.revision,
    entry=params.entry,
    heldout_fraction=params.heldout_fraction,
    context_length=params.context_length,
    corpus=snakemake.wildcards.corpus,
    reader_name=snakemake.wildcards.model,
    config=snakemake.config,
)
