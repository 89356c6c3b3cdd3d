"""Write down what a study was made from and by."""

import platform
import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import verify
from faithful_sae.digest import LIBRARY
from faithful_sae.provenance import git_commit, library_versions, study_crate, write_plain_json

crate, config = Path(snakemake.output.crate), Path(snakemake.output.config)
tables = [Path(path) for path in snakemake.input.tables]
sums = Path(snakemake.input.sums)
verify(sums.parent, *tables)
write_plain_json(snakemake.params.config, config)
outputs = [config, sums, *tables, *(Path(path) for path in snakemake.input.figures)]
versions = {"python": platform.python_version(), "snakemake": snakemake.params.snakemake}
content = study_crate(
    crate.parent,
    [Path(path) for path in snakemake.input.sources],
    outputs,
    versions | library_versions(),
    git_commit(LIBRARY.parents[1]),
)
write_plain_json(content, crate)
