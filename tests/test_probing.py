"""Pooling is per document; probes are honest; each row of the table says what it was made of."""

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from faithful_sae import pooling, probing
from faithful_sae.pooling import Split, mean_pool
from faithful_sae.probing import (
    baseline_table,
    k_sparse_features,
    majority,
    probe,
    probe_table,
)
from faithful_sae.sae import SAE

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


def split(seed: int, documents: int = 40, classes: int = 2, signal: float = 3.0) -> Split:
    """Documents of 1 to 5 tokens with odd ids; the class moves the first dimension."""
    rng = np.random.default_rng(seed)
    document = np.repeat(np.arange(documents) * 7 + 3, rng.integers(1, 6, documents))
    labels = {i * 7 + 3: i % classes for i in range(documents)}
    x = rng.normal(size=(len(document), D_IN)).astype(np.float32)
    x[:, 0] += signal * np.array([labels[i] for i in document.tolist()])
    return Split(torch.from_numpy(x), document, labels)


def blobs(seed: int, n: int = 60, d: int = 5, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d))
    x[np.arange(n), y] += 6
    return x, y


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


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_a_probe_separates_what_is_separable(classes, form):
    (x, y), (test_x, test_y) = blobs(0, classes=classes), blobs(1, classes=classes)
    assert probe(form(x), y, form(test_x), test_y, 0) == {"accuracy": 1, "macro_f1": 1}


def test_a_probe_on_noise_is_at_chance():
    # Leaking test labels, or scoring on train, would lift this far above one half.
    rng = np.random.default_rng(0)
    x, test_x = rng.normal(size=(100, 60)), rng.normal(size=(1000, 60))
    scores = probe(x, np.arange(100) % 2, test_x, np.arange(1000) % 2, 0)
    assert scores["accuracy"] == pytest.approx(0.5, abs=0.06)


def test_the_penalty_is_chosen_where_it_matters(monkeypatch):
    # Few documents and mostly noise: the weakest penalty fits the noise, the chosen one does not.
    monkeypatch.setattr(probing, "INVERSE_PENALTIES", (1e-4, 1e2))
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        y, test_y = np.arange(200) % 2, np.arange(2000) % 2
        x, test_x = rng.normal(size=(200, 100)), rng.normal(size=(2000, 100))
        x[:, :20] += 0.25 * (2 * y[:, None] - 1)
        test_x[:, :20] += 0.25 * (2 * test_y[:, None] - 1)
        scaled, test = probing._scale(x, test_x)
        weakest = np.mean(next(probing._fits(scaled, y, [1e2])).predict(test) == test_y)
        gains.append(probe(x, y, test_x, test_y, 0)["accuracy"] - weakest)
    assert np.mean(gains) > 0.02


def test_a_penalty_that_says_the_majority_is_passed_over(monkeypatch):
    monkeypatch.setattr(probing, "INVERSE_PENALTIES", (1e-9, 1e2))
    x, y = blobs(0)
    kept = (y == 0) | (np.arange(60) < 20)  # 30 documents against 10
    assert probe(x[kept], y[kept], *blobs(1), 0)["accuracy"] == 1


def test_a_dense_probe_does_not_depend_on_units_or_offsets():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    x[:, 0] -= 5 * y  # leave something to get wrong
    units, offset = np.array([1e-3, 1.0, 50.0, 1e3, 2.0]), 7.0
    assert probe(x * units + offset, y, test_x * units + offset, test_y, 0) == probe(
        x, y, test_x, test_y, 0
    )


def test_a_sparse_probe_does_not_depend_on_the_common_scale():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    forms = [[sparse.csr_array(part * unit) for part in (x, test_x)] for unit in (1, 1e4)]
    assert probe(forms[0][0], y, forms[0][1], test_y, 0) == probe(
        forms[1][0], y, forms[1][1], test_y, 0
    )
    for train, test in forms:
        scaled, scaled_test = probing._scale(train, test)
        assert scaled.toarray() == pytest.approx(x / x.std(0).max())
        assert scaled_test.toarray() == pytest.approx(test_x / x.std(0).max())


