"""One linear probe: documents drawn for it, its penalty chosen, its accuracy on the others."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from faithful_sae.pooling import Features, Labels

Rows = NDArray[np.int64]

# Inverse penalties, strongest first: a tie on the validation documents keeps the stronger one.
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
TEST_SHARE = 0.2
VALIDATION_SHARE = 0.2  # of what is not test
# Of the gradient's largest entry. At scikit-learn's 1e-4, probes of the demo stopped up to 4 points
# of accuracy short of their optimum; here they agree with 1e-6.
TOLERANCE = 1e-5


class Draw(NamedTuple):
    """Who does what for one probe seed; rows of a feature matrix, or ids of documents.

    fit: fitted on while a penalty is chosen.  validation: chosen by.  test: scored on.
    """

    fit: Rows
    validation: Rows
    test: Rows

    @property
    def train(self) -> Rows:
        return np.concatenate([self.fit, self.validation])


def draw_documents(labels: Mapping[int, str], seed: int) -> Draw:
    """Ids of documents: a fifth to test, a fifth of the others to choose by, the rest to fit.

    Stratified by class. The draw depends on `labels` (document id -> class) and the seed alone, so
    that every SAE, baseline and hook is probed on the same documents: their differences are paired.
    Raises ValueError for fewer than two classes, or for one of fewer than three documents, which
    might have none to fit.
    """
    documents = np.array(sorted(labels))
    classes = np.array([labels[document] for document in documents.tolist()])
    names, counts = np.unique(classes, return_counts=True)
    if len(names) < 2 or counts.min() < 3:
        found = dict(zip(names.tolist(), counts.tolist(), strict=True))
        raise ValueError(
            "a probe needs two classes of at least three documents each, found "
            f"{found} (class: documents): raise `examples` of the task"
        )
    random = np.random.RandomState(seed)

    def apart(rows: Rows, share: float) -> tuple[Rows, Rows]:
        size = max(len(names), round(share * len(rows)))
        most, few = train_test_split(
            rows, test_size=size, stratify=classes[rows], random_state=random
        )
        return np.sort(most), np.sort(few)

    train, test = apart(np.arange(len(documents)), TEST_SHARE)
    fit, validation = apart(train, VALIDATION_SHARE)
    return Draw(documents[fit], documents[validation], documents[test])


def probe(x: Features, y: Labels, draw: Draw) -> dict[str, float]:
    """Test accuracy and macro-F1 of a multinomial logistic regression with an L2 penalty.

    The penalty is the most accurate one on the validation rows, and of equals the strongest; the
    probe is then refitted on all training rows. Log loss would reject strong penalties for being
    unsure, which costs accuracy. Dense columns are standardised on train; a CSR matrix keeps its
    zeros and is divided by one number, its largest column deviation: one per column would blow up
    latents that hardly fire in train. Macro-F1 is over the classes of the test rows.

    x: [n_docs, d].  y: [n_docs] classes.  draw: rows.
    Raises ConvergenceWarning as an error when a fit does not converge.
    """
    fit, validation = _scale(x[draw.fit], x[draw.validation])
    accuracy = [
        accuracy_score(y[draw.validation], model.predict(validation))
        for model in _fits(fit, y[draw.fit], INVERSE_PENALTIES)
    ]
    train, test = _scale(x[draw.train], x[draw.test])
    (model,) = _fits(train, y[draw.train], [INVERSE_PENALTIES[int(np.argmax(accuracy))]])
    return _scores(y[draw.test], model.predict(test))


def _scale(train_x: Features, other_x: Features) -> tuple[Features, Features]:
    # float64: the line search of newton-cg stalls on float32 gradients.
    train, other = train_x.astype(np.float64), other_x.astype(np.float64)
    if sparse.issparse(train):
        largest = float(np.sqrt(StandardScaler(with_mean=False).fit(train).var_.max())) or 1.0
        return train / largest, other / largest
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(other)


def _fits(
    x: Features, y: Labels, inverse_penalties: Sequence[float]
) -> Iterator[LogisticRegression]:
    """A probe for each penalty, strongest first: one object, refitted from where it stands."""
    model = LogisticRegression(solver="newton-cg", tol=TOLERANCE, max_iter=1000, warm_start=True)
    for inverse_penalty in inverse_penalties:
        model.set_params(C=inverse_penalty)
        with warnings.catch_warnings():
            # A probe short of its optimum would understate its features without a trace.
            warnings.simplefilter("error", ConvergenceWarning)
            model.fit(x, y)
        yield model


def _scores(true: Labels, said: Labels) -> dict[str, float]:
    f1 = f1_score(true, said, labels=np.unique(true), average="macro", zero_division=0)
    return {"accuracy": float(accuracy_score(true, said)), "macro_f1": float(f1)}


def majority(train_y: Labels, test_y: Labels) -> dict[str, float]:
    """Accuracy and macro-F1 of always saying the most frequent training class (ties: smallest)."""
    classes, counts = np.unique(train_y, return_counts=True)
    return _scores(test_y, np.full(len(test_y), classes[counts.argmax()]))


def k_sparse_features(train_x: Features, train_y: Labels, k: int) -> NDArray[np.int64]:
    """The k columns whose class means differ most, best first; ties to the lower index.

    Score of a column: between-class sum of squares, `sum_c n_c (mean_c - mean)^2`. For two classes
    it ranks like `|mean_1 - mean_0|`, the selection of Gurnee et al. 2023 that SAEBench uses.
    Selected on training documents only.  Raises ValueError when k exceeds the number of columns.
    """
    if k > train_x.shape[1]:
        raise ValueError(f"a {k}-sparse probe on {train_x.shape[1]} features: lower k")
    mean = train_x.mean(axis=0, dtype=np.float64)
    score = np.zeros(train_x.shape[1])
    for label in np.unique(train_y):
        of_class = train_x[train_y == label]
        score += of_class.shape[0] * (of_class.mean(axis=0, dtype=np.float64) - mean) ** 2
    return np.argsort(-score, kind="stable")[:k]
