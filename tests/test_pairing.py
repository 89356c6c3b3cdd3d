"""Ratios read off a matching mean what they say; permuted partners are a null."""

import math

import pytest
import torch
from torch import Tensor

from faithful_sae.matching import match
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


def rows(seed: int, n: int = 6, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def sae(W_dec: Tensor, W_enc: Tensor | None = None) -> SAE:
    W_enc = W_dec.T if W_enc is None else W_enc
    return SAE(W_enc, torch.zeros(len(W_dec)), W_dec, torch.zeros(W_dec.shape[1]), 1)


def test_orthogonal_and_opposite_rows_share_nothing():
    eye = torch.eye(4)
    assert shared_feature_ratio(match(eye[:2], eye[2:]).cosine, 0.0) == 0
    assert match(eye[:1], -eye[:1]).cosine.item() == -1


def test_shared_feature_ratio_is_strictly_above_the_threshold():
    cosine = torch.tensor([0.2, 0.7, 0.75, 1.0])
    assert shared_feature_ratio(cosine, 0.7) == 0.5
    assert mean_matched_cosine(torch.tensor([0.25, 0.75])) == 0.5


def test_weighted_ratio_and_mean_count_each_pair_by_how_often_its_latents_fire():
    pairs = Pairs(torch.tensor([0, 1, 2]), torch.tensor([1, 0, 2]), torch.tensor([0.75, 0.25, 1.0]))
    frequency_a, frequency_b = torch.tensor([0.2, 0.1, 0.0]), torch.tensor([0.3, 0.4, 0.0])
    weight = firing_weight(pairs, frequency_a.double(), frequency_b.double())
    assert weight.tolist() == pytest.approx([0.3, 0.2, 0.0])
    assert shared_feature_ratio(pairs.cosine, 0.7, weight) == pytest.approx(0.6)
    assert mean_matched_cosine(pairs.cosine, weight) == pytest.approx(0.6 * 0.75 + 0.4 * 0.25)
    equal = torch.full((3,), 0.1)
    assert shared_feature_ratio(pairs.cosine, 0.7, equal) == pytest.approx(2 / 3)


@pytest.mark.parametrize("weight", [torch.zeros(2), None])
def test_no_pair_and_no_weight_give_nan_not_zero(weight):
    cosine = torch.ones(2) if weight is not None else torch.ones(0)
    assert math.isnan(shared_feature_ratio(cosine, 0.7, weight))
    assert math.isnan(mean_matched_cosine(cosine, weight))


def test_agreement_needs_the_same_partner_and_both_cosines():
    latents = torch.arange(4)
    decoder = Pairs(latents, torch.tensor([0, 1, 2, 3]), torch.tensor([0.9, 0.9, 0.5, 0.9]))
    encoder = Pairs(latents, torch.tensor([0, 2, 1, 3]), torch.tensor([0.9, 0.9, 0.9, 0.5]))
    assert encoder_decoder_agreement(Matched(decoder, encoder), 0.7) == 0.25


def test_pairs_are_latents_of_either_sae_whichever_has_fewer_alive():
    # Latents 0 to 2 of b are those of a, at other places; b's latent 4, which is a's 1, is dead.
    eye = torch.eye(8)
    a, b = sae(eye[:5]), sae(eye[[5, 2, 0, 6, 1]])
    alive_a = torch.tensor([True, True, True, False, False])
    alive_b = torch.tensor([False, True, True, False, False])
    for pairs in match_alive(a, b, alive_a, alive_b):
        found = dict(zip(pairs.a.tolist(), pairs.b.tolist(), strict=True))
        assert found == {0: 2, 2: 1} and pairs.cosine.tolist() == [1, 1]
    for pairs in match_alive(b, a, alive_b, alive_a):
        assert dict(zip(pairs.b.tolist(), pairs.a.tolist(), strict=True)) == {0: 2, 2: 1}
    every = match_all(a, b).decoder
    assert sorted(every.b.tolist()) == sorted(every.a.tolist()) == [0, 1, 2, 3, 4]
    assert every.cosine.sum() == 3


def test_saes_of_different_d_in_are_an_error():
    with pytest.raises(ValueError, match="compare the same d_in"):
        match_all(sae(rows(0)), sae(rows(0)[:, :2]))


def test_every_latent_of_the_narrower_sae_has_a_partner_in_the_wider_one():
    wide, narrow = sae(rows(0)), sae(rows(0)[[3, 1]])
    for pairs in (*match_all(wide, narrow), *match_all(narrow, wide)):
        assert pairs.cosine.tolist() == pytest.approx([1, 1])
    assert match_all(wide, narrow).decoder.a.tolist() == [3, 1]
    assert match_all(narrow, wide).decoder.b.tolist() == [3, 1]


@pytest.mark.parametrize("n", [2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_of_two_equal_orthonormal_dictionaries_all_is_shared_and_nothing_when_permuted(n, seed):
    a, b = sae(torch.eye(8)[:n]), sae(torch.eye(8)[:n].flip(0))
    pairs = match_all(a, b).decoder
    assert mean_matched_cosine(pairs.cosine) == 1
    permuted = permute_partners(pairs, a, b, seed)
    assert permuted.cosine.tolist() == [0] * n  # no latent keeps its partner
    assert sorted(permuted.b.tolist()) == sorted(pairs.b.tolist())


def test_permuted_cosines_are_those_of_the_new_partners_decoder_rows():
    a, b = sae(rows(0) * 3), sae(rows(1))
    pairs = match_alive(a, b, torch.tensor([1, 1, 0, 1, 1, 1]).bool(), torch.ones(6).bool()).decoder
    permuted = permute_partners(pairs, a, b, 0)
    assert torch.equal(permuted.a, pairs.a) and (permuted.b != pairs.b).all()
    for i, j, cosine in zip(*permuted, strict=True):
        x, y = a.W_dec[i], b.W_dec[j]
        assert cosine.item() == pytest.approx((x @ y / x.norm() / y.norm()).item(), abs=1e-6)


def test_permuted_partners_depend_on_the_seed_alone():
    a, b = sae(rows(0, 64)), sae(rows(1, 64))
    pairs = match_all(a, b).decoder
    first, again, other = (permute_partners(pairs, a, b, seed).b for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_permuted_random_directions_have_nothing_in_common():
    a, b = sae(rows(0, 400, 64)), sae(rows(1, 400, 64))
    pairs = match_all(a, b).decoder
    permuted = permute_partners(pairs, a, b, 0).cosine
    assert mean_matched_cosine(pairs.cosine) > 0.25
    assert abs(mean_matched_cosine(permuted)) < 4 / math.sqrt(400 * 64)
    assert permuted.std().item() == pytest.approx(1 / 8, rel=0.15)


def test_a_single_pair_cannot_be_permuted():
    a = sae(rows(0)[:1])
    assert math.isnan(
        mean_matched_cosine(permute_partners(match_all(a, a).decoder, a, a, 0).cosine)
    )
