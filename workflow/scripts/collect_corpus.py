"""Split what a model wrote into contexts for training and held-out evaluation."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import read_json
from faithful_sae.corpus import build_corpus, read_samples, write_corpus, written_documents
from faithful_sae.models import load_tokenizer

facts = read_json(Path(snakemake.input.facts))
samples = read_samples([Path(path) for path in snakemake.input.shards])
reader, writer = (
    load_tokenizer(Path(folder)) for folder in (snakemake.input.model, snakemake.input.writer)
)
corpus = build_corpus(
    snakemake.wildcards.corpus,
    written_documents(samples, reader, writer),
    start_token=facts["start_token"],
    pack=snakemake.params.pack,
    **snakemake.params.size,
)
write_corpus(corpus, *(Path(path) for path in snakemake.output))
