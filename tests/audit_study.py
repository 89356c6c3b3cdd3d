"""The README's audit, carried out on SAEs of the tiny study as if others had published them."""

import re
import shutil
from pathlib import Path

import polars as pl
import yaml
from foreign_saes import saelens, sparsify, write_folder
from repository import ROOT

from faithful_sae.sae import SAE

# README's entry -> corpus and seed of the trained SAE that stands for it.
STANDS_FOR = {"theirs": ("notes", 1), "mine": ("faithful", 0)}


def readme_entries() -> dict:
    """The `saes:` of both examples of the README's section, at the tiny model's hook."""
    study, hub = (
        yaml.safe_load(text.replace("resid_pre.20", "resid_pre.1").replace("layers.19", "layers.0"))
        for text in readme_examples()
    )
    return study["saes"] | hub["saes"]


def readme_examples() -> list[str]:
    """The complete study, and an entry of an SAE on the hub."""
    section = (ROOT / "README.md").read_text().partition("## Audit an SAE you did not train")[2]
    return re.findall(r"```yaml\n(.*?)```", section.partition("\n## ")[0], flags=re.S)


def audit_instead_of_training(study: Path, copy: Path) -> None:
    """Copy a finished tiny study, and put pretrained SAEs in the place of those it trains.

    `theirs` lies where the hub's download would, in SAELens' form; `mine` in sparsify's.
    """
    shutil.copytree(study, copy, symlinks=True)
    tiny = copy / "tests/tiny"
    config = yaml.safe_load((tiny / "config.yaml").read_text())
    config["saes"] = entries = readme_entries()
    # In the order they had: params are compared as they are written.
    (tiny / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    theirs, mine = (trained(tiny, *STANDS_FOR[name]) for name in ("theirs", "mine"))
    revision, folder = entries["theirs"]["revision"], entries["theirs"]["folder"]
    write_folder(tiny / f"resources/saes/theirs@{revision}" / folder, *saelens(theirs))
    write_folder(tiny / entries["mine"]["path"], *sparsify(mine))


def trained(tiny: Path, corpus: str, seed: int) -> SAE:
    return SAE.load(tiny / f"results/tiny/tiny/{corpus}/resid_pre.1/topk/seed{seed}")


def check(study: Path, copy: Path, output: str) -> None:
    """The tables of the audit hold what those of the study say of the same SAEs."""
    before, after = (lambda name, root=root: read(root, name) for root in (study, copy))
    for name, (corpus, seed) in STANDS_FOR.items():
        here = [pl.col("sae") == name, pl.col("corpus") == "pretrained"]
        there = [pl.col("sae") == "topk", pl.col("corpus") == corpus, pl.col("seed") == seed]
        for table, *which in (
            # Without a corpus of its own it has no loss at all positions.
            ("reconstruction", pl.col("positions") == "kept"),
            ("probing",),
            # Cuts at own quantiles are of the text that an SAE calls its own.
            (
                "fake_features",
                pl.col("cut") == "absolute",
                pl.col("metric") == "fake_feature_ratio",
            ),
        ):
            found = values(after(table), *here, *which)
            assert found and found == values(before(table), *there, *which), table
    # Equal seeds are never paired in a study, so that one of these is of seed 1.
    pair = [pl.col("null") == "none", pl.col("latents") == "all"]
    between = [pl.col("corpus") == "faithful", pl.col("corpus_b") == "notes", pl.col("seed") == 0]
    expected = values(before("similarity"), pl.col("sae") == "topk", *between, *pair)
    for name, other in (("mine", "theirs"), ("theirs", "mine")):
        of_pair = [pl.col("sae") == name, pl.col("corpus_b") == other, *pair]
        found = values(after("similarity"), *of_pair)
        assert expected and found == expected
    summary = after("summary")
    assert set(summary["corpus"]) == {"pretrained"} and set(summary["seeds"]) == {1}
    assert {f"explained_variance:on_{c}" for c in ("faithful", "notes", "mixed")} < set(
        summary["metric"]
    )
    judged = after("audit").filter(pl.col("verdict").is_not_null())
    assert set(judged.select("sae", "check").rows()) == {
        (name, check) for name in STANDS_FOR for check in ("hook", "input", "k", "tokenizer")
    }
    # The tiny model is random: text is as unlikely as random ids, which the terminal is told.
    assert "Suspect: tiny, mine, tokenizer: notes costs" in output
    figures = {path.stem for path in (copy / "tests/tiny/results/tiny/figures").glob("*.png")}
    assert {"fake_features", "reconstruction", "shared_features", "probing"} < figures


def read(root: Path, name: str) -> pl.DataFrame:
    return pl.read_csv(
        root / f"tests/tiny/results/tiny/tables/{name}.csv", infer_schema_length=None
    )


def values(table: pl.DataFrame, *conditions: pl.Expr) -> dict[tuple, float]:
    """Values by their coordinates, but for which SAE they are of."""
    rows = table.filter(*conditions, pl.col("value").is_not_nan())
    rows = rows.drop("sae", "corpus", "corpus_b", "seed", "seed_b", strict=False)
    return {tuple(row[:-1]): row[-1] for row in rows.select(pl.exclude("value"), "value").rows()}
