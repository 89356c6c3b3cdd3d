"""How much of a known dictionary an SAE recovered, and which of its latents are truly fake.

Fake is meant here as the paper means it: a latent that stands for no feature of the model. With
known features that can be looked up, and the paper's call (fires often on random tokens) be graded.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import polars as pl
import torch
from torch import Tensor
from torch.nn.functional import normalize

from faithful_sae.fake_features import FREQUENCIES
from faithful_sae.firing import firing_frequencies, firings
from faithful_sae.headline import RECOVERED_THRESHOLD
from faithful_sae.known_features import KnownFeatures
from faithful_sae.latents import encode
from faithful_sae.linear import linear
from faithful_sae.matching import match_smaller
from faithful_sae.reconstruction import reconstruction_metrics
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

LOOSELY_RECOVERED = 0.7  # the cosine at which the paper calls two latents one feature
KNOWN_THRESHOLD = 0.7  # below this |cosine| with every feature of the model a latent is truly fake
SCHEMA = {
    "metric": pl.String,
    "threshold": pl.Float64,
    "frequency": pl.Float64,
    "value": pl.Float64,
}
Row = tuple[str, float | None, float | None, float]


def recovered_features(W_dec: Tensor, features: Tensor, weights: Tensor) -> list[Row]:
    """How many known features have a latent: rows of SCHEMA.

    Decoder rows and features are matched one to one to the largest total cosine (as for the SFR).
    recovered_features: share of the features whose partner's cosine is above the threshold (a
    feature without partner, d_sae being too small, is not recovered). recovered_features_weighted:
    the same, each feature counting by its weight. mean_matched_cosine_to_truth: over all pairs.

    W_dec: [d_sae, d_in]; features: [n, d_in]; weights: [n], of sum 1.
    """
    matching = match_smaller(features, W_dec)
    # Partners belong to the rows of the smaller set.
    matched = torch.arange(len(features)) if len(features) <= len(W_dec) else matching.partner
    cosine = torch.full((len(features),), -1.0).scatter(0, matched, matching.cosine)
    rows: list[Row] = []
    for threshold in (LOOSELY_RECOVERED, RECOVERED_THRESHOLD):
        found = (cosine > threshold).double()
        rows.append(("recovered_features", threshold, None, found.mean().item()))
        rows.append(("recovered_features_weighted", threshold, None, (found @ weights).item()))
    mean = matching.cosine.double().mean().item()
    return [*rows, ("mean_matched_cosine_to_truth", None, None, mean)]


def truly_fake(W_dec: Tensor, own: Tensor, external: Tensor) -> tuple[Tensor, Tensor]:
    """Latents that stand for no feature of the model, and those of them that are external ones.

    Fake: `|cosine|` <= 0.7 with every own feature. External: fake, and cosine > 0.7 with an
    external feature. W_dec: [d_sae, d_in]; own, external: [n, d_in]; both results: [d_sae] bool.
    """
    rows = normalize(W_dec.float(), dim=1)
    fake = linear(rows, own).abs().amax(1) <= KNOWN_THRESHOLD
    return fake, fake & (linear(rows, external) > KNOWN_THRESHOLD).any(1)


def graded_calls(fake: Tensor, random: Tensor, frequencies: Sequence[float]) -> list[Row]:
    """How well `random > frequency`, the paper's call, finds the truly fake: rows of SCHEMA.

    fake_call_precision: share of the called that are truly fake, NaN where none is called.
    fake_call_recall: share of the truly fake that are called, NaN where there is none.
    fake: [n] bool; random: [n], share of random tokens on which each fires.
    """
    rows: list[Row] = []
    for frequency in frequencies:
        called = random > frequency
        hits = int((called & fake).sum())
        rows.append(("fake_call_precision", None, frequency, _share(hits, int(called.sum()))))
        rows.append(("fake_call_recall", None, frequency, _share(hits, int(fake.sum()))))
    return rows


def auroc(fake: Tensor, score: Tensor) -> float:
    """Probability that a truly fake latent has a higher score than another (ties: one half).

    Area under the receiver operating characteristic: 0.5 is guessing. NaN unless both kinds occur.
    fake: [n] bool; score: [n].
    """
    from sklearn.metrics import roc_auc_score

    if bool(fake.all()) or not bool(fake.any()):
        return math.nan
    return float(roc_auc_score(fake.numpy(), score.numpy()))


def recovery(
    sae: SAE,
    model: KnownFeatures,
    own: Shards,
    faithful: Shards,
    random: Shards,
    min_activation: float,
    frequencies: Sequence[float],
) -> pl.DataFrame:
    """All that known features tell of one SAE: columns metric, threshold, frequency, value.

    Beside `recovered_features`, weighted by the model's own frequencies: explained_variance, l0 and
    dead_fraction on the held-out tokens of the SAE's corpus, explained_variance_faithful on those
    of the model's own distribution. Over the latents that are alive (fire on the held-out tokens of
    their corpus): truly_fake_ratio, and the parts of it truly_fake_external_ratio and
    truly_fake_neither_ratio (no known direction at all); `graded_calls`; random_auroc, of the
    firing frequency on random tokens (what the paper calls by, without its cut); contrast_auroc, of
    random / (random + held-out), the share of its firing that is on random tokens.
    """
    dictionary = torch.from_numpy(model.dictionary)
    features, external = dictionary[: model.features], dictionary[model.features :]
    weights = torch.from_numpy(model.probabilities(0.0)[: model.features])
    rows = recovered_features(sae.W_dec, features, weights)

    metrics = reconstruction_metrics(sae, own)
    for metric in ("explained_variance", "l0", "dead_fraction"):
        rows.append((metric, None, None, metrics[metric]))
    of_faithful = reconstruction_metrics(sae, faithful)["explained_variance"]
    rows.append(("explained_variance_faithful", None, None, of_faithful))

    alive = encode(sae, own).alive
    fake, is_external = (latents[alive] for latents in truly_fake(sae.W_dec, features, external))
    n = int(alive.sum())
    for metric, latents in (
        ("truly_fake_ratio", fake),
        ("truly_fake_external_ratio", is_external),
        ("truly_fake_neither_ratio", fake & ~is_external),
    ):
        rows.append((metric, None, None, _share(int(latents.sum()), n)))
    cuts = torch.full((1, sae.d_sae), float(min_activation))
    on_random, on_heldout = (
        firing_frequencies(firings(sae, shards.batches()), cuts)[0, alive]
        for shards in (random, own)
    )
    rows += graded_calls(fake, on_random, frequencies)
    contrast = (on_random / (on_random + on_heldout)).nan_to_num(0.5)  # never fired: no contrast
    rows.append(("random_auroc", None, None, auroc(fake, on_random)))
    rows.append(("contrast_auroc", None, None, auroc(fake, contrast)))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def recovery_of_seeds(
    saes: Mapping[int, SAE],
    model: KnownFeatures,
    own: Shards,
    faithful: Shards,
    random: Shards,
    min_activation: float,
    frequency: float,
) -> pl.DataFrame:
    """`recovery` of every seed, with a column `seed`; calls at FREQUENCIES and at `frequency`."""
    frequencies = sorted({*FREQUENCIES, frequency})
    return pl.concat(
        recovery(sae, model, own, faithful, random, min_activation, frequencies).with_columns(
            seed=pl.lit(seed)
        )
        for seed, sae in saes.items()
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
