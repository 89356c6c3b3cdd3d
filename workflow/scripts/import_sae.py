"""Read a pretrained SAE and save it as the workflow saves its own."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.heldout import Heldout
from faithful_sae.pretrained import import_sae
from faithful_sae.shards import Positions, Shards

params = snakemake.params
positions = Positions(**params.positions)
sae, provenance = import_sae(
    Path(snakemake.input.folder, params.entry["folder"]),
    snakemake.wildcards.hook,
    Heldout([Shards([Path(path)], positions) for path in snakemake.input.heldout]),
    params.entry,
)
sae.save(Path(snakemake.output.weights).parent, provenance)
