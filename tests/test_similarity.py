"""Tables of similarity: which latents a row is about, which pairs there are, and their nulls."""

from collections import Counter
from itertools import combinations
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from scipy import sparse
from torch import Tensor

from faithful_sae.latents import Encoded, encode
from faithful_sae.sae import SAE
from faithful_sae.similarity import (
    NULL_PAIRS,
    Rows,
    activation_agreement,
    compare,
    permuted_similarity,
    similarity_of_corpora,
    similarity_of_seeds,
    subspace_agreement,
    weight_similarity,
)

THRESHOLDS = [0.3, 0.7, 0.95]


def rows(seed: int, n: int = 6, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def encoded(W_dec: Tensor, W_enc: Tensor | None = None, fires: list[int] | None = None) -> Encoded:
    """An SAE whose latent i fires on the first `fires[i]` of ten tokens (without: on all)."""
    n = len(W_dec)
    W_enc = W_dec.T if W_enc is None else W_enc
    sae = SAE(W_enc, torch.zeros(n), W_dec, torch.zeros(W_dec.shape[1]), 1)
    active = torch.arange(10)[:, None] < torch.tensor(fires if fires is not None else [10] * n)
    return Encoded(sae, sparse.csr_array(active.float().numpy()))


def random(seed: int, fires: list[int] | None = None) -> Encoded:
    return encoded(rows(seed), rows(seed + 100).T, fires)


def value(table: Rows, latents: str, metric: str, threshold: float | None = None) -> float:
    (found,) = [
        v for kind, name, cut, v in table if (kind, name, cut) == (latents, metric, threshold)
    ]
    return found


def heldout(x: Tensor) -> SimpleNamespace:
    return SimpleNamespace(batches=lambda: iter(x.split(7)))


def test_frequency_is_the_share_of_tokens_and_alive_latents_fire_once():
    a = encoded(rows(0), fires=[10, 5, 1, 0, 0, 0])
    assert a.frequency.tolist() == [1, 0.5, 0.1, 0, 0, 0]
    assert a.alive.tolist() == [True, True, True, False, False, False]


def test_sparse_latents_are_the_latents_of_all_tokens_in_order():
    x, sae = rows(0, 30), SAE.untrained(d_in=4, d_sae=6, k=2, seed=0)
    assert torch.equal(torch.from_numpy(encode(sae, heldout(x)).latents.toarray()), sae.encode(x))


def test_an_sae_against_itself_is_fully_similar():
    table = weight_similarity(compare(random(0), random(0)), THRESHOLDS)
    assert [v for *_, v in table] == pytest.approx([1.0] * 14)


def test_encoders_that_disagree_show_only_in_the_agreement():
    other = encoded(rows(0), rows(100).T.flip(1))
    table = weight_similarity(compare(random(0), other), THRESHOLDS)
    assert value(table, "all", "shared_feature_ratio", 0.7) == 1
    assert value(table, "all", "encoder_decoder_agreement", 0.7) == 0


def test_alive_rows_match_alive_latents_only_over_the_smaller_count():
    # Latents 0-2 of b are those of a, the rest point elsewhere; b's latent 2 is dead.
    eye = torch.eye(8)
    a = encoded(eye[:6], fires=[1, 1, 1, 1, 0, 0])
    b = encoded(eye[[0, 1, 2, 6, 7, 7]], fires=[1, 1, 0, 1, 0, 0])
    for pair in ((a, b), (b, a)):
        table = weight_similarity(compare(*pair), THRESHOLDS)
        assert value(table, "all", "shared_feature_ratio", 0.7) == pytest.approx(3 / 6)
        for metric in ("shared_feature_ratio", "encoder_decoder_agreement"):
            assert value(table, "alive", metric, 0.7) == pytest.approx(2 / 3)
        assert value(table, "alive", "mean_matched_cosine") == pytest.approx(2 / 3)


def test_firing_weighted_rows_count_pairs_by_how_often_they_fire():
    # Latents 0 and 1 are shared and fire on 0.8 and 0.3 of the tokens, latent 2 is not, on 0.1.
    eye = torch.eye(6)
    a, b = encoded(eye[:3], fires=[8, 3, 1]), encoded(eye[[0, 1, 5]], fires=[8, 3, 1])
    table = weight_similarity(compare(a, b), THRESHOLDS)
    assert value(table, "firing_weighted", "shared_feature_ratio", 0.7) == pytest.approx(11 / 12)
    assert value(table, "firing_weighted", "mean_matched_cosine") == pytest.approx(11 / 12)
    assert value(table, "all", "shared_feature_ratio", 0.7) == pytest.approx(2 / 3)


def test_dead_latents_move_neither_the_alive_nor_the_weighted_rows():
    fires = [3, 1, 4, 1, 0, 0]
    eye = torch.eye(8)
    b = encoded(eye[:6], fires=fires)
    elsewhere = encoded(eye[[0, 1, 2, 3, 6, 7]], fires=fires)
    before, after = (weight_similarity(compare(b, x), THRESHOLDS) for x in (b, elsewhere))
    kept = [{row for row in table if row[0] != "all"} for table in (before, after)]
    assert kept[0] == kept[1] and before != after


def test_no_alive_latent_gives_nan_not_zero():
    table = weight_similarity(compare(random(0), random(1, fires=[0] * 6)), THRESHOLDS)
    assert all(v != v for latents, *_, v in table if latents == "alive")
    table = weight_similarity(compare(*[random(s, fires=[0] * 6) for s in (0, 1)]), THRESHOLDS)
    assert all(v != v for latents, *_, v in table if latents != "all")


def test_thresholds_without_the_headline_cut_are_an_error():
    with pytest.raises(ValueError, match="do not contain 0.7"):
        weight_similarity(compare(random(0), random(1)), [0.5])


def test_permuted_partners_of_equal_orthonormal_dictionaries_share_nothing_in_any_form():
    a, b = encoded(torch.eye(6), fires=[9, 8, 7, 6, 5, 0]), encoded(torch.eye(6).flip(0))
    table = permuted_similarity(compare(a, b), THRESHOLDS, seed=0)
    assert {latents for latents, *_ in table} == {"all", "alive", "firing_weighted"}
    assert [v for *_, v in table] == [0.0] * 12


def test_matched_and_other_latents_are_compared_apart():
    # Latents 0 and 1 are shared; what 2 writes has nothing to do with what b's 2 writes.
    a = encoded(torch.eye(6)[:3], fires=[4, 5, 3])
    b = encoded(torch.eye(6)[[1, 0, 5]], fires=[5, 4, 0])
    found = dict((latents, v) for latents, *_, v in subspace_agreement(compare(a, b)))
    assert found["matched"] == pytest.approx(1) and found["unmatched"] != found["unmatched"]
    writes = b.latents.toarray()
    writes[3:6, 2] = 1
    b = Encoded(b.sae, sparse.csr_array(writes))
    found = dict((latents, v) for latents, *_, v in subspace_agreement(compare(a, b)))
    # Indicators of 3 and 3 other tokens of ten: correlation -3/7, squared.
    assert found["unmatched"] == pytest.approx(9 / 49)


def test_latents_are_matched_by_correlation_among_the_alive_ones_alone():
    # Each fires on tokens of its own; b has a's latents in another order, and one dead.
    eye = torch.eye(6)
    a, b = Encoded(encoded(eye).sae, sparse.csr_array(eye.numpy())), encoded(eye, fires=[0] * 6)
    moved = eye[:, [2, 0, 1, 4, 3, 5]] * torch.tensor([1, 2, 3, 4, 5, 0])
    b = Encoded(b.sae, sparse.csr_array(moved.numpy()))
    table = activation_agreement(compare(a, b), THRESHOLDS)
    assert value(table, "alive", "mean_matched_correlation") == pytest.approx(1)
    assert value(table, "alive", "correlated_feature_ratio", 0.95) == 1
    # By direction, each latent's partner fires on another token: -1/5, in 5 alive pairs.
    assert value(table, "alive", "correlation_of_matched") == pytest.approx(-0.2)


def of_seeds(seeds: int) -> pl.DataFrame:
    saes = {s: SAE.untrained(d_in=4, d_sae=6, k=2, seed=s) for s in range(seeds)}
    return similarity_of_seeds(saes, heldout(rows(7, 40)), THRESHOLDS)


def test_dear_nulls_are_drawn_for_the_first_pairs_and_permuted_partners_for_all():
    table = of_seeds(4)
    pairs = list(combinations(range(4), 2))
    found = {
        (null, metric): part.select("seed", "seed_b").unique().sort("seed", "seed_b").rows()
        for (null, metric), part in table.group_by("null", "metric")
    }
    assert len(pairs) > NULL_PAIRS
    dear = pairs[:NULL_PAIRS]
    of_activations = {
        *("correlated_feature_ratio", "mean_matched_correlation", "correlation_of_matched")
    }
    of_weights = {"shared_feature_ratio", "mean_matched_cosine"}
    observed = of_activations | of_weights | {"encoder_decoder_agreement", "contribution_cka"}
    assert found == {
        **{("none", metric): pairs for metric in observed},
        **{("permuted", metric): pairs for metric in of_weights},
        **{("permuted", metric): dear for metric in of_activations | {"contribution_cka"}},
        **{("untrained", metric): dear for metric in observed - {"contribution_cka"}},
        **{("covariance", metric): dear for metric in of_weights},
    }
    assert table.equals(of_seeds(4))


def test_a_single_seed_has_its_nulls_and_nothing_else():
    table = of_seeds(1)
    assert set(table["null"]) == {"covariance", "untrained"}
    assert table.select("seed", "seed_b").unique().rows() == [(0, 0)]
    untrained = table.filter(null="untrained", latents="all", metric="mean_matched_cosine")
    assert untrained["value"].item() < 0.99  # of two different initialisations


def test_an_sae_whose_latents_are_only_renumbered_agrees_in_every_form():
    a = SAE.untrained(d_in=8, d_sae=8, k=3, seed=0)
    a.W_dec = torch.linalg.qr(a.W_dec).Q
    a.W_enc = a.W_dec.T.contiguous()
    order = torch.randperm(8, generator=torch.Generator().manual_seed(1))
    b = SAE(a.W_enc[:, order], a.b_enc, a.W_dec[order], a.b_dec, a.k)
    table = similarity_of_seeds({0: a, 1: b}, heldout(rows(7, 400, 8)), THRESHOLDS)
    observed = table.filter(null="none")
    unmatched = observed.filter(latents="unmatched")
    assert unmatched["value"].is_nan().all()  # there are none
    rest = observed.filter(pl.col("latents") != "unmatched")["value"].to_list()
    assert rest == pytest.approx([1.0] * len(rest), abs=1e-5)
    permuted = table.filter(null="permuted").filter(pl.col("latents") != "unmatched")
    assert permuted.filter(metric="shared_feature_ratio")["value"].to_list() == [0.0] * 9
    assert permuted.filter(metric="mean_matched_cosine")["value"].abs().max() < 1e-6
    assert permuted.filter(metric="mean_matched_correlation")["value"].item() < 0.2
    assert permuted.filter(metric="contribution_cka")["value"].item() < 0.1


@pytest.mark.parametrize("seeds", [[5], [0, 1], [0, 1, 2], [4, 2, 9]])
def test_corpora_are_compared_by_pairs_of_different_seeds_each_seed_once(seeds):
    corpora = ["x", "y", "z"]
    saes = {(c, s): SAE.untrained(d_in=4, d_sae=6, k=2, seed=s) for c in corpora for s in seeds}
    texts = {corpus: heldout(rows(7 + i, 40)) for i, corpus in enumerate(corpora)}
    table = similarity_of_corpora(saes, texts, THRESHOLDS)
    places = table.select("corpus", "corpus_b", "seed", "seed_b").unique().rows()
    for corpora_pair in combinations(corpora, 2):
        pairs = [
            pair for *corpus, a, b in places for pair in [(a, b)] if tuple(corpus) == corpora_pair
        ]
        assert Counter(a for a, _ in pairs) == Counter(b for _, b in pairs) == Counter(seeds)
        # SAEs of one seed have the same initial weights, and here nothing else.
        assert all(a != b for a, b in pairs) == (len(seeds) > 1)
    assert len(places) == 3 * len(seeds)
    shared = table.filter(latents="all", metric="mean_matched_cosine")["value"]
    assert (shared.max() < 0.999) == (len(seeds) > 1)
    assert set(table["null"]) == {"none"}
    assert set(table["latents"]) == {"all", "alive", "firing_weighted"}


def test_of_one_corpus_there_is_no_pair_but_a_table():
    saes = {("x", 0): SAE.untrained(d_in=4, d_sae=6, k=2, seed=0)}
    table = similarity_of_corpora(saes, {"x": heldout(rows(7, 40))}, THRESHOLDS)
    assert table.is_empty() and {"corpus", "seed_b", "value"} <= set(table.columns)
