"""Download files of one data set at a pinned commit."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.download import fetch_hub

fetch_hub(
    snakemake.params.hub,
    snakemake.wildcards.revision,
    Path(snakemake.output[0]),
    kind="dataset",
    files=snakemake.params.files,
)
