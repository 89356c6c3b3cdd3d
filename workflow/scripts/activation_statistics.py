"""Measure the norms of a corpus's activations and what the positions policy removes."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.activation_statistics import activation_statistics
from faithful_sae.shards import Positions, Shards
from faithful_sae.tidy import with_coordinates, write_parquet

shards = Shards(
    [Path(path) for path in snakemake.input.activations], Positions(**snakemake.params.positions)
)
for table, path in zip(activation_statistics(shards), snakemake.output, strict=True):
    write_parquet(with_coordinates(table, snakemake.wildcards), Path(path))
