"""Mix equal shares of other corpora."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.corpus import load_corpus, write_corpus
from faithful_sae.mixture import mix_corpora

inputs = snakemake.input
files = zip(inputs.train, inputs.heldout, inputs.counts, strict=True)
corpus = mix_corpora(
    [load_corpus(*map(Path, paths)) for paths in files],
    train_tokens=snakemake.params.train_tokens,
    heldout_tokens=snakemake.params.heldout_tokens,
)
write_corpus(corpus, *(Path(path) for path in snakemake.output))
