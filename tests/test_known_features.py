"""Drawn tokens follow the distribution that is stated, and shards do not depend on their number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from faithful_sae.known_features import NO_FEATURE, KnownFeatures, draw_activations
from faithful_sae.shards import EVERY_POSITION, Positions, Shards

MODEL = KnownFeatures(
    d_in=16,
    features=20,
    external_features=6,
    active=3,
    zipf=1.0,
    group=4,
    correlation=0.5,
    noise=0.1,
    seed=0,
)


def rng(seed=0):
    return np.random.default_rng(seed)


def draw(folder, model=MODEL, shift=0.0, stream="faithful/train", shards=1, tokens=30_000, **kw):
    paths = [folder / f"shard{i}.parquet" for i in range(shards)]
    for i, path in enumerate(paths):
        settings = {"tokens": tokens, "context_length": 11, "dtype": "float32"} | kw
        metadata = {"model": "m", "corpus": "c", "hook": "resid_pre.0"}
        draw_activations(
            path, model, shift, stream, shard=i, shards=shards, metadata=metadata, **settings
        )
    return paths


def read(paths):
    shards = Shards(paths, EVERY_POSITION)
    x = torch.cat(list(shards.batches()))
    token = shards._column("token")
    return shards, x, token


# --- the distribution ------------------------------------------------------------------------


def test_features_are_unit_vectors_that_the_seed_alone_decides():
    dictionary = MODEL.dictionary
    assert dictionary.shape == (26, 16)
    assert np.linalg.norm(dictionary, axis=1) == pytest.approx(np.ones(26), abs=1e-6)
    assert np.array_equal(dictionary, replace(MODEL, noise=9.0, active=1).dictionary)
    assert not np.allclose(dictionary, replace(MODEL, seed=1).dictionary)


def test_probabilities_by_hand():
    model = replace(MODEL, features=2, external_features=2)
    own = model.probabilities(0)
    assert own == pytest.approx([2 / 3, 1 / 3, 0, 0])
    external = model.probabilities(1)
    assert sorted(external[:2]) == pytest.approx([1 / 6, 1 / 3])  # Zipf of half the mass
    assert external[2:] == pytest.approx([1 / 3, 1 / 6])
    assert model.probabilities(0.25) == pytest.approx(0.75 * own + 0.25 * external)
    assert model.probabilities(None) == pytest.approx([1 / 4] * 4)
    assert replace(model, zipf=0).probabilities(0) == pytest.approx([1 / 2, 1 / 2, 0, 0])


def test_the_external_ranking_is_another_one():
    model = replace(MODEL, features=200)
    external = model.probabilities(1)[:200]
    assert sorted(external) == sorted(external)[::1] and np.argsort(-external)[:5].max() > 5
    assert abs(np.corrcoef(np.argsort(np.argsort(-external)), np.arange(200))[0, 1]) < 0.2


@pytest.mark.parametrize("shift", [0.0, 0.3, 1.0, None])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_every_draw_has_the_stated_distribution_whatever_the_correlation(shift, correlation):
    model = replace(MODEL, correlation=correlation)
    n = 40_000
    drawn = model.draws(rng(), shift, n)
    p = model.probabilities(shift)
    for j in range(model.active):
        share = np.bincount(drawn[:, j], minlength=len(p)) / n
        assert np.all(np.abs(share - p) <= 4.5 * np.sqrt(p * (1 - p) / n))  # p = 0: never


def group_of(drawn):
    """Four of the 20 own features, and the first four and the last two of the external ones."""
    return np.where(drawn < 20, drawn // 4, 5 + (drawn - 20) // 4)


def test_features_of_a_group_fire_together_as_often_as_the_correlation_says():
    n = 40_000
    for shift, correlation in ((0.5, 0.0), (0.5, 0.4), (0.5, 1.0), (None, 1.0)):
        model = replace(MODEL, correlation=correlation)
        group = group_of(model.draws(rng(), shift, n))
        p = np.bincount(group_of(np.arange(26)), model.probabilities(shift))
        stays = 0 if shift is None else correlation  # uniform draws are independent
        expected = stays + (1 - stays) * float(p @ p)
        found = float((group[:, 1] == group[:, 0]).mean())
        assert found == pytest.approx(expected, abs=4.5 * 0.5 / n**0.5)


def test_without_noise_a_token_is_a_positive_sum_of_its_features():
    model = replace(MODEL, noise=0.0, active=1)
    x, strongest = model.tokens(rng(), 0.0, 20_000)
    amplitude = np.linalg.norm(x, axis=1)
    assert np.abs(x - amplitude[:, None] * model.dictionary[strongest]).max() < 1e-5
    assert np.median(amplitude) == pytest.approx(1, abs=0.02)
    many, _ = replace(model, active=5).tokens(rng(), 0.0, 20_000)
    # Draws are distributed alike, so means add up.
    assert many.mean(0) == pytest.approx(5 * x.mean(0), abs=0.05)


def test_noise_has_the_stated_deviation():
    quiet, _ = replace(MODEL, noise=0.0).tokens(rng(), 0.0, 5000)
    noisy, _ = replace(MODEL, noise=0.3).tokens(rng(), 0.0, 5000)
    assert (noisy - quiet).std() == pytest.approx(0.3, abs=0.005)


# --- shards ----------------------------------------------------------------------------------


def test_the_content_does_not_depend_on_the_number_of_shards(tmp_path):
    one, x, token = read(draw(tmp_path / "one"))
    three, y, other = read(draw(tmp_path / "three", shards=3))
    assert torch.equal(x, y) and np.array_equal(token, other)
    assert np.array_equal(one.position, three.position)
    assert np.array_equal(one.document, three.document)


def test_streams_seeds_and_blocks_are_independent(tmp_path):
    first = read(draw(tmp_path / "a"))[1]
    for name, changed in (
        ("b", {"stream": "faithful/heldout"}),
        ("c", {"model": replace(MODEL, seed=1)}),
    ):
        other = read(draw(tmp_path / name, **changed))[1]
        kept = first.norm(dim=1) > 0
        cosine = torch.nn.functional.cosine_similarity(first[kept], other[kept])
        assert not torch.equal(first, other) and not (cosine > 0.9999).any()
    even = read(draw(tmp_path / "even", context_length=8))[1]  # so that blocks are equally long
    assert not torch.equal(even[:8192], even[8192 : 2 * 8192])


def test_a_context_is_a_document_that_begins_with_a_position_of_no_feature(tmp_path):
    shards, x, token = read(draw(tmp_path, tokens=25))
    assert np.bincount(shards.document).tolist() == [11, 11, 6]
    start = shards.position == 0
    assert np.all(token[start] == NO_FEATURE) and np.all(token[~start] >= 0)
    assert not x[start].any() and bool(x[~start].any(dim=1).all())
    assert len(Shards(shards.paths, Positions(skip_first=1, max_norm=5.0))) == 25
    assert shards.metadata["start_token"] == str(NO_FEATURE)


def test_the_token_is_the_feature_that_the_activation_is_most_made_of(tmp_path):
    model = replace(MODEL, noise=0.0, active=1)
    shards, x, token = read(draw(tmp_path, model=model, tokens=500))
    rows = shards.position > 0
    cosine = torch.nn.functional.normalize(x[rows], dim=1) @ torch.from_numpy(model.dictionary).T
    assert np.array_equal(cosine.argmax(1).numpy(), token[rows])


def test_a_value_that_does_not_fit_is_an_error_and_leaves_no_shard(tmp_path):
    with pytest.raises(OverflowError, match="bfloat16"):
        draw(tmp_path, model=replace(MODEL, noise=1e6), dtype="float16")
    assert not list(tmp_path.glob("*"))
