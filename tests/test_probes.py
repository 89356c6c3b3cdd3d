"""A probe is honest: drawn by its seed alone, chosen on validation rows, scored on test rows."""

from collections import Counter

import numpy as np
import pytest
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from faithful_sae import probes
from faithful_sae.probes import Draw, draw_documents, k_sparse_features, majority, probe

FORMS = pytest.mark.parametrize("form", [np.asarray, sparse.csr_array])


def blobs(seed: int, n: int = 60, d: int = 5, classes: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, d))
    x[np.arange(n), y] += 6
    return x, y


def probed(train, test, form=np.asarray):
    """The scores of a probe on two sets [x, y]; every fifth training row of a class validates."""
    (x, y), (test_x, test_y) = train, test
    place = np.array([np.sum(y[:i] == y[i]) for i in range(len(y))])
    rows = np.arange(len(y))
    draw = Draw(rows[place % 5 > 0], rows[place % 5 == 0], len(y) + np.arange(len(test_y)))
    return probe(form(np.concatenate([x, test_x])), np.concatenate([y, test_y]), draw)


LABELS = {7 * i + 3: "abc"[i % 10 // 5 + (i % 50 == 0)] for i in range(300)}  # 6 b become c


def test_a_draw_uses_every_document_once_and_keeps_the_shares_of_classes():
    draw = draw_documents(LABELS, 0)
    assert sorted(np.concatenate(draw)) == sorted(LABELS)
    assert sorted(draw.train) == sorted([*draw.fit, *draw.validation])
    assert [len(part) for part in draw] == [192, 48, 60]
    whole = Counter(LABELS.values())
    for part in draw:
        found = Counter(LABELS[i] for i in part.tolist())
        for name, count in whole.items():
            assert abs(found[name] - count * len(part) / 300) < 1


def test_a_draw_depends_on_labels_and_seed_alone():
    draw = draw_documents(LABELS, 1)
    backwards = draw_documents(dict(reversed(LABELS.items())), 1)
    assert all(np.array_equal(a, b) for a, b in zip(draw, backwards, strict=True))
    assert not np.array_equal(draw.test, draw_documents(LABELS, 2).test)


def test_draws_of_several_seeds_reach_every_document():
    tested = [draw_documents(LABELS, seed).test for seed in range(60)]
    times = Counter(np.concatenate(tested).tolist())
    assert set(times) == set(LABELS)
    assert max(times.values()) < 30  # 12 on average


@pytest.mark.parametrize("labels", ["aaaaaa", "aaaabb", "", "aaa"])
def test_too_few_classes_or_documents_are_an_error(labels):
    with pytest.raises(ValueError, match=r"two classes of at least three .*`examples"):
        draw_documents(dict(enumerate(labels)), 0)


def test_the_smallest_task_has_every_class_in_what_is_fitted():
    for seed in range(20):
        draw = draw_documents(dict(enumerate("aaabbb")), seed)
        assert {i // 3 for i in draw.fit.tolist()} == {0, 1} and len(draw.test) == 2


@pytest.mark.parametrize("classes", [2, 3])
@FORMS
def test_a_probe_separates_what_is_separable(classes, form):
    sets = blobs(0, classes=classes), blobs(1, classes=classes)
    assert probed(*sets, form) == {"accuracy": 1, "macro_f1": 1}


def test_labels_that_do_not_depend_on_features_are_read_as_well_as_the_majority():
    # Leaking test labels, or scoring on train, would lift this far above the share of the majority.
    labels = {i: "ab"[i % 10 < 3] for i in range(200)}
    y = np.array([labels[i] == "b" for i in labels]).astype(int)
    x = np.random.default_rng(0).normal(size=(200, 40))
    found = [probe(x, y, draw_documents(labels, seed))["accuracy"] for seed in range(20)]
    assert np.mean(found) == pytest.approx(0.7, abs=0.06)


def test_the_order_of_documents_does_not_change_a_probe():
    (x, y) = blobs(0, n=100)
    x = x + 4 * np.random.default_rng(1).normal(size=x.shape)
    draw = draw_documents({i: "ab"[label] for i, label in enumerate(y)}, 0)
    order = np.random.default_rng(2).permutation(100)
    moved = Draw(*(np.argsort(order)[rows] for rows in draw))
    scores = probe(x, y, draw)
    assert probe(x[order], y[order], moved) == scores and scores["accuracy"] < 1


def test_test_rows_do_not_move_the_probe():
    (x, y), draw = blobs(0), draw_documents({i: "ab"[i % 2] for i in range(60)}, 0)
    x[:, 0] -= 5 * y  # leave something to get wrong
    alone = {}
    for row in draw.test:
        alone[row] = probe(x, y, draw._replace(test=np.array([row])))["accuracy"]
    assert probe(x, y, draw)["accuracy"] == pytest.approx(np.mean(list(alone.values())))


def test_the_penalty_is_chosen_where_it_matters(monkeypatch):
    # Few documents and mostly noise: the weakest penalty fits the noise, the chosen one does not.
    monkeypatch.setattr(probes, "INVERSE_PENALTIES", (1e-4, 1e2))
    gains = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        y, test_y = np.arange(200) % 2, np.arange(2000) % 2
        x, test_x = rng.normal(size=(200, 100)), rng.normal(size=(2000, 100))
        x[:, :20] += 0.25 * (2 * y[:, None] - 1)
        test_x[:, :20] += 0.25 * (2 * test_y[:, None] - 1)
        scaled, test = probes._scale(x, test_x)
        weakest = np.mean(next(probes._fits(scaled, y, [1e2])).predict(test) == test_y)
        gains.append(probed((x, y), (test_x, test_y))["accuracy"] - weakest)
    assert np.mean(gains) > 0.02


def test_a_penalty_that_says_the_majority_is_passed_over(monkeypatch):
    monkeypatch.setattr(probes, "INVERSE_PENALTIES", (1e-9, 1e2))
    x, y = blobs(0)
    kept = (y == 0) | (np.arange(60) < 20)  # 30 documents against 10
    assert probed((x[kept], y[kept]), blobs(1))["accuracy"] == 1


def test_a_dense_probe_does_not_depend_on_units_or_offsets():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    x[:, 0] -= 5 * y  # leave something to get wrong
    units, offset = np.array([1e-3, 1.0, 50.0, 1e3, 2.0]), 7.0
    moved = (x * units + offset, y), (test_x * units + offset, test_y)
    assert probed(*moved) == probed((x, y), (test_x, test_y))


def test_a_sparse_probe_does_not_depend_on_the_common_scale():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    scores = []
    for unit in (1, 1e4):
        scores.append(probed((unit * x, y), (unit * test_x, test_y), sparse.csr_array))
        train, test = sparse.csr_array(unit * x), sparse.csr_array(unit * test_x)
        scaled, scaled_test = probes._scale(train, test)
        assert scaled.toarray() == pytest.approx(x / x.std(0).max())
        assert scaled_test.toarray() == pytest.approx(test_x / x.std(0).max())
    assert scores[0] == scores[1]


def test_a_latent_that_hardly_fires_in_train_cannot_rule_the_test():
    (x, y), (test_x, test_y) = blobs(0), blobs(1)
    x[:, 4], test_x[:, 4] = 0, 5 * (1 - test_y)
    x[1, 4] = 1e-3
    assert probed((x, y), (test_x, test_y), sparse.csr_array)["accuracy"] == 1


def test_a_fit_that_does_not_converge_is_an_error(monkeypatch):
    whole = probes.LogisticRegression
    monkeypatch.setattr(
        probes, "LogisticRegression", lambda **given: whole(**given | {"max_iter": 1})
    )
    with pytest.raises(ConvergenceWarning):
        probed(blobs(0), blobs(1))


def test_majority_by_hand():
    # Says 1 always: right on 2 of 4; F1 of class 1 is 2/3, of classes 0 and 2 zero.
    scores = majority(np.array([1, 1, 0, 2]), np.array([0, 1, 1, 2]))
    assert scores == {"accuracy": 0.5, "macro_f1": pytest.approx(2 / 9)}


def test_macro_f1_is_over_the_classes_of_the_test_documents():
    # Class 1 is said but not there: it counts as an error of class 0, not as a class of its own.
    assert majority(np.array([1, 1, 0]), np.array([0, 0]))["macro_f1"] == 0
    (x, y), test = blobs(0), blobs(1)[0][:4]
    test[0] = test[1]  # three documents look like class 1, one like class 0
    scores = probed((x, y), (test, np.zeros(4, dtype=int)))
    assert scores == {"accuracy": 0.25, "macro_f1": pytest.approx(0.4)}


@FORMS
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


@FORMS
def test_probes_along_the_path_of_penalties_are_at_their_own_optimum(form):
    # Each starts where the one before ended; the reference is another solver's, from zero.
    x, y = blobs(0, classes=3)
    x = x + 2 * np.random.default_rng(0).normal(size=x.shape)
    scaled, _ = probes._scale(form(x), form(x))
    for penalty, found in zip(
        probes.INVERSE_PENALTIES,
        probes._fits(scaled, y, probes.INVERSE_PENALTIES),
        strict=True,
    ):
        cold = probes.LogisticRegression(C=penalty, tol=1e-8, max_iter=10_000).fit(scaled, y)
        assert found.predict_proba(scaled) == pytest.approx(cold.predict_proba(scaled), abs=2e-3)
