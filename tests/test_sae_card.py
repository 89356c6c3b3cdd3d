"""What a card says of its own SAE when the tables hold others too."""

import polars as pl
from exports import ABOUT, save_sae, tables

from faithful_sae.export_sae import export_sae


def test_a_card_is_of_its_own_sae_whatever_else_the_tables_hold(tmp_path):
    """The rule hands over all SAEs that were evaluated on the same text, of every corpus."""
    save_sae(tmp_path / "sae")
    own, cards = tables(), []
    others = {
        name: pl.concat(
            [
                table,
                *(
                    table.with_columns(pl.lit("another").alias(key), pl.col("value") + 5)
                    for key in ("corpus", "sae", "hook")
                ),
            ]
        )
        for name, table in own.items()
    }
    for name, given in (("own", own), ("others", others)):
        export_sae([tmp_path / "sae"], tmp_path / name, given, **ABOUT)
        cards.append((tmp_path / name / "README.md").read_text())
    assert cards[0] == cards[1]
