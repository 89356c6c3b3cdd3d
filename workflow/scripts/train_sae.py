"""Train one SAE on the activation shards of one corpus."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.shards import Positions, Shards
from faithful_sae.state import State
from faithful_sae.tidy import with_coordinates, write_parquet
from faithful_sae.train import provenance, train_sae
from faithful_sae.trainer import SAEConfig

shards = Shards(
    [Path(path) for path in snakemake.input.activations], Positions(**snakemake.params.positions)
)
config = SAEConfig(**snakemake.params.sae)
state = State(
    Path(snakemake.params.state),
    dict(snakemake.params.items()),
    map(Path, snakemake.input),
    snakemake.resources.checkpoint_minutes,
)
sae, training = train_sae(shards, config, int(snakemake.wildcards.seed), state)
sae.save(
    Path(snakemake.output.weights).parent,
    provenance(shards, config, dict(snakemake.wildcards.items()), snakemake.params.positions),
)
write_parquet(with_coordinates(training, snakemake.wildcards), Path(snakemake.output.training))
state.remove()
