"""Which latents are fake, matched or silent, which are listed, and what a token reads as."""

import polars as pl
import pytest
import torch
from synthetic_shards import write_shards

from faithful_sae.feature_facts import (
    Limits,
    feature_facts,
    latent_kinds,
    listed,
    partners,
    token_texts,
)
from faithful_sae.sae import SAE
from faithful_sae.shards import EVERY_POSITION, Shards
from faithful_sae.tidy import read_parquet, with_coordinates, write_parquet


def firing(heldout: list[float], random: list[float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"latent": range(len(heldout)), "heldout": heldout, "uniform-tokens": random}
    )


def with_cosines(cosines: list[float | None]) -> pl.DataFrame:
    columns = {"latent": range(len(cosines)), "partner": [0] * len(cosines), "cosine": cosines}
    return pl.DataFrame(columns, schema_overrides={"cosine": pl.Float64})


def test_a_latent_is_of_the_first_kind_that_holds():
    table = latent_kinds(
        firing([0.5, 0.2, 0.0, 0.0, 0.3, 0.3], [0.2, 0.1, 0.0, 0.01, 0.0, 0.0]),
        with_cosines([0.9, 0.7, 0.9, 0.71, 0.1, 0.8]),
        frequency=0.1,
    )
    assert table["kind"].to_list() == [
        *("fake", "unmatched", "silent", "matched", "unmatched", "matched")
    ]
    alone = latent_kinds(firing([0.5, 0.5], [0.2, 0.0]), with_cosines([None, None]), 0.1)
    assert alone["kind"].to_list() == ["fake", "unpaired"]


def test_partners_are_those_of_the_decoders_matching():
    sae = SAE.untrained(d_in=5, d_sae=8, k=2, seed=0)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    moved = SAE(sae.W_enc[:, order], sae.b_enc, sae.W_dec[order], sae.b_dec, 2)
    table = partners(sae, moved)
    assert order[table["partner"].to_list()].tolist() == list(range(8))
    assert table["cosine"].to_list() == pytest.approx([1.0] * 8, abs=1e-6)
    assert partners(sae, None)["partner"].null_count() == 8


def test_fake_latents_are_listed_by_frequency_and_others_evenly_by_cosine():
    n = 25
    latents = pl.DataFrame(
        {
            "latent": range(n),
            "kind": ["fake"] * 4 + ["matched"] * 9 + ["unmatched"] * 2 + ["silent"] * 10,
            "heldout": [0.1] * n,
            "uniform-tokens": [0.2, 0.5, 0.3, 0.4] + [0.01] * 21,
            "cosine": [0.1] * 4 + [0.99 - 0.03 * i for i in range(9)] + [0.5, 0.2] + [0.0] * 10,
        }
    )
    chosen = listed(latents, 3).filter("listed")["latent"].to_list()
    assert chosen == [1, 2, 3, 4, 8, 12, 13, 14]


@pytest.mark.parametrize("limit", [1, 2, 5, 100])
def test_no_kind_lists_more_than_the_limit_and_small_kinds_are_listed_whole(limit):
    kinds = ["fake"] * 7 + ["matched"] * 60 + ["unmatched"] * 3 + ["unpaired"] * 11
    latents = pl.DataFrame({"latent": range(len(kinds)), "kind": kinds}).with_columns(
        (pl.col("latent") % 13).alias(name) for name in ("heldout", "uniform-tokens", "cosine")
    )
    table = listed(latents, limit)
    for (kind,), part in table.group_by("kind"):
        assert part["listed"].sum() == min(limit, len(part)), kind


def test_a_token_reads_as_what_it_adds_to_a_text():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"▁a": 0, "▁the": 1, "re": 2, "</script>": 3}
    model = Tokenizer(models.WordLevel(vocabulary, unk_token="▁a"))
    model.pre_tokenizer = pre_tokenizers.Metaspace()
    model.decoder = decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=model)
    assert tokenizer.decode([1]) == "the"  # such tokenizers drop the first space
    texts = {0: " a", 1: " the", 2: "re", 3: "</script>", 9: "[9]"}
    assert token_texts(tokenizer, [9, 3, 2, 1, 0]) == texts


def test_bytes_read_as_themselves(tokenizer):
    tokens = tokenizer("x</p> \n", add_special_tokens=False)["input_ids"]
    assert "".join(token_texts(tokenizer, tokens)[t] for t in tokens) == "x</p> \n"


def test_facts_are_of_the_listed_latents_and_survive_their_files(tmp_path, llama, tokenizer):
    d_sae = 24
    sae, sibling = (SAE.untrained(d_in=16, d_sae=d_sae, k=4, seed=seed) for seed in (0, 1))
    x = torch.randn(40, 16, generator=torch.Generator().manual_seed(0))
    inputs = {
        name: Shards(write_shards(tmp_path / name, part, [10, 10]), EVERY_POSITION)
        for name, part in (("heldout", x[:20]), ("random", x[20:]))
    }
    on_random = [0.2 if i < 3 else 0.01 for i in range(d_sae)]
    facts = feature_facts(
        *(sae, sibling, firing([0.1] * d_sae, on_random), inputs, llama, tokenizer),
        frequency=0.1,
        limits=Limits(latents=2, contexts=3, window=4),
    )
    latents = facts["latents"]
    assert len(latents) == d_sae
    wanted = set(latents.filter("listed")["latent"])
    assert set(facts["logits"]["latent"]) == wanted >= set(facts["contexts"]["latent"])
    assert set(facts["contexts"]["input"]) == {"heldout", "random"}
    assert facts["contexts"]["tokens"].list.len().max() <= 4
    assert facts["contexts"].group_by("latent", "input").len()["len"].max() <= 3
    for name, table in facts.items():
        table = with_coordinates(table, {"corpus": "notes", "seed": "0"})
        write_parquet(table, tmp_path / f"{name}.parquet")
        assert read_parquet(tmp_path / f"{name}.parquet").equals(table), name
