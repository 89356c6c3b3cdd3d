"""Which latent of one SAE belongs to which of another by its weights, and how alike they are.

Shared Feature Ratio: FaithfulSAE (Cho et al. 2025); mean matched cosine: Song et al. 2025;
agreement of encoder and decoder: Paulo & Belrose 2025.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from faithful_sae.matching import match_smaller
from faithful_sae.sae import SAE


class Pairs(NamedTuple):
    """Latent a[i] of one SAE belongs to latent b[i] of the other, with this cosine.

    a, b: [n] int64, no latent twice.  cosine: [n] float32.
    """

    a: Tensor
    b: Tensor
    cosine: Tensor


class Matched(NamedTuple):
    """The one-to-one pairs of largest total cosine, by W_dec rows and by W_enc columns.

    Row i of both is about the same latent of the SAE with fewer latents to match.
    """

    decoder: Pairs
    encoder: Pairs


def match_all(a: SAE, b: SAE) -> Matched:
    """Every latent of the SAE with fewer of them with one of the other, dead ones included.

    Raises ValueError for SAEs of different d_in or weights that are not finite.
    """
    if a.d_in != b.d_in:
        raise ValueError(
            f"SAEs of d_in {a.d_in} and {b.d_in} share no space: compare the same d_in"
        )
    return match_alive(
        a, b, torch.ones(a.d_sae, dtype=torch.bool), torch.ones(b.d_sae, dtype=torch.bool)
    )


def match_alive(a: SAE, b: SAE, alive_a: Tensor, alive_b: Tensor) -> Matched:
    """Alive latents with each other: as many pairs as the SAE with fewer of them has.

    alive_a, alive_b: [d_sae] bool.
    """
    ids_a, ids_b = alive_a.nonzero().flatten(), alive_b.nonzero().flatten()

    def pairs(rows_a: Tensor, rows_b: Tensor) -> Pairs:
        matching = match_smaller(rows_a[ids_a], rows_b[ids_b])
        if len(ids_a) <= len(ids_b):
            return Pairs(ids_a, ids_b[matching.partner], matching.cosine)
        return Pairs(ids_a[matching.partner], ids_b, matching.cosine)

    return Matched(pairs(a.W_dec, b.W_dec), pairs(a.W_enc.T, b.W_enc.T))


def permute_partners(pairs: Pairs, a: SAE, b: SAE, seed: int) -> Pairs:
    """The null of a matching: each latent gets the partner of another one, chosen at random.

    The partners go round one random cycle through all pairs, so that none stays where it was, and
    the decoder cosines are read anew: what is left is what any two latents of these SAEs have in
    common. Fewer than two pairs cannot be permuted: no pair is returned.
    """
    n = len(pairs.a)
    if n < 2:
        return Pairs(pairs.a[:0], pairs.b[:0], pairs.cosine[:0])
    cycle = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    partner = torch.empty_like(pairs.b)
    partner[cycle] = pairs.b[cycle.roll(1)]
    return Pairs(pairs.a, partner, cosine_similarity(a.W_dec[pairs.a], b.W_dec[partner]))


def shared_feature_ratio(cosine: Tensor, threshold: float, weight: Tensor | None = None) -> float:
    """Share of matched latents whose cosine is strictly above `threshold`.

    SFR = #{i : cosine_i > threshold} / n  (FaithfulSAE; code of the authors: decoder, 0.7); with
    weights, their sum over these latents / their sum over all.
    cosine, weight: [n], one entry for each pair. NaN when n or all weights are 0.
    """
    return _mean(cosine > threshold, weight)


def mean_matched_cosine(cosine: Tensor, weight: Tensor | None = None) -> float:
    """Mean cosine of matched latents: stability without a threshold (Song et al. 2025, PW-MCC).

    Its null is far from 0 at small d_in, about sqrt(2 ln n / d_in): compare with `covariance_null`.
    cosine, weight: [n], one entry for each pair. NaN when n or all weights are 0.
    """
    return _mean(cosine, weight)


def _mean(values: Tensor, weight: Tensor | None) -> float:
    if weight is None:
        return values.double().mean().item()
    return ((weight * values).sum() / weight.sum()).item()


def firing_weight(pairs: Pairs, frequency_a: Tensor, frequency_b: Tensor) -> Tensor:
    """How often the two latents of each pair fire, (f_a + f_b) / 2, [n] float64.

    Dead latents weigh nothing and rare ones little: weighted by it, a ratio is about the latents
    that do most of the work.  frequency_a, frequency_b: [d_sae] shares of held-out tokens.
    """
    return (frequency_a[pairs.a] + frequency_b[pairs.b]) / 2


def encoder_decoder_agreement(matched: Matched, threshold: float) -> float:
    """Share of latents that decoder and encoder match to the same partner, both above `threshold`.

    #{i : decoder.partner_i = encoder.partner_i, both cosines > threshold} / n  (Paulo & Belrose
    2025). NaN when n is 0.
    """
    decoder, encoder = matched
    same = (decoder.a == encoder.a) & (decoder.b == encoder.b)
    both = torch.minimum(decoder.cosine, encoder.cosine) > threshold
    return (same & both).double().mean().item()
