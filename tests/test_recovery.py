"""SAEs whose grade is known: the truth itself, parts of it, nothing, and latents made by hand."""

import itertools
import math

import polars as pl
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_known_features import draw

from faithful_sae.fake_features import FREQUENCIES
from faithful_sae.headline import RECOVERY_METRICS
from faithful_sae.known_features import KnownFeatures
from faithful_sae.recovery import (
    auroc,
    graded_calls,
    recovered_features,
    recovery,
    recovery_of_seeds,
    truly_fake,
)
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions, Shards

TRUTH = KnownFeatures(
    d_in=64,
    features=24,
    external_features=8,
    active=2,
    zipf=1.0,
    group=4,
    correlation=0.3,
    noise=0.0,
    seed=0,
)
DICTIONARY = torch.from_numpy(TRUTH.dictionary)
OWN, EXTERNAL = DICTIONARY[:24], DICTIONARY[24:]
WEIGHTS = torch.from_numpy(TRUTH.probabilities(0.0)[:24])


def by_name(rows):
    return {(metric, threshold, frequency): value for metric, threshold, frequency, value in rows}


def oracle(rows, k=2):
    """The SAE that reads amplitudes off: decoder `rows`, encoder their inverse.

    A small negative bias, so that what is zero but for rounding does not fire.
    """
    W_enc = torch.linalg.pinv(rows)
    return SAE(W_enc, torch.full((len(rows),), -1e-3), rows, torch.zeros(rows.shape[1]), k)


# --- recovered features ----------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.7, 0.9])
def test_the_truth_itself_is_recovered_whole_in_any_order_and_with_any_norm(threshold):
    permutation = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    for rows in (OWN, OWN[permutation], 3 * OWN, torch.cat([EXTERNAL, OWN])):
        found = by_name(recovered_features(rows, OWN, WEIGHTS))
        assert found["recovered_features", threshold, None] == 1
        assert found["recovered_features_weighted", threshold, None] == pytest.approx(1)
        assert found["mean_matched_cosine_to_truth", None, None] == pytest.approx(1)


def test_a_dictionary_of_some_features_recovers_those_and_their_weight():
    found = by_name(recovered_features(OWN[[0, 5, 7]], OWN, WEIGHTS))
    assert found["recovered_features", 0.9, None] == pytest.approx(3 / 24)
    weight = WEIGHTS[[0, 5, 7]].sum().item()
    assert found["recovered_features_weighted", 0.9, None] == pytest.approx(weight)
    assert found["mean_matched_cosine_to_truth", None, None] == pytest.approx(1)


def test_the_thresholds_lie_where_they_are_said_to():
    orthogonal = torch.eye(8)
    for cosine, loosely, recovered in ((0.69, 0, 0), (0.71, 1, 0), (0.89, 1, 0), (0.91, 1, 1)):
        latent = cosine * orthogonal[:1] + math.sqrt(1 - cosine**2) * orthogonal[1:2]
        found = by_name(recovered_features(latent, orthogonal[:1], torch.ones(1).double()))
        assert found["recovered_features", 0.7, None] == loosely
        assert found["recovered_features", 0.9, None] == recovered


def test_an_untrained_sae_recovers_nothing():
    untrained = SAE.untrained(d_in=64, d_sae=48, k=2, seed=0)
    found = by_name(recovered_features(untrained.W_dec, OWN, WEIGHTS))
    assert found["recovered_features", 0.7, None] == 0


# --- fake latents and calls ------------------------------------------------------------------


def test_fake_latents_by_hand():
    axes = torch.eye(6)
    own, external = axes[:2], axes[2:4]
    W_dec = torch.stack(
        [
            axes[0],  # a feature
            -2 * axes[1],  # one upside down
            0.75 * axes[0] + 0.66 * axes[2],  # mostly a feature
            0.66 * axes[0] + 0.75 * axes[2],  # mostly an external one
            axes[0] + axes[2],  # cosine 0.707 with both: a feature's, then
            axes[3],
            axes[5],  # no direction that is known
            axes[:4].sum(0),  # half of each
        ]
    )
    fake, is_external = truly_fake(W_dec, own, external)
    assert fake.tolist() == [False, False, False, True, False, True, True, True]
    assert is_external.tolist() == [False, False, False, True, False, True, False, False]


def test_calls_by_hand():
    fake = torch.tensor([True, True, True, False, False])
    random = torch.tensor([0.5, 0.2, 0.1, 0.2, 0.0])
    found = by_name(graded_calls(fake, random, [0.1, 0.3, 0.6]))
    assert found["fake_call_precision", None, 0.1] == pytest.approx(2 / 3)  # strictly above
    assert found["fake_call_recall", None, 0.1] == pytest.approx(2 / 3)
    assert found["fake_call_precision", None, 0.3] == 1
    assert found["fake_call_recall", None, 0.3] == pytest.approx(1 / 3)
    assert math.isnan(found["fake_call_precision", None, 0.6])
    assert found["fake_call_recall", None, 0.6] == 0
    none_fake = by_name(graded_calls(torch.zeros(5, dtype=torch.bool), random, [0.1]))
    assert none_fake["fake_call_precision", None, 0.1] == 0
    assert math.isnan(none_fake["fake_call_recall", None, 0.1])


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 4)), min_size=2, max_size=12))
def test_auroc_is_the_share_of_pairs_in_the_right_order(latents):
    fake = torch.tensor([kind for kind, _ in latents])
    score = torch.tensor([float(value) for _, value in latents])
    pairs = [
        1.0 if a > b else 0.5 if a == b else 0.0
        for a, b in itertools.product(score[fake].tolist(), score[~fake].tolist())
    ]
    found = auroc(fake, score)
    assert math.isnan(found) if not pairs else found == pytest.approx(sum(pairs) / len(pairs))


