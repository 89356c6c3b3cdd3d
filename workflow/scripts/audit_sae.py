"""Check a pretrained SAE's hook, k and tokenizer."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.arrow import read_arrow
from faithful_sae.audit import audit_sae
from faithful_sae.models import load_model, load_tokenizer
from faithful_sae.pretrained import stated
from faithful_sae.sae import SAE, sae_folders
from faithful_sae.shards import Positions
from faithful_sae.tidy import with_coordinates, write_parquet

params = snakemake.params
(folder,) = sae_folders(snakemake.input.sae)
table = audit_sae(
    load_model(Path(snakemake.input.model)),
    load_tokenizer(Path(snakemake.input.model)),
    SAE.load(folder),
    stated(folder),
    snakemake.wildcards.hook,
    {
        corpus: read_arrow(Path(path))
        for corpus, path in zip(params.corpora, snakemake.input.contexts, strict=True)
    },
    params.outside,
    Positions(**params.positions),
)
coordinates = dict(snakemake.wildcards.items()) | {"seed": 0}
write_parquet(with_coordinates(table, coordinates), Path(snakemake.output[0]))
