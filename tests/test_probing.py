"""Pooling is per document; each row of the table says what it was made of and repeats."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from faithful_sae import pooling, probing
from faithful_sae.pooling import Task, classes_of, mean_pool
from faithful_sae.probing import (
    draw_rows,
    majority_table,
    mean_activation,
    probe_baselines,
    probe_features,
    probe_saes,
)

D_IN = 4


def relu_sae(seed: int, d_sae: int = 12) -> SimpleNamespace:
    """A stand-in with a non-linear encoder and an affine decoder."""
    W_dec = torch.randn(d_sae, D_IN, generator=torch.Generator().manual_seed(seed))
    b_dec = torch.arange(D_IN, dtype=torch.float32)
    return SimpleNamespace(
        W_dec=W_dec,
        d_sae=d_sae,
        encode=lambda x: ((x - b_dec) @ W_dec.T).relu(),
        decode=lambda latents: latents @ W_dec + b_dec,
    )


def task(seed: int, documents: int = 60, classes: int = 2, signal: float = 3.0) -> Task:
    """Documents of 1 to 5 tokens with odd ids; the class moves the first dimension."""
    rng = np.random.default_rng(seed)
    document = np.repeat(np.arange(documents) * 7 + 3, rng.integers(1, 6, documents))
    labels = {i * 7 + 3: "abc"[i % classes] for i in range(documents)}
    x = rng.normal(size=(len(document), D_IN)).astype(np.float32)
    x[:, 0] += signal * np.array([ord(labels[i]) - ord("a") for i in document.tolist()])
    return Task(torch.from_numpy(x), document, labels)


def test_mean_pool_by_hand():
    x = torch.tensor([[1.0, 0.0], [3.0, 2.0], [5.0, 5.0]])
    pooled, ids = mean_pool(x, np.array([4, 4, 9]))
    assert pooled.tolist() == [[2.0, 1.0], [5.0, 5.0]]
    assert ids.tolist() == [4, 9]


def test_mean_pool_of_csr_equals_that_of_dense_and_stays_csr():
    x = torch.randn(20, 6, generator=torch.Generator().manual_seed(0)).relu()
    document = np.repeat([2, 5, 11], [3, 1, 16])
    dense, _ = mean_pool(x, document)
    pooled, _ = mean_pool(sparse.csr_array(x.numpy()), document)
    assert isinstance(pooled, sparse.csr_array) and pooled.dtype == np.float32
    assert pooled.toarray() == pytest.approx(dense, rel=1e-6)
    assert dense == pytest.approx(np.stack([x[document == i].mean(0) for i in (2, 5, 11)]))


def test_pooling_needs_one_id_per_token():
    with pytest.raises(ValueError, match="3 tokens but 2 document ids"):
        mean_pool(torch.ones(3, 2), np.array([0, 1]))


@pytest.mark.parametrize("tokens", [1, 7, 4096])
def test_pooled_latents_do_not_depend_on_the_batches(monkeypatch, tokens):
    made, sae = task(0), relu_sae(0)
    whole, _ = mean_pool(sae.encode(made.activations), made.document)
    monkeypatch.setattr(pooling, "TOKENS_PER_BATCH", tokens)
    assert pooling.pooled_latents(made, sae).toarray() == pytest.approx(whole, abs=1e-5)
    runs = list(pooling.whole_documents(made.document))
    assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
    assert runs[-1].stop == len(made.document)
    for run in runs:
        documents = np.unique(made.document[run])
        assert len(documents) > 0
        assert run.stop - run.start <= tokens or len(documents) == 1


def test_decoding_the_mean_is_the_mean_of_the_reconstructions(monkeypatch):
    made, sae = task(0), relu_sae(0)
    expected, _ = mean_pool(sae.decode(sae.encode(made.activations)), made.document)
    monkeypatch.setattr(pooling, "TOKENS_PER_BATCH", 9)
    made = pooling.decode_pooled(sae, pooling.pooled_latents(made, sae))
    assert made == pytest.approx(expected, abs=1e-4)


KEYS = ["seed", "task", "features", "k", "probe_seed", "metric"]


def keys(table: pl.DataFrame) -> list[tuple]:
    return sorted(table.select(KEYS).rows(), key=str)


def expected(features: dict[str, list], seeds: list, probe_seeds: list[int]) -> list[tuple]:
    return sorted(
        (
            (seed, "t", name, k, probe_seed, metric)
            for seed in seeds
            for name, ks in features.items()
            for k in ks
            for probe_seed in probe_seeds
            for metric in ("accuracy", "macro_f1")
        ),
        key=str,
    )


def test_the_table_has_every_probe_once_and_repeats():
    saes = {0: relu_sae(0), 3: relu_sae(3)}
    table = probe_saes(saes, {"t": task(0)}, [1, 5], [0, 4])
    wanted = {"latents": [None, 1, 5], "reconstruction": [None]}
    assert keys(table) == expected(wanted, [0, 3], [0, 4])
    assert probe_saes(saes, {"t": task(0)}, [1, 5], [0, 4]).equals(table)


def test_baselines_are_raw_and_majority_once_and_a_random_dictionary_for_each_seed_and_shape():
    shapes = {"small": (2, 2), "large": (3, 4)}
    table = probe_baselines({"t": task(0)}, shapes, [0, 3], [1, 5], [0, 4])
    none = table.filter(pl.col("sae") == "")
    assert keys(none) == expected({"raw": [None], "majority": [None]}, [None], [0, 4])
    for sae in shapes:
        of_sae = table.filter(pl.col("sae") == sae)
        assert keys(of_sae) == expected({"random_dictionary": [None, 1, 5]}, [0, 3], [0, 4])
    assert probe_baselines({"t": task(0)}, shapes, [0, 3], [1, 5], [0, 4]).equals(table)


def test_all_features_are_probed_on_the_same_documents(monkeypatch):
    seen = []
    monkeypatch.setattr(probing, "probe", lambda x, y, draw: seen.append(draw) or {"accuracy": 0.0})
    probe_saes({0: relu_sae(0), 1: relu_sae(1)}, {"t": task(0)}, [1], [5])
    probe_baselines({"t": task(0)}, {"s": (2, 2)}, [0, 1], [1], [5])
    assert len(seen) == 2 * 3 + 1 + 2 * 2
    for draw in seen:
        assert all(np.array_equal(a, b) for a, b in zip(draw, seen[0], strict=True))


def test_a_document_without_a_token_leaves_the_others_where_they_were_drawn():
    whole = task(0)
    documents = np.unique(whole.document)
    kept = whole.document != documents[10]
    lacking = Task(whole.activations[torch.from_numpy(kept)], whole.document[kept], whole.labels)
    left = np.delete(documents, 10)
    for before, after in zip(draw_rows(whole, [0])[0], draw_rows(lacking, [0])[0], strict=True):
        assert left[after].tolist() == [i for i in documents[before] if i != documents[10]]


def test_a_k_sparse_probe_reads_k_latents():
    made = task(0, documents=300, signal=1.0)
    scores = probe_saes({0: relu_sae(0)}, {"t": made}, [1, 12], [0, 1])
    latents = scores.filter(pl.col("features") == "latents")
    one, twelve = (latents.filter(pl.col("k") == k)["value"].to_list() for k in (1, 12))
    assert one != twelve


def test_the_latents_of_a_sparse_probe_are_chosen_on_training_documents(monkeypatch):
    made = task(0)
    (draw,) = draw_rows(made, [0]).values()
    y = classes_of(made)
    x = np.zeros((len(y), 2))
    x[draw.test, 0] = 100 * y[draw.test]  # tells the test documents apart, and no other
    x[:, 1] = np.random.default_rng(0).normal(size=len(y)) + 0.5 * y
    seen = []
    monkeypatch.setattr(probing, "probe", lambda x, y, draw: seen.append(x) or {"accuracy": 0.0})
    probe_features("latents", sparse.csr_array(x), made, {0: draw}, [1])
    assert np.array_equal(seen[1], x[:, [1]])


def test_each_row_is_made_of_its_own_features():
    # Latents that are constant leave the latent probes and the reconstruction at the majority.
    blind = relu_sae(5)
    blind.encode = lambda x: torch.ones(len(x), 12)
    for sae, seeing in ((blind, False), (relu_sae(0), True)):
        table = probe_saes({0: sae}, {"t": task(0)}, [5], [0, 1])
        accuracy = table.filter(pl.col("metric") == "accuracy")
        for features, value in accuracy.select("features", "value").iter_rows():
            assert (value > 0.7) == seeing, features
    table = probe_baselines({"t": task(0)}, {"s": (3, 4)}, [0], [5], [0, 1])
    accuracy = table.filter(pl.col("metric") == "accuracy")
    for features, value in accuracy.select("features", "value").iter_rows():
        assert (value > 0.7) == (features != "majority"), features


def test_the_majority_is_that_of_the_training_documents():
    made = task(0)
    y = classes_of(made)
    of_a, of_b = np.flatnonzero(y == 0), np.flatnonzero(y == 1)
    draw = probing.Draw(of_a[:3], of_b[:2], of_b[2:6])
    accuracy, f1 = majority_table(made, {0: draw})["value"]
    assert (accuracy, f1) == (0, 0)


def test_a_document_without_a_label_is_named():
    made = task(0)
    del made.labels[10]
    with pytest.raises(ValueError, match="document 10 has activations but no label"):
        probe_baselines({"t": made}, {}, [0], [1], [0])


def test_tokens_that_are_not_sorted_by_document_are_an_error():
    made = task(0)
    shuffled = made._replace(document=made.document[::-1].copy())
    with pytest.raises(ValueError, match="not sorted"):
        probe_saes({0: relu_sae(0)}, {"t": shuffled}, [1], [0])


def test_the_centre_is_the_mean_over_the_tokens_of_all_tasks():
    tasks = {"t": task(0, documents=9), "u": task(1, documents=30)}
    every = torch.cat([tasks["t"].activations, tasks["u"].activations])
    assert torch.allclose(mean_activation(tasks.values()), every.mean(0), atol=1e-6)
