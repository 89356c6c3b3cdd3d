"""Facts of single latents, for people to look at: partner, contexts that fire them, logit effect.

Every latent has a row; contexts and logit effects are of the listed ones alone, so that the page
made of them (features.py) is of bounded size.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from faithful_sae.logit_effects import logit_effects, strongest_effects
from faithful_sae.matching import match
from faithful_sae.models import encode
from faithful_sae.random_inputs import UNIFORM
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards
from faithful_sae.similarity import AGREEMENT_THRESHOLD
from faithful_sae.strongest_contexts import strongest_contexts


class Limits(NamedTuple):
    """What is listed at most: latents of each kind, contexts of each input, tokens of a context."""

    latents: int
    contexts: int
    window: int


def feature_facts(
    sae: SAE,
    sibling: SAE | None,
    firing: pl.DataFrame,
    inputs: Mapping[str, Shards],
    model: Any,
    tokenizer: Any,
    frequency: float,
    limits: Limits,
) -> dict[str, pl.DataFrame]:
    """Tables `latents` (all of them), `contexts` and `logits` (of the listed ones).

    sibling: the SAE of another seed, None if the study has one seed.
    firing: `firing_table` of this SAE; inputs: what the contexts are looked for in, by name.
    """
    latents = listed(latent_kinds(firing, partners(sae, sibling), frequency), limits.latents)
    ids = latents.filter("listed")["latent"].to_numpy(writable=True)
    contexts = pl.concat(
        strongest_contexts(sae, shards, ids, limits.contexts, limits.window).with_columns(
            pl.lit(name).alias("input")
        )
        for name, shards in inputs.items()
    )
    logits = strongest_effects(logit_effects(model, sae.W_dec[ids]), ids)
    text = token_texts(tokenizer, {*contexts["tokens"].explode().drop_nulls(), *logits["token"]})
    named = pl.element().replace_strict(text, return_dtype=pl.String)
    return {
        "latents": latents,
        "contexts": contexts.with_columns(pl.col("tokens").list.eval(named)),
        "logits": logits.with_columns(
            pl.col("token").replace_strict(text, return_dtype=pl.String).alias("text")
        ),
    }


def partners(sae: SAE, sibling: SAE | None) -> pl.DataFrame:
    """Each latent's partner in the sibling by the exact matching of decoder rows, and its cosine.

    Columns latent, partner, cosine; the last two null without a sibling.
    """
    table = pl.DataFrame({"latent": range(sae.d_sae)}, schema={"latent": pl.Int64})
    if sibling is None:
        return table.with_columns(
            pl.lit(None, pl.Int64).alias("partner"), pl.lit(None, pl.Float64).alias("cosine")
        )
    matching = match(sae.W_dec, sibling.W_dec)
    return table.with_columns(
        pl.Series("partner", matching.partner.numpy()),
        pl.Series("cosine", matching.cosine.double().numpy()),
    )


def latent_kinds(firing: pl.DataFrame, partners: pl.DataFrame, frequency: float) -> pl.DataFrame:
    """The tables joined, with a column `kind`, the first of these that holds:

    fake: fires on more than `frequency` of the uniformly random tokens (the FFR's cut);
    silent: fires neither on held-out text nor on those;
    unpaired: there is no other seed;  matched: partner cosine > 0.7 (the SFR's cut);  unmatched.

    firing: columns latent, heldout and one of each random input, as `firing_table`.
    """
    fires = pl.max_horizontal("heldout", UNIFORM) > 0
    kind = (
        pl.when(pl.col(UNIFORM) > frequency)
        .then(pl.lit("fake"))
        .when(~fires)
        .then(pl.lit("silent"))
        .when(pl.col("cosine").is_null())
        .then(pl.lit("unpaired"))
        .when(pl.col("cosine") > AGREEMENT_THRESHOLD)
        .then(pl.lit("matched"))
        .otherwise(pl.lit("unmatched"))
    )
    return firing.join(partners, on="latent", validate="1:1").sort("latent").with_columns(kind=kind)


def listed(latents: pl.DataFrame, limit: int) -> pl.DataFrame:
    """The table with a column `listed`: at most `limit` latents of each kind, silent ones never.

    The fake latents most frequent on random tokens; of the other kinds latents evenly spaced in the
    order of partner cosine (unpaired: of frequency on text), so that they stand for their kind.
    """
    chosen: list[int] = []
    for kind, order in (
        ("fake", UNIFORM),
        ("matched", "cosine"),
        ("unmatched", "cosine"),
        ("unpaired", "heldout"),
    ):
        some = latents.filter(pl.col("kind") == kind)
        some = some.sort(order, "latent", descending=[True, False])
        n = len(some)
        if kind == "fake":
            rows = np.arange(min(n, limit))
        else:
            rows = np.unique(np.linspace(0, max(n - 1, 0), min(n, limit)).round().astype(int))
        chosen += some["latent"].gather(rows).to_list()
    return latents.with_columns(pl.col("latent").is_in(chosen).alias("listed"))


def token_texts(tokenizer: Any, tokens: Iterable[int]) -> dict[int, str]:
    """What each id adds to a text, leading space included; [id] for one without text.

    Read behind an `a`: some tokenizers drop the space of the first word. A piece of a character
    that takes several tokens is the replacement character.
    """

    def decode(ids: list[int]) -> str:
        text: str = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
        return text

    (before,) = encode(tokenizer, ["a"])
    texts = {token: decode([*before, token]) for token in sorted(tokens)}
    return {token: text[len(decode(before)) :] or f"[{token}]" for token, text in texts.items()}
