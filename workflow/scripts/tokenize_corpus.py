"""Turn one text corpus into contexts for training and held-out evaluation."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import read_json
from faithful_sae.corpus import build_corpus, text_documents, write_corpus
from faithful_sae.models import load_tokenizer
from faithful_sae.text import read_corpus

facts = read_json(Path(snakemake.input.facts))
texts = read_corpus(snakemake.params.corpus, snakemake.input.sources)
corpus = build_corpus(
    snakemake.wildcards.corpus,
    text_documents(texts, load_tokenizer(Path(snakemake.input.model))),
    start_token=facts["start_token"],
    pack=snakemake.params.corpus["pack"],
    **snakemake.params.size,
)
write_corpus(corpus, *(Path(path) for path in snakemake.output))
