"""Similarity of SAEs that differ in their seed or their corpus, and its nulls, as tables.

What is measured on the weights stands in pairing.py, on common tokens in agreement.py; nulls.py has
the dictionaries that share nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import combinations
from typing import NamedTuple, TypeAlias

import polars as pl
from torch import Tensor

from faithful_sae.agreement import contribution_cka, correlations, matched_correlations, shifted
from faithful_sae.heldout import Heldout
from faithful_sae.latents import Encoded, encode
from faithful_sae.nulls import activation_covariance, covariance_null
from faithful_sae.pairing import (
    Matched,
    Pairs,
    encoder_decoder_agreement,
    firing_weight,
    match_alive,
    match_all,
    mean_matched_cosine,
    permute_partners,
    shared_feature_ratio,
)
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

# Paulo & Belrose count an agreement at this cosine; FaithfulSAE uses the same cut for the SFR.
AGREEMENT_THRESHOLD = 0.7
NULL_PAIRS = 3  # pairs of seeds for which the dearer nulls are drawn
SCHEMA = {
    "latents": pl.String,
    "metric": pl.String,
    "threshold": pl.Float64,
    "value": pl.Float64,
}
Rows: TypeAlias = list[tuple[str, str, float | None, float]]  # as SCHEMA says


class Comparison(NamedTuple):
    """Two SAEs, encoded on held-out tokens and matched.

    every: all latents, dead ones included; alive: the alive ones with each other.
    """

    a: Encoded
    b: Encoded
    every: Matched
    alive: Matched


def compare(a: Encoded, b: Encoded) -> Comparison:
    """Match two SAEs of the same shape, on whatever tokens each was encoded."""
    every = match_all(a.sae, b.sae)  # first: a weight that is not finite is named by its latent
    return Comparison(a, b, every, match_alive(a.sae, b.sae, a.alive, b.alive))


def weight_similarity(pair: Comparison, thresholds: Sequence[float]) -> Rows:
    """Similarity of the weights, over three kinds of latents.

    "all": every latent is matched; the denominator is d_sae, dead latents included (the paper's).
    "alive": only alive latents are matched, with each other; the denominator is the SMALLER of
    the two alive counts, since no more pairs can exist. NaN where no latent is alive.
    "firing_weighted": the pairs of "all", each counted by its `firing_weight`.

    thresholds: cosines for the SFR; must contain 0.7, or ValueError is raised.
    """
    if AGREEMENT_THRESHOLD not in thresholds:
        raise ValueError(
            f"similarity thresholds {list(thresholds)} do not contain {AGREEMENT_THRESHOLD}, "
            "the headline cut: add it"
        )
    rows = _decoder_rows(pair, pair.every.decoder, pair.alive.decoder, thresholds)
    for latents, matched in (("all", pair.every), ("alive", pair.alive)):
        agreement = encoder_decoder_agreement(matched, AGREEMENT_THRESHOLD)
        rows.append((latents, "encoder_decoder_agreement", AGREEMENT_THRESHOLD, agreement))
    return rows


def permuted_similarity(pair: Comparison, thresholds: Sequence[float], seed: int) -> Rows:
    """`weight_similarity` by the decoder, with the partners of each matching permuted."""
    every, alive = (
        permute_partners(matched.decoder, pair.a.sae, pair.b.sae, seed)
        for matched in (pair.every, pair.alive)
    )
    return _decoder_rows(pair, every, alive, thresholds)


def _decoder_rows(
    pair: Comparison, every: Pairs, alive: Pairs, thresholds: Sequence[float]
) -> Rows:
    weight = firing_weight(every, pair.a.frequency, pair.b.frequency)
    return [
        *_cosine_rows("all", every.cosine, thresholds),
        *_cosine_rows("alive", alive.cosine, thresholds),
        *_cosine_rows("firing_weighted", every.cosine, thresholds, weight),
    ]


def _cosine_rows(
    latents: str, cosine: Tensor, thresholds: Sequence[float], weight: Tensor | None = None
) -> Rows:
    return [
        *(
            (latents, "shared_feature_ratio", cut, shared_feature_ratio(cosine, cut, weight))
            for cut in thresholds
        ),
        (latents, "mean_matched_cosine", None, mean_matched_cosine(cosine, weight)),
    ]


def activation_agreement(pair: Comparison, thresholds: Sequence[float]) -> Rows:
    """Do alive latents of two SAEs fire together on the same tokens (Lan et al. 2024)?

    correlated_feature_ratio, mean_matched_correlation: as the SFR and the mean matched cosine, of
    the pairs that maximise the total Pearson correlation of activations in place of the cosine.
    correlation_of_matched: mean correlation of the pairs that the decoders' cosine matched.
    """
    correlation = correlations(pair.a.latents, pair.b.latents)
    best = matched_correlations(correlation[pair.a.alive][:, pair.b.alive])
    by_cosine = correlation[pair.alive.decoder.a, pair.alive.decoder.b]
    return [
        *(
            ("alive", "correlated_feature_ratio", cut, shared_feature_ratio(best, cut))
            for cut in thresholds
        ),
        ("alive", "mean_matched_correlation", None, mean_matched_cosine(best)),
        ("alive", "correlation_of_matched", None, mean_matched_cosine(by_cosine)),
    ]


def subspace_agreement(pair: Comparison) -> Rows:
    """`contribution_cka` of the latents with a partner above cosine 0.7, and of all others."""
    a, b, decoder = pair.a, pair.b, pair.every.decoder
    shared = decoder.cosine > AGREEMENT_THRESHOLD
    rows: Rows = []
    for latents, some in (("matched", shared), ("unmatched", ~shared)):
        i, j = decoder.a[some], decoder.b[some]
        cka = contribution_cka(
            a.latents[:, i.numpy()], a.sae.W_dec[i], b.latents[:, j.numpy()], b.sae.W_dec[j]
        )
        rows.append((latents, "contribution_cka", AGREEMENT_THRESHOLD, cka))
    return rows


def similarity_of_seeds(
    saes: Mapping[int, SAE], heldout: Shards | Heldout, thresholds: Sequence[float]
) -> pl.DataFrame:
    """All pairs of seeds of one corpus, with the nulls of their similarity.

    null "none": the trained pair.  "permuted": their matchings with permuted partners; where
    activations are compared, with those on `shifted` tokens.  "covariance": `covariance_null` of
    the held-out activations.  "untrained": the SAEs as training found them.
    The first NULL_PAIRS pairs have all nulls; the others only permuted partners, which need neither
    a matching nor a pass over tokens of their own.
    Columns seed, seed_b, null, latents, metric, threshold, value.
    """
    covariance = activation_covariance(heldout.batches())
    encoded = {seed: encode(sae, heldout) for seed, sae in saes.items()}

    @cache
    def untrained(seed: int) -> Encoded:
        first = saes[min(saes)]  # its b_dec is taken for the mean of the data
        start = SAE.untrained_about(first.b_dec, d_sae=first.d_sae, k=first.k, seed=seed)
        return encode(start, heldout)

    frames = []
    # A single seed has no pair, but its nulls can still be drawn.
    pairs = list(combinations(sorted(saes), 2)) or [(seed, seed) for seed in saes]
    for number, (a, b) in enumerate(pairs):
        rows: dict[str, Rows] = {}
        if a != b:
            rows |= _trained_pair(compare(encoded[a], encoded[b]), thresholds, number)
        if number < NULL_PAIRS:
            cosine = covariance_null(covariance, saes[a].d_sae, seed=number)
            rows["covariance"] = _cosine_rows("all", cosine, thresholds)
            pair = compare(untrained(a), untrained(b if b != a else a + 1))
            rows["untrained"] = weight_similarity(pair, thresholds)
            rows["untrained"] += activation_agreement(pair, thresholds)
        for null, some in rows.items():
            frames.append(_table(some, {"seed": a, "seed_b": b, "null": null}))
    return pl.concat(frames)


def _trained_pair(pair: Comparison, thresholds: Sequence[float], number: int) -> dict[str, Rows]:
    observed = weight_similarity(pair, thresholds)
    observed += activation_agreement(pair, thresholds) + subspace_agreement(pair)
    permuted = permuted_similarity(pair, thresholds, seed=number)
    if number < NULL_PAIRS:
        moved = pair._replace(b=Encoded(pair.b.sae, shifted(pair.b.latents)))
        permuted += activation_agreement(moved, thresholds) + subspace_agreement(moved)
    return {"none": observed, "permuted": permuted}


def similarity_of_corpora(
    saes: Mapping[tuple[str, int], SAE],
    heldout: Mapping[str, Shards],
    thresholds: Sequence[float],
) -> pl.DataFrame:
    """Weights of SAEs trained on different corpora; each corpus's own text says what fires.

    Each seed of a corpus is paired with the NEXT one of the other, in a circle: SAEs of equal seed
    start from equal weights, which alone would make them alike, as no pair within a corpus is. A
    study of one seed has no other pairs than those.

    saes: by (corpus, seed), the same seeds for every corpus. Columns corpus, corpus_b, seed,
    seed_b, null ("none"), latents, metric, threshold, value.
    """
    encoded = {key: encode(sae, heldout[key[0]]) for key, sae in saes.items()}
    corpora, seeds = list(dict.fromkeys(corpus for corpus, _ in saes)), sorted({s for _, s in saes})
    following = dict(zip(seeds, [*seeds[1:], seeds[0]], strict=True))
    kinds = dict.fromkeys(["corpus", "corpus_b", "null"], pl.String)
    frames = [pl.DataFrame(schema=SCHEMA | kinds | dict.fromkeys(["seed", "seed_b"], pl.Int32))]
    for corpus, corpus_b in combinations(corpora, 2):
        for seed, seed_b in following.items():
            pair = compare(encoded[corpus, seed], encoded[corpus_b, seed_b])
            place = {"corpus": corpus, "corpus_b": corpus_b, "null": "none"}
            rows = weight_similarity(pair, thresholds)
            frames.append(_table(rows, place | {"seed": seed, "seed_b": seed_b}))
    return pl.concat(frames)


def similarity_of_pretrained(
    saes: Mapping[str, SAE], heldout: Heldout, thresholds: Sequence[float]
) -> pl.DataFrame:
    """All pairs of pretrained SAEs of one model and hook, nulls "none" and "permuted".

    They are read at one place, so their decoder rows are directions in one space and their latents
    fire on common tokens; more they need not share. Of two widths every latent of the narrower SAE
    is matched, and ratios are shares of these. The other nulls are about one SAE and stand where a
    single seed's do: `similarity_of_seeds`.

    saes: by name. A pair stands under both names, so that each SAE's rows are complete. Columns
    sae, corpus_b (the other's name), seed, seed_b (0), null, latents, metric, threshold, value.
    """
    encoded = {name: encode(sae, heldout) for name, sae in saes.items()}
    frames = []
    for number, (a, b) in enumerate(combinations(saes, 2)):
        rows = _trained_pair(compare(encoded[a], encoded[b]), thresholds, number)
        for null, some in rows.items():
            for sae, other in ((a, b), (b, a)):
                place = {"sae": sae, "corpus_b": other, "null": null}
                frames.append(_table(some, place | {"seed": 0, "seed_b": 0}))
    return pl.concat(frames)


def _table(rows: Rows, coordinates: Mapping[str, int | str]) -> pl.DataFrame:
    table = pl.DataFrame(rows, schema=SCHEMA, orient="row")
    return table.with_columns(pl.lit(value).alias(name) for name, value in coordinates.items())
