"""Linear probes on mean-pooled features: raw activations, latents, reconstructions, baselines."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from faithful_sae.arrow import read_arrow
from faithful_sae.pooling import (
    Features,
    Labels,
    Split,
    decode_pooled,
    labels_of,
    mean_pool,
    pooled_latents,
)
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions, Shards

# Inverse penalties, strongest first: a tie on the validation documents keeps the stronger one.
INVERSE_PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1e0, 1e1, 1e2)
VALIDATION_SHARE = 0.2
# Of the gradient's largest entry. At scikit-learn's 1e-4, probes of the demo stopped up to 4 points
# of accuracy short of their optimum; here they agree with 1e-6.
TOLERANCE = 1e-5


def probe(
    train_x: Features, train_y: Labels, test_x: Features, test_y: Labels, seed: int
) -> dict[str, float]:
    """Test accuracy and macro-F1 of a multinomial logistic regression with an L2 penalty.

    The penalty is the most accurate one, and of equals the strongest, on a stratified fifth of the
    training documents (drawn by `seed`); the probe is then refitted on all of them. Log loss would
    reject strong penalties for being unsure, which costs accuracy. Dense columns are standardised
    on train; a CSR matrix keeps its zeros and is divided by one number, its largest column
    deviation: one per column would blow up latents that hardly fire in train. Macro-F1 is over the
    classes of the test documents.

    train_x, test_x: [n_docs, d].  train_y, test_y: [n_docs] int.
    Raises ValueError for fewer than two classes, a class with fewer than two training documents,
    or one missing from train; ConvergenceWarning as an error when a fit does not converge.
    """
    _check_classes(train_y, test_y)
    fit, held_out = train_test_split(
        np.arange(len(train_y)),
        test_size=max(len(np.unique(train_y)), round(VALIDATION_SHARE * len(train_y))),
        stratify=train_y,
        random_state=seed,
    )
    x, validation = _scale(train_x[fit], train_x[held_out])
    accuracy = [
        accuracy_score(train_y[held_out], model.predict(validation))
        for model in _fits(x, train_y[fit], INVERSE_PENALTIES)
    ]
    x, test = _scale(train_x, test_x)
    (model,) = _fits(x, train_y, [INVERSE_PENALTIES[int(np.argmax(accuracy))]])
    return _scores(test_y, model.predict(test))


def _check_classes(train_y: Labels, test_y: Labels) -> None:
    classes, documents = np.unique(train_y, return_counts=True)
    missing = np.setdiff1d(test_y, classes)
    if len(missing):
        raise ValueError(
            f"classes {missing.tolist()} occur in the test documents but not in train: "
            "take more training documents"
        )
    if len(classes) < 2 or documents.min() < 2:
        counts = dict(zip(classes.tolist(), documents.tolist(), strict=True))
        raise ValueError(
            "a probe needs two classes of at least two training documents each, found "
            f"{counts} (class: documents): take more training documents"
        )


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

    Score of a column: between-class sum of squares, sum_c n_c (mean_c - mean)^2. For two classes
    it ranks like |mean_1 - mean_0|, the selection of Gurnee et al. 2023 that SAEBench uses.
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


def probe_table(
    train: Split, test: Split, sae: SAE, untrained: SAE, sparse_k: Sequence[int], seed: int
) -> pl.DataFrame:
    """Probes that depend on an SAE: columns features, k, metric, value.

    features: "latents" and "random_dictionary" (the untrained SAE of the same shape), on all
    latents (k null) and on `sparse_k` of them; "reconstruction".
    """
    train_y, test_y = labels_of(train), labels_of(test)
    tables = []
    for features, coder in (("latents", sae), ("random_dictionary", untrained)):
        train_x, test_x = pooled_latents(train, coder), pooled_latents(test, coder)
        tables.append(_rows(features, None, probe(train_x, train_y, test_x, test_y, seed)))
        for k in sparse_k:
            few = k_sparse_features(train_x, train_y, k)
            few_train, few_test = train_x[:, few].toarray(), test_x[:, few].toarray()
            tables.append(_rows(features, k, probe(few_train, train_y, few_test, test_y, seed)))
        if features == "latents":
            x_hat, test_x_hat = decode_pooled(sae, train_x), decode_pooled(sae, test_x)
            scores = probe(x_hat, train_y, test_x_hat, test_y, seed)
            tables.append(_rows("reconstruction", None, scores))
    return pl.concat(tables)


def baseline_table(train: Split, test: Split, seed: int) -> pl.DataFrame:
    """Probes that depend on no SAE: columns features ("raw", "majority"), k, metric, value."""
    train_y, test_y = labels_of(train), labels_of(test)
    train_x, _ = mean_pool(train.activations, train.document)
    test_x, _ = mean_pool(test.activations, test.document)
    raw = _rows("raw", None, probe(train_x, train_y, test_x, test_y, seed))
    return pl.concat([raw, _rows("majority", None, majority(train_y, test_y))])


def _rows(features: str, k: int | None, scores: Mapping[str, float]) -> pl.DataFrame:
    schema = {"features": pl.String, "k": pl.Int64, "metric": pl.String, "value": pl.Float64}
    rows = [(features, k, metric, value) for metric, value in scores.items()]
    return pl.DataFrame(rows, schema=schema, orient="row")


def read_tasks(
    names: Sequence[str],
    examples: Sequence[str],
    activations: Sequence[str],
    positions: Positions,
) -> dict[str, tuple[Split, Split]]:
    """Train and held-out split of every task, from its contexts and their activations."""
    tasks = {}
    for name, contexts, shard in zip(names, examples, activations, strict=True):
        table = pl.DataFrame(pl.from_arrow(read_arrow(Path(contexts))))
        shards = Shards([Path(shard)], positions)
        x = torch.cat(list(shards.batches()))
        document = shards.document[shards.kept]
        splits = []
        for split in ("train", "heldout"):
            part = table.filter(pl.col("split") == split)
            labels = dict(zip(part["document"].to_list(), part["label"].to_list(), strict=True))
            mine = np.isin(document, part["document"].to_numpy())
            splits.append(Split(x[torch.from_numpy(mine)], document[mine], labels))
        tasks[name] = (splits[0], splits[1])
    return tasks


def probe_seeds(
    saes: Mapping[int, SAE], tasks: Mapping[str, tuple[Split, Split]], sparse_k: Sequence[int]
) -> pl.DataFrame:
    """`probe_table` of every seed's SAE on every task, with columns `seed` and `task`.

    The random dictionary and the probe's validation split take the SAE's seed; the dictionary is
    centred where the SAE is.
    """
    tables = []
    for seed, sae in saes.items():
        untrained = SAE.untrained(d_in=sae.d_in, d_sae=sae.d_sae, k=sae.k, seed=seed)
        # Training starts at the mean too: without a centre a third of the latents never fire, and
        # the control would lose for that reason.
        untrained.b_dec = sae.b_dec
        for task, (train, test) in tasks.items():
            table = probe_table(train, test, sae, untrained, sparse_k, seed)
            tables.append(table.with_columns(seed=pl.lit(seed), task=pl.lit(task)))
    return pl.concat(tables)


def probe_baselines(tasks: Mapping[str, tuple[Split, Split]], seeds: Sequence[int]) -> pl.DataFrame:
    """`baseline_table` of every task, with columns `seed` and `task`.

    The seed chooses the probe's validation split, as it does for the SAEs' probes.
    """
    return pl.concat(
        baseline_table(train, test, seed).with_columns(seed=pl.lit(seed), task=pl.lit(task))
        for seed in seeds
        for task, (train, test) in tasks.items()
    )
