"""Write one seed's SAEs of a model and corpus as a repository that the field's tools open."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import read_json
from faithful_sae.export_sae import export_sae
from faithful_sae.models import load_tokenizer
from faithful_sae.sae import sae_folders
from faithful_sae.tables import gather
from faithful_sae.vocabulary import vocabulary_sha256

params, inputs = snakemake.params, snakemake.input
# The whole config is in the card's digest but is no param: another figure must not export anew.
export_sae(
    sae_folders(inputs.saes),
    Path(snakemake.output[0]),
    {
        name: gather([Path(path) for path in inputs[name]])
        for name in ("reconstruction", "similarity", "fake_features")
    },
    facts=read_json(Path(inputs.facts)),
    revision=params.revision,
    corpus=params.corpus,
    context_length=params.context_length,
    vocabulary=vocabulary_sha256(load_tokenizer(Path(inputs.model))),
    frequency=params.frequency,
    min_activation=params.min_activation,
    config=snakemake.config,
)
