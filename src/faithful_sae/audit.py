"""Is a pretrained SAE used as it was trained: at its hook, with its k, under its tokenizer?

Each mistake is silent elsewhere: the SAE runs and gives plausible, worse numbers (sparsify#74,
SAELens#308, #146). Every check says in one sentence what it found.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from faithful_sae.activations import batches_by_length, context_activations
from faithful_sae.likelihood import next_token_losses
from faithful_sae.models import blocks, hook_block
from faithful_sae.pretrained import mean_l0
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions
from faithful_sae.verdicts import FITS, SUSPECT, UNKNOWN

TOKENS = 1000  # held-out tokens of each corpus that the checks read
# A neighbour fits better when it leaves less than this share of what the stated hook leaves. SAEs
# of SmolLM2 leave at a neighbour of their hook 1.2 to 1.4 times what they leave at it.
BETTER = 0.95
# Twice the latents leave of a TopK SAE's error 0.9 at the k of its training, less below it (0.82 at
# half of it), and about 1 beyond it: the SAEs of the default study.
TOO_SMALL, TOO_LARGE = 0.85, 0.96
POSITIVE = 0.9  # of k: fewer active latents show that so many are never positive
RATIO = 2.0  # of an SAE with a threshold: between active latents and the stated k
UNLIKELY = 0.8  # of ln(vocabulary): the likelihood of ids that mean nothing to the model
SCHEMA = {
    "check": pl.String,
    "candidate": pl.String,
    "metric": pl.String,
    "value": pl.Float64,
    "verdict": pl.String,
    "cause": pl.String,
}


class Row(NamedTuple):
    """A value, and at what is stated the verdict of its check with the reason."""

    check: str
    candidate: str
    metric: str
    value: float
    verdict: str | None = None
    cause: str | None = None


def audit_sae(
    model: Any,
    tokenizer: Any,
    sae: SAE,
    stated: Mapping[str, Any],
    hook: str,
    contexts: Mapping[str, pa.Table],
    outside: Sequence[str],
    positions: Positions,
) -> pl.DataFrame:
    """Rows of SCHEMA of the three checks; verdict "fits", "suspect" or "unknown" once in each.

    stated: `pretrained.stated`; contexts: held-out ones by corpus; outside: the corpora that no
    model wrote.
    """
    some = {corpus: _first(table) for corpus, table in contexts.items()}
    every = [row for rows in some.values() for row in rows]
    depth, last = hook_block(hook), len(blocks(model)) - 1
    near = {
        f"resid_pre.{block}": kept_activations(model, every, f"resid_pre.{block}", positions)
        for block in range(max(depth - 1, 0), min(depth + 1, last) + 1)
    }
    likelihood = {corpus: nll(model, some[corpus]) for corpus in outside}
    vocabulary = model.config.get_text_config().vocab_size
    rows = [
        *check_hook(sae, hook, near, stated.get("hook")),
        *check_k(sae, stated.get("k"), near[hook]),
        *check_tokenizer(
            stated.get("vocabulary_sha256"), vocabulary_sha256(tokenizer), likelihood, vocabulary
        ),
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def check_hook(sae: SAE, hook: str, near: Mapping[str, Tensor], named: str | None) -> list[Row]:
    """Explained variance at the hook and at its neighbours.

    Suspect where a neighbour leaves clearly less, or the SAE's own files name another hook.
    near: activations [n, d_in] of each hook; named: the hook that its files name, if any.
    """
    left = {name: unexplained(sae, x) for name, x in near.items()}
    best = min(left, key=lambda name: left[name])
    found = f"explains {1 - left[hook]:.3f} of the variance at {hook}"
    if left[best] < BETTER * left[hook]:
        found += f" but {1 - left[best]:.3f} at {best}"
        verdict, cause = SUSPECT, f"{found}: its hook is {best}, or beyond"
    elif named not in (None, hook):
        verdict, cause = SUSPECT, f"its cfg.json or folder names {named}, the study reads {hook}"
    else:
        verdict, cause = FITS, f"{found}, and no neighbour clearly more"
    at = {hook: (verdict, cause)}
    return [
        Row("hook", name, "explained_variance", 1 - value, *at.get(name, ()))
        for name, value in left.items()
    ]


def check_k(sae: SAE, k: int | None, x: Tensor) -> list[Row]:
    """Active latents per token against the k that is stated; of TopK, also the error at k/2 and 2k.

    A TopK SAE of any k has that many active latents as long as so many are positive. But it is
    fitted to its k: below it the error falls fast with k, beyond it hardly (Gao et al. 2024, 5.3).
    A factor of two is seen only in SAEs that were trained long enough.
    """
    l0 = mean_l0(sae, [x])
    rows = []
    verdict, cause = FITS, f"{l0:.1f} latents are active on a token, as stated"
    if k is None:
        verdict, cause = UNKNOWN, f"no k is stated; {l0:.1f} latents are active on a token"
    elif sae.threshold is not None:
        if not 1 / RATIO < l0 / k < RATIO:
            verdict = SUSPECT
            cause = f"{l0:.1f} latents are active on a token, k = {k} is stated: "
            cause += "its activation function is not the one of its training"
    else:
        few, many = max(1, k // 2), min(2 * k, sae.d_sae)
        left = {n: unexplained(replace(sae, k=n), x) for n in (few, k, many)}
        rows = [
            Row("k", str(n), "explained_variance", 1 - value) for n, value in left.items() if n != k
        ]
        if l0 < POSITIVE * k:
            verdict, cause = SUSPECT, f"k = {k} is stated, but only {l0:.1f} latents are positive"
        elif few < k and left[k] > TOO_LARGE * left[few]:
            verdict, cause = SUSPECT, f"half of the stated k = {k} rebuilds as well: k is smaller"
        elif many > k and left[many] < TOO_SMALL * left[k]:
            verdict = SUSPECT
            cause = f"twice the stated k = {k} leaves only {left[many] / left[k]:.2f} of the error"
            cause += ": k is larger"
    stated = "none" if k is None else str(k)
    return [*rows, Row("k", stated, "l0", l0, verdict, cause)]


def check_tokenizer(
    named: str | None, own: str, likelihood: Mapping[str, float], vocabulary: int
) -> list[Row]:
    """Is the vocabulary the one the SAE's files name, and outside text likely under the model?

    named, own: `vocabulary_sha256` in the SAE's files (None: not there) and of the model's
    tokenizer; likelihood: nats per token of each outside text; vocabulary: ids of the model.
    A wrong tokenizer makes every text nonsense, near ln(vocabulary) or worse, so that the
    likeliest one decides.
    """
    rows = [Row("tokenizer", corpus, "nll", value) for corpus, value in likelihood.items()]
    chance = math.log(vocabulary)
    if named not in (None, own):
        verdict = SUSPECT
        cause = f"its cfg.json was written for vocabulary {named[:8]}, the model has {own[:8]}"
    elif not likelihood:
        verdict, cause = UNKNOWN, "the study has no outside text to measure the likelihood of"
    else:
        best = min(likelihood, key=lambda corpus: likelihood[corpus])
        cost = f"{best} costs {likelihood[best]:.2f} nats a token, random ids {chance:.2f}"
        if likelihood[best] > UNLIKELY * chance:
            verdict, cause = SUSPECT, f"{cost}: another tokenizer's ids, or random weights"
        else:
            verdict, cause = FITS, cost
    return [*rows, Row("tokenizer", "random ids", "nll", chance, verdict, cause)]


def kept_activations(
    model: Any, contexts: Sequence[np.ndarray], hook: str, positions: Positions
) -> Tensor:
    """Activations [n, d_in] at a hook of the tokens that the positions policy keeps there."""
    x = torch.cat(context_activations(model, list(contexts), hook))
    position = np.concatenate([np.arange(len(row)) for row in contexts])
    kept = positions.kept(position, x.norm(dim=1).cpu().numpy())
    return x[torch.from_numpy(kept).to(x.device)].cpu()


def unexplained(sae: SAE, x: Tensor) -> float:
    """Squared error over squared deviation from the mean, of activations x [n, d_in]: `fvu`."""
    return float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())


def nll(model: Any, contexts: Sequence[np.ndarray]) -> float:
    """Negative log-likelihood of contexts under the model, nats per token."""
    total = tokens = 0.0
    for numbers, ids in batches_by_length(list(contexts), model.device):
        losses = next_token_losses(model, ids)
        for row, number in zip(losses, numbers, strict=True):
            predicted = len(contexts[number]) - 1
            total += float(row[:predicted].sum(dtype=torch.float64))
            tokens += predicted
    return total / tokens


def vocabulary_sha256(tokenizer: Any) -> str:
    """Digest of a tokenizer's vocabulary: sha256 of the JSON of its [token, id] pairs, by id."""
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()


def _first(contexts: pa.Table) -> list[np.ndarray]:
    """The first contexts that together have TOKENS tokens, or all."""
    rows = [np.asarray(row, np.int32) for row in contexts["tokens"].to_pylist()]
    ends = np.cumsum([len(row) for row in rows])
    return rows[: 1 + int(np.searchsorted(ends, TOKENS))]