# --- from shards -----------------------------------------------------------------------------


def shards(folder, shift):
    stream = f"{shift}/heldout"
    paths = draw(folder / str(shift), TRUTH, shift, stream, tokens=4000, dtype="float32")
    return Shards(paths, Positions(skip_first=1, max_norm=None))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    return {shift: shards(folder, shift) for shift in (0.0, 1.0, None)}


def graded(sae, corpora, shift=0.0, cut=0.0):
    table = recovery(sae, TRUTH, corpora[shift], corpora[0.0], corpora[None], cut, [0.01, 0.1])
    return by_name(table.iter_rows())


def test_an_sae_that_is_the_truth_has_no_fake_latent_and_explains_everything(corpora):
    found = graded(oracle(OWN), corpora)
    assert found["recovered_features", 0.9, None] == 1
    assert found["recovered_features_weighted", 0.9, None] == pytest.approx(1)
    assert found["explained_variance", None, None] == pytest.approx(1, abs=1e-5)
    assert found["explained_variance_faithful", None, None] == pytest.approx(1, abs=1e-5)
    assert found["truly_fake_ratio", None, None] == 0
    assert found["l0", None, None] <= 2 and found["dead_fraction", None, None] == 0
    assert math.isnan(found["random_auroc", None, None])  # nothing to find


def test_the_summary_asks_for_metrics_by_the_names_that_are_measured(corpora):
    """One that was renamed here alone would be left out there without a word."""
    assert set(RECOVERY_METRICS) <= {metric for metric, _, _ in graded(oracle(OWN), corpora)}


def test_external_latents_are_fake_if_they_are_alive(corpora):
    whole = oracle(DICTIONARY)
    found = graded(whole, corpora, shift=1.0)
    for metric, share in (("", 8 / 32), ("_external", 8 / 32), ("_neither", 0)):
        assert found[f"truly_fake{metric}_ratio", None, None] == share
    assert found["explained_variance", None, None] == pytest.approx(1, abs=1e-5)
    # On the model's own distribution the same latents never fire, and do not count.
    own = graded(whole, corpora)
    assert own["truly_fake_ratio", None, None] == 0
    assert own["dead_fraction", None, None] == pytest.approx(8 / 32)
    assert own["recovered_features", 0.9, None] == 1


def test_the_truth_explains_its_own_distribution_whatever_corpus_it_is_graded_on(corpora):
    found = graded(oracle(OWN), corpora, shift=1.0)
    assert found["explained_variance_faithful", None, None] == pytest.approx(1, abs=1e-5)
    assert found["explained_variance", None, None] < 0.9


def test_a_latent_that_never_exceeds_the_cut_is_halfway_between_text_and_random_tokens(corpora):
    sae, axis = oracle(OWN, k=25), torch.linalg.svd(DICTIONARY)[2][-1:]  # of no feature
    faint = SAE(
        torch.cat([sae.W_enc, torch.zeros(64, 1)], 1),
        torch.cat([sae.b_enc, torch.tensor([1e-3])]),
        torch.cat([OWN, axis]),
        sae.b_dec,
        sae.k,
    )
    found = graded(faint, corpora, cut=2e-3)
    assert found["truly_fake_ratio", None, None] == pytest.approx(1 / 25)
    assert found["random_auroc", None, None] == 0  # all others fire more
    assert 0 < found["contrast_auroc", None, None] < 1  # frequent features fire less on random


def test_a_latent_that_fires_on_random_tokens_alone_is_fake_and_found(corpora):
    sae = oracle(OWN, k=25)
    mean = torch.cat(list(corpora[None].batches())).mean(0)
    # The part of the random mean that no feature of the model has.
    away = mean - OWN.T @ torch.linalg.lstsq(OWN.T, mean[:, None]).solution.squeeze(1)
    away /= away.norm()
    sae = SAE(
        torch.cat([sae.W_enc, away[:, None]], 1),
        torch.cat([sae.b_enc, torch.tensor([1e-3])]),  # so little that it is always alive
        torch.cat([OWN, away[None]]),
        sae.b_dec,
        sae.k,
    )
    found = graded(sae, corpora, cut=2e-3)
    assert found["truly_fake_ratio", None, None] == pytest.approx(1 / 25)
    assert found["truly_fake_neither_ratio", None, None] == pytest.approx(1 / 25)
    assert found["random_auroc", None, None] == 1
    assert found["fake_call_recall", None, 0.1] == 1
    assert found["contrast_auroc", None, None] == 1


def test_permuting_latents_changes_nothing(corpora):
    sae = SAE.untrained(d_in=64, d_sae=40, k=3, seed=1)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    permuted = SAE(sae.W_enc[:, order], sae.b_enc[order], sae.W_dec[order], sae.b_dec, sae.k)
    before, after = graded(sae, corpora), graded(permuted, corpora)
    for key, value in before.items():
        assert after[key] == pytest.approx(value, abs=1e-6, nan_ok=True), key


def test_every_seed_has_its_rows_and_the_studys_cut_is_among_them(corpora):
    saes = {seed: SAE.untrained(d_in=64, d_sae=32, k=2, seed=seed) for seed in (3, 5)}
    table = recovery_of_seeds(
        saes, TRUTH, corpora[0.0], corpora[0.0], corpora[None], 0.5, frequency=0.03
    )
    assert table["seed"].unique().sort().to_list() == [3, 5]
    cuts = table.filter(pl.col("metric") == "fake_call_recall", pl.col("seed") == 3)["frequency"]
    assert cuts.to_list() == sorted({*FREQUENCIES, 0.03})
