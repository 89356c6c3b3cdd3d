"""State the facts of a model and check the study against them."""

import sys

sys.stdout = sys.stderr = open(snakemake.log[0], "w", buffering=1)

from pathlib import Path

from faithful_sae.checksums import write_json
from faithful_sae.config import check_model
from faithful_sae.entries import model_entry
from faithful_sae.prepare import describe_model
from faithful_sae.study_disk import require_disk_for_study

facts = describe_model(
    snakemake.wildcards.model,
    Path(snakemake.input.folder),
    snakemake.params.start_token,
    snakemake.params.end_tokens,
)
# The whole config is checked here but is no param: a hook added later must not make the facts, and
# with them every corpus, anew. From then on common.smk checks it.
facts["entry"] = model_entry(snakemake.config, snakemake.wildcards.model)
check_model(snakemake.config, facts)
facts_file = Path(snakemake.output[0])
require_disk_for_study(facts_file.parent, facts["d_in"], snakemake.config)
write_json(facts, facts_file)
