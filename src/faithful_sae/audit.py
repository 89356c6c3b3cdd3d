"""Is a pretrained SAE used as it was trained? What the checks (audit_checks.py) are asked of.

Each mistake is silent elsewhere: the SAE runs and gives plausible, worse numbers (sparsify#74,
SAELens#308, #146). Every check says in one sentence what it found.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from faithful_sae.activations import batches_by_length, context_activations
from faithful_sae.audit_checks import SCHEMA, check_hook, check_input, check_k, check_tokenizer
from faithful_sae.contexts import context_tokens
from faithful_sae.hook_names import hook_block
from faithful_sae.likelihood import next_token_losses
from faithful_sae.logit_effects import final_norm
from faithful_sae.models import blocks
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions
from faithful_sae.vocabulary import VOCABULARY, vocabulary_sha256

TOKENS = 1000  # held-out tokens of each corpus that the checks read


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
    """Rows of SCHEMA of all checks; verdict "fits", "suspect" or "unknown" once in each.

    stated: `pretrained.stated`; contexts: held-out ones by corpus; outside: the corpora that no
    model wrote.
    """
    some = {corpus: _first(table) for corpus, table in contexts.items()}
    depth = hook_block(hook)
    near = {
        f"resid_pre.{block}": {
            corpus: kept_activations(model, rows, block, positions) for corpus, rows in some.items()
        }
        for block in range(max(depth - 1, 0), min(depth + 1, len(blocks(model))) + 1)
    }
    pooled = {name: torch.cat([*texts.values()]) for name, texts in near.items()}
    likelihood = {corpus: nll(model, some[corpus]) for corpus in outside}
    vocabulary = model.config.get_text_config().vocab_size
    rows = [
        *check_hook(sae, hook, pooled, stated.get("hook")),
        *check_input(sae, pooled[hook]),
        *check_k(sae, stated.get("k"), near[hook]),
        *check_tokenizer(
            stated.get(VOCABULARY), vocabulary_sha256(tokenizer), likelihood, vocabulary
        ),
    ]
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def kept_activations(
    model: Any, contexts: Sequence[np.ndarray], block: int, positions: Positions
) -> Tensor:
    """What enters a block, [n, d_in], at the tokens that the positions policy keeps there.

    The number of blocks stands for what leaves the last one: no hook of a study, since
    `transformers` has it only behind the final norm, but where an SAE may have been trained.
    """
    if block == len(blocks(model)):
        x = torch.cat(_last_outputs(model, list(contexts)))
    else:
        x = torch.cat(context_activations(model, list(contexts), f"resid_pre.{block}"))
    position = np.concatenate([np.arange(len(row)) for row in contexts])
    kept = positions.kept(position, x.norm(dim=1).cpu().numpy())
    return x[torch.from_numpy(kept).to(x.device)].cpu()


@torch.inference_mode()
def _last_outputs(model: Any, contexts: list[np.ndarray]) -> list[Tensor]:
    """What leaves the last block, before the final norm, of each context."""
    reached: list[Tensor] = []
    handle = final_norm(model).register_forward_pre_hook(lambda _, args: reached.append(args[0]))
    found: dict[int, Tensor] = {}
    try:
        for numbers, tokens in batches_by_length(contexts, model.device):
            model.get_decoder()(input_ids=tokens, use_cache=False)
            hidden = reached.pop()
            for row, number in enumerate(numbers):
                found[number] = hidden[row, : len(contexts[number])]
    finally:
        handle.remove()
    return [found[i] for i in range(len(contexts))]


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


def _first(contexts: pa.Table) -> list[np.ndarray]:
    """The first contexts that together have TOKENS tokens, or all."""
    rows = context_tokens(contexts)
    ends = np.cumsum([len(row) for row in rows])
    return rows[: 1 + int(np.searchsorted(ends, TOKENS))]