def test_a_latent_that_hardly_fires_in_train_cannot_rule_the_test():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    x[:, 4], test_x[:, 4] = 0, 5 * (1 - test_y)
    x[1, 4] = 1e-3
    assert probe(sparse.csr_array(x), y, sparse.csr_array(test_x), test_y, 0)["accuracy"] == 1


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch):
    whole = probing.LogisticRegression
    monkeypatch.setattr(
        probing, "LogisticRegression", lambda **given: whole(**given | {"max_iter": 1})
    )
    with pytest.raises(ConvergenceWarning):
        probe(*blobs(0), *blobs(1), 0)


def test_a_class_that_train_lacks_is_named():
    x, y = blobs(0)
    with pytest.raises(ValueError, match=r"classes \[2\] occur in the test documents"):
        probe(x, y, x, np.where(y == 1, 2, y), 0)


@pytest.mark.parametrize("labels", [[0] * 10, [0] * 9 + [1]])
def test_too_few_classes_or_documents_are_an_error(labels):
    x, y = np.ones((10, 2)), np.array(labels)
    with pytest.raises(ValueError, match="two classes of at least two training documents"):
        probe(x, y, x, y, 0)


def test_majority_by_hand():
    # Says 1 always: right on 2 of 4; F1 of class 1 is 2/3, of classes 0 and 2 zero.
    scores = majority(np.array([1, 1, 0, 2]), np.array([0, 1, 1, 2]))
    assert scores == {"accuracy": 0.5, "macro_f1": pytest.approx(2 / 9)}


def test_macro_f1_is_over_the_classes_of_the_test_documents():
    # Class 1 is said but not there: it counts as an error of class 0, not as a class of its own.
    assert majority(np.array([1, 1, 0]), np.array([0, 0]))["macro_f1"] == 0
    (x, y), test = blobs(0), blobs(1)[0][:4]
    test[0] = test[1]  # three documents look like class 1, one like class 0
    scores = probe(x, y, test, np.zeros(4, dtype=int), 0)
    assert scores == {"accuracy": 0.25, "macro_f1": pytest.approx(0.4)}


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_two_classes_are_ranked_by_their_mean_difference(form):
    x = np.array([[0.0, 0, 1, 3], [0, 1, 1, 3], [2, 5, 1, 0], [2, 4, 1, 3]])
    y = np.array([0, 0, 1, 1])
    assert k_sparse_features(form(x), y, 4).tolist() == [1, 0, 3, 2]  # differences 2, 4, 0, 1.5


@pytest.mark.parametrize("classes", [2, 4])
def test_selection_equals_the_naive_between_class_sum_of_squares(classes):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 8)), rng.integers(0, classes, 60) // 2 * rng.integers(1, 3, 60)
    y = np.where(np.arange(60) < 4, np.arange(60) % classes, y)  # unequal classes, none empty
    naive = [sum((x[y == y_i, j].mean() - x[:, j].mean()) ** 2 for y_i in y) for j in range(8)]
    assert k_sparse_features(x, y, 8).tolist() == np.argsort(naive)[::-1].tolist()


def test_more_latents_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="6-sparse probe on 5 features"):
        k_sparse_features(*blobs(0), 6)


@pytest.mark.parametrize("tokens", [1, 7, 4096])
def test_pooled_latents_do_not_depend_on_the_batches(monkeypatch, tokens):
    train, sae = split(0), relu_sae(0)
    whole, _ = mean_pool(sae.encode(train.activations), train.document)
    monkeypatch.setattr(pooling, "TOKENS_PER_BATCH", tokens)
    assert pooling.pooled_latents(train, sae).toarray() == pytest.approx(whole, abs=1e-5)
    runs = list(pooling.whole_documents(train.document))
    assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
    assert runs[-1].stop == len(train.document)
    for run in runs:
        documents = np.unique(train.document[run])
        assert len(documents) > 0
        assert run.stop - run.start <= tokens or len(documents) == 1


def test_decoding_the_mean_is_the_mean_of_the_reconstructions(monkeypatch):
    train, sae = split(0), relu_sae(0)
    expected, _ = mean_pool(sae.decode(sae.encode(train.activations)), train.document)
    monkeypatch.setattr(pooling, "TOKENS_PER_BATCH", 9)
    made = pooling.decode_pooled(sae, pooling.pooled_latents(train, sae))
    assert made == pytest.approx(expected, abs=1e-4)


