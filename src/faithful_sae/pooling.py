"""Activations and latents averaged over the tokens of each document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from faithful_sae.sae import SAE

Array: TypeAlias = NDArray[np.float32] | NDArray[np.float64]
Features: TypeAlias = Array | sparse.csr_array
Labels: TypeAlias = NDArray[np.int64]

# Dense latents of one batch of tokens are the largest thing in memory: 4 * d_sae bytes a token.
TOKENS_PER_BATCH = 4096


class Task(NamedTuple):
    """Activations and labels of one probing task.

    activations: [n_tokens, d_in], real positions only.  document: [n_tokens] int, sorted ids.
    labels: document id -> class. A document without a token takes no part in any probe.
    """

    activations: Tensor
    document: Labels
    labels: Mapping[int, str]


def classes_of(task: Task) -> Labels:
    """The class of each document that has a token, [n_docs], in the order of `mean_pool`.

    Classes are numbered in the order of their names.
    Raises ValueError for a document that has no label.
    """
    ids = np.unique(task.document).tolist()
    unlabelled = [document for document in ids if document not in task.labels]
    if unlabelled:
        raise ValueError(
            f"document {unlabelled[0]} has activations but no label ({len(unlabelled)} such "
            "documents): extract the task's own documents"
        )
    number = {name: i for i, name in enumerate(sorted(set(task.labels.values())))}
    return np.array([number[task.labels[document]] for document in ids])


def mean_pool(features: Tensor | Features, document: Labels) -> tuple[Features, Labels]:
    """Mean of the features of each document: (pooled [n_docs, d], document ids [n_docs], sorted).

    features: [n_tokens, d]; a CSR matrix stays one.  document: [n_tokens] int ids.
    Raises ValueError when there is not one document id per token.
    """
    if features.shape[0] != len(document):
        raise ValueError(
            f"{features.shape[0]} tokens but {len(document)} document ids: give one id per token"
        )
    values = features.cpu().numpy() if isinstance(features, Tensor) else features
    ids, row, tokens = np.unique(document, return_inverse=True, return_counts=True)
    weights = (1 / tokens[row]).astype(values.dtype)
    mean = sparse.csr_array((weights, (row, np.arange(len(row)))), shape=(len(ids), len(row)))
    return mean @ values, ids


def pooled_latents(task: Task, sae: SAE) -> sparse.csr_array:
    """Mean latents of each document, [n_docs, d_sae] CSR; no token's latents outlive its batch."""
    pooled = []
    for tokens in whole_documents(task.document):
        with torch.inference_mode():
            latents = sae.encode(task.activations[tokens].to(sae.W_dec.device))
        # Pooled before they are compressed: there are far fewer documents than tokens.
        pooled.append(sparse.csr_array(mean_pool(latents, task.document[tokens])[0]))
    return sparse.csr_array(sparse.vstack(pooled))


def whole_documents(document: Labels) -> Iterator[slice]:
    """Runs of whole documents of at most TOKENS_PER_BATCH tokens, or of one longer document."""
    if (np.diff(document) < 0).any():
        raise ValueError("document ids of a task are not sorted: sort its tokens by document")
    start = end = 0
    for following in [*(np.flatnonzero(np.diff(document)) + 1).tolist(), len(document)]:
        if end > start and following - start > TOKENS_PER_BATCH:
            yield slice(start, end)
            start = end
        end = following
    yield slice(start, end)


def decode_pooled(sae: SAE, latents: sparse.csr_array) -> Array:
    """Mean reconstruction of each document: decoding is affine, so it commutes with the mean."""
    x_hat = []
    for start in range(0, latents.shape[0], TOKENS_PER_BATCH):
        dense = torch.from_numpy(latents[start : start + TOKENS_PER_BATCH].toarray())
        with torch.inference_mode():
            x_hat.append(sae.decode(dense.to(sae.W_dec.device)).cpu())
    return torch.cat(x_hat).numpy()
