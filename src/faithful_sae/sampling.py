"""Text that a model writes by itself: pure sampling from its start token.

Documents are generated in fixed blocks, and each document's random draws come from its own
counter-based stream. A document therefore depends on the model, the settings and its number alone:
not on how many shards share the work, nor on restarts.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faithful_sae.contexts import Sample
from faithful_sae.progress import Progress

TOP_P_CANDIDATES = 1024  # a nucleus is almost always this small; a full sort is the rare fallback
CDF_BLOCK = 256  # tokens whose probabilities are summed first, so that no long float sum is walked


@torch.inference_mode()
def sample_documents(
    model: Any,
    documents: range,
    *,
    start_token: int,
    end_tokens: list[int],
    context_length: int,
    temperature: float,
    top_p: float,
    seed: int,
    block: int,
) -> Iterator[Sample]:
    """Sample documents of up to `context_length` tokens, the start token included, in number order.

    `documents` must consist of whole blocks of `block` documents. The model's own generation
    settings are ignored: the distribution is softmax(logits / temperature), cut to the nucleus of
    mass `top_p` (Holtzman et al. 2020) when that is below 1, and nothing else.

    Raises ValueError when `documents` does not start and end on block boundaries.
    """
    if documents.start % block or documents.stop % block:
        raise ValueError(f"documents {documents} do not consist of whole blocks of {block}.")
    # Of documents that end early, the tokens never written count as done.
    progress = Progress("generate_corpus", len(documents) * (context_length - 1), "tokens")
    for first in range(documents.start, documents.stop, block):
        yield from _sample_block(
            model,
            range(first, first + block),
            start_token,
            end_tokens,
            context_length,
            temperature,
            top_p,
            seed,
            progress,
        )


def _sample_block(
    model: Any,
    documents: range,
    start_token: int,
    end_tokens: list[int],
    context_length: int,
    temperature: float,
    top_p: float,
    seed: int,
    progress: Progress,
) -> list[Sample]:
    from transformers import DynamicCache

    uniforms = np.stack([document_uniforms(seed, d, context_length) for d in documents])
    draws = torch.from_numpy(uniforms).to(model.device)  # [block, context_length]
    ends = torch.tensor(end_tokens, device=model.device, dtype=torch.long)
    written: list[list[int]] = [[] for _ in documents]
    ended = [False] * len(documents)
    rows = torch.arange(len(documents), device=model.device)  # documents still being written
    tokens = torch.full((len(documents), 1), start_token, device=model.device)
    cache = DynamicCache(config=model.config)
    for position in range(1, context_length):
        logits = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1]
        chosen = draw(logits, draws[rows, position], temperature, top_p)
        finished = torch.isin(chosen, ends)
        for row, token, end in zip(rows.tolist(), chosen.tolist(), finished.tolist(), strict=True):
            written[row].append(token)
            ended[row] = end
        tokens = chosen.unsqueeze(1)
        if finished.any():  # no work is spent on documents that have ended
            alive = (~finished).nonzero().squeeze(1)
            if not len(alive):
                progress.advance(len(documents) * (context_length - position))
                break
            rows, tokens = rows[alive], tokens[alive]
            cache.batch_select_indices(alive)
        progress.advance(len(documents))
    return [Sample(d, w, e) for d, w, e in zip(documents, written, ended, strict=True)]


def document_uniforms(seed: int, document: int, length: int) -> np.ndarray:
    """The document's uniform draws in [0, 1), one per position, float64 [length].

    Philox is counter-based: stream (seed, document) needs no other stream to have been drawn.
    """
    return np.random.Generator(np.random.Philox(key=[seed, document])).random(length)


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens at the given quantiles of softmax(logits / temperature), cut to the top_p nucleus.

    logits: [batch, vocab]; uniforms: [batch] in [0, 1). Returns token ids [batch].
    """
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p >= 1:
        return _inverse_cdf(probabilities, uniforms)
    n = min(TOP_P_CANDIDATES, probabilities.shape[-1])
    values, candidates = probabilities.topk(n)
    if bool((values.sum(-1) < top_p).any()):
        values, candidates = probabilities.sort(dim=-1, descending=True)
    below = values.double().cumsum(-1) - values < top_p  # mass of the likelier tokens
    return candidates.gather(1, _inverse_cdf(values * below, uniforms).unsqueeze(1)).squeeze(1)


def _inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Where the cumulative sum of `weights` [batch, n] first exceeds u times the total.

    Two levels, block sums and then one block, in float64: over a vocabulary of 50k, a float32
    running sum would misplace draws, and one variate per row replaces one per vocabulary entry.
    """
    batch, n = weights.shape
    padded = torch.nn.functional.pad(weights, (0, -n % CDF_BLOCK)).view(batch, -1, CDF_BLOCK)
    sums = padded.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniforms.double() * sums[:, -1]
    block = torch.searchsorted(sums, target.unsqueeze(1), right=True).clamp_(max=sums.shape[1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = padded[torch.arange(batch, device=weights.device), block.squeeze(1)]
    cumulative = inside.double().cumsum(-1)
    offset = torch.searchsorted(cumulative, target.unsqueeze(1) - before, right=True)
    # Rounding can put the target at a block's very end: step back to the last token with weight.
    last = CDF_BLOCK - 1 - (inside.flip(-1) > 0).int().argmax(-1, keepdim=True)
    return (block * CDF_BLOCK + torch.minimum(offset, last)).squeeze(1)