def test_the_table_has_every_probe_once_and_repeats_with_its_seed():
    parts = split(0), split(1), relu_sae(0), relu_sae(1)
    table = probe_table(*parts, sparse_k=[1, 5], seed=3)
    assert table.columns == ["features", "k", "metric", "value"]
    expected = [
        (features, k, metric)
        for features, cuts in (
            ("latents", [None, 1, 5]),
            ("reconstruction", [None]),
            ("random_dictionary", [None, 1, 5]),
        )
        for k in cuts
        for metric in ("accuracy", "macro_f1")
    ]
    assert sorted(map(str, table.select("features", "k", "metric").rows())) == sorted(
        map(str, expected)
    )
    assert probe_table(*parts, sparse_k=[1, 5], seed=3).equals(table)


def test_a_k_sparse_probe_reads_k_latents():
    parts = split(0, signal=1.0), split(1, documents=200, signal=1.0), relu_sae(0), relu_sae(1)
    scores = probe_table(*parts, sparse_k=[1, 12], seed=0).filter(pl.col("features") == "latents")
    one, twelve = (scores.filter(pl.col("k") == k)["value"].to_list() for k in (1, 12))
    assert one != twelve


def test_each_row_is_made_of_its_own_features():
    # Latents that are constant leave the latent probes and the reconstruction at the majority.
    blind = relu_sae(5)
    blind.encode = lambda x: torch.ones(len(x), 12)
    for sae, untrained, seeing in (
        (blind, relu_sae(0), {"random_dictionary"}),
        (relu_sae(0), blind, {"latents", "reconstruction"}),
    ):
        table = probe_table(split(0), split(1), sae, untrained, [5], 0)
        accuracy = table.filter(pl.col("metric") == "accuracy")
        for features, value in accuracy.select("features", "value").iter_rows():
            assert (value > 0.7) == (features in seeing), features


def test_baselines_are_raw_activations_and_the_majority():
    table = baseline_table(split(0), split(1), 0)
    assert table["features"].to_list() == ["raw", "raw", "majority", "majority"]
    accuracy = table.filter(pl.col("metric") == "accuracy")["value"].to_list()
    assert accuracy[0] > 0.8 and accuracy[1] == 0.5


def test_a_document_without_a_label_is_named():
    train = split(0)
    del train.labels[10]
    with pytest.raises(ValueError, match="document 10 has activations but no label"):
        baseline_table(train, split(1), 0)


def test_tokens_that_are_not_sorted_by_document_are_an_error():
    train = split(0)
    shuffled = train._replace(document=train.document[::-1].copy())
    with pytest.raises(ValueError, match="not sorted"):
        probe_table(shuffled, split(1), relu_sae(0), relu_sae(1), [1], 0)


def test_the_random_dictionary_is_centred_where_the_sae_is(monkeypatch):
    sae = SAE.untrained(d_in=4, d_sae=8, k=2, seed=7)
    sae.b_dec = torch.tensor([1.0, -2.0, 3.0, 0.5])
    seen = []
    monkeypatch.setattr(
        probing, "probe_table", lambda *a: seen.append(a[3]) or pl.DataFrame({"value": [0.0]})
    )
    probing.probe_seeds({0: sae}, {"task": (None, None)}, [1])
    assert torch.equal(seen[0].b_dec, sae.b_dec)
    assert not torch.equal(seen[0].W_dec, sae.W_dec)


def test_baselines_are_measured_for_every_seed():
    table = probing.probe_baselines({"task": (split(0), split(1))}, [0, 3])
    assert table.group_by("seed").len().sort("seed").rows() == [(0, 4), (3, 4)]


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])
def test_probes_along_the_path_of_penalties_are_at_their_own_optimum(form):
    # Each starts where the one before ended; the reference is another solver's, from zero.
    x, y = blobs(0, classes=3)
    x = x + 2 * np.random.default_rng(0).normal(size=x.shape)
    scaled, _ = probing._scale(form(x), form(x))
    for penalty, found in zip(
        probing.INVERSE_PENALTIES,
        probing._fits(scaled, y, probing.INVERSE_PENALTIES),
        strict=True,
    ):
        cold = probing.LogisticRegression(C=penalty, tol=1e-8, max_iter=10_000).fit(scaled, y)
        assert found.predict_proba(scaled) == pytest.approx(cold.predict_proba(scaled), abs=2e-3)
