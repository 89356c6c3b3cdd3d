"""Make the page of features from the facts of its SAEs."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

import polars as pl

from faithful_sae.features import features_page
from faithful_sae.files import written_whole
from faithful_sae.tidy import read_parquet

params, files = snakemake.params, snakemake.input
tables = {
    name: pl.concat(read_parquet(Path(path)) for path in files[name])
    for name in ("latents", "contexts", "logits")
}
page = features_page(
    tables,
    {key: value for key, value in params.items() if key not in ("template", "code")},
)
with written_whole(Path(snakemake.output[0])) as temporary:
    temporary.write_text(page, "utf-8")
