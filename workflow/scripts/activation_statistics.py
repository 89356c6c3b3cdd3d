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
statistics, norms = activation_statistics(shards)
for table, path in (
    (statistics, snakemake.output.statistics),
    (norms, snakemake.output.norms),
):
    write_parquet(with_coordinates(table, snakemake.wildcards), Path(path))
