"""What the checks of a pretrained SAE can say, and who must hear it."""

import csv
from pathlib import Path

from faithful_sae.checksums import verify

FITS, SUSPECT, UNKNOWN = "fits", "suspect", "unknown"


def suspicions(table: Path) -> list[str]:
    """One sentence for each suspect row of audit.csv; none where a study audits nothing.

    Raises ValueError naming the table when it is damaged: a lost verdict is not heard.
    """
    if not table.exists():
        return []
    verify(table.parent, table)
    with table.open(newline="") as file:
        return [
            f"{row['model']}, {row['sae']}, {row['check']}: {row['cause']}"
            for row in csv.DictReader(file)
            if row["verdict"] == SUSPECT
        ]
