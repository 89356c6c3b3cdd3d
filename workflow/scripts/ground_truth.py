"""Correlate what can be measured of SAEs with what only known features tell."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.ground_truth import ground_truth
from faithful_sae.tables import read_csv, write_csv

table = ground_truth(
    read_csv(Path(snakemake.input.recovery)),
    read_csv(Path(snakemake.input.similarity)),
    read_csv(Path(snakemake.input.fake_features)),
    snakemake.params.min_activation,
)
write_csv(table, Path(snakemake.output[0]))
