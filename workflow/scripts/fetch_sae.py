"""Download one SAE at a pinned commit; safetensors only."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.download import fetch_hub
from faithful_sae.foreign import CONFIG, SAELENS, SPARSIFY

params = snakemake.params
fetch_hub(
    params.hub,
    snakemake.wildcards.revision,
    Path(snakemake.output[0]),
    kind="model",
    files=[str(Path(params.folder, name)) for name in (CONFIG, SAELENS, SPARSIFY)],
)
