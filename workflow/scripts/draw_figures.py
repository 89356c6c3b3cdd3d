"""Draw every figure of a study from its tables."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.figures import draw, save
from faithful_sae.tables import read_tables

params = snakemake.params
tables = read_tables([Path(path) for path in snakemake.input])
for name in params.figures:
    figure = draw(
        name,
        tables,
        params.corpora,
        frequency=params.frequency,
        min_activation=params.min_activation,
    )
    png = Path(snakemake.output[name])
    save(figure, png.with_suffix(".pdf"), png, params.dpi)
