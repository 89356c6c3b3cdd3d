"""Text that a model writes by itself: pure sampling from its start token.

Documents are generated in fixed blocks, and each document's random draws come from its own
counter-based stream. A document therefore depends on the model, the settings and its number alone:
not on how many shards share the work, nor on restarts.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faithful_sae.contexts import Sample
from faithful_sae.progress import Progress

CDF_BLOCK = 256  # tokens whose probabilities are summed first, so that no long float sum is walked
CACHED = 2**18  # probabilities that a CPU core keeps in its cache from one pass to the next
BELOW_ONE = 1 - 2**-53


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
    repetition_penalty: float,
    seed: int,
    block: int,
) -> Iterator[Sample]:
    """Sample documents of up to `context_length` tokens, the start token included, in number order.

    `documents` must consist of whole blocks of `block` documents. The model's own generation
    settings are ignored: the distribution is softmax(logits / temperature), cut to the nucleus of
    mass `top_p` (Holtzman et al. 2020) when that is below 1, after the logits were penalised (see
    `penalised`) when `repetition_penalty` is above 1, and nothing else.

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
            repetition_penalty,
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
    repetition_penalty: float,
    seed: int,
    progress: Progress,
) -> list[Sample]:
    from faithful_sae.kv_cache import can_drop_rows, preallocated_cache

    device, full = model.device, context_length - 1
    uniforms = np.stack([document_uniforms(seed, d, context_length) for d in documents])
    draws = torch.from_numpy(uniforms).to(device)  # [block, context_length]
    ends = torch.tensor(end_tokens, device=device, dtype=torch.long)
    written = torch.full((len(documents), context_length), start_token, device=device)
    lengths = torch.full((len(documents),), full, device=device)
    ended = torch.zeros(len(documents), device=device, dtype=torch.bool)
    rows = torch.arange(len(documents), device=device)  # documents still being written
    tokens = written[:, :1]
    cache = preallocated_cache(model, full)
    for position in range(1, context_length):
        logits = model(input_ids=tokens, past_key_values=cache, use_cache=True).logits[:, -1]
        if repetition_penalty > 1:
            logits = penalised(logits, written[rows, :position], repetition_penalty)
        chosen = draw(logits, draws[rows, position], temperature, top_p)
        written[rows, position] = chosen
        tokens = chosen.unsqueeze(1)
        finished = torch.isin(chosen, ends) & ~ended[rows]
        if finished.any():
            ended[rows[finished]], lengths[rows[finished]] = True, position
            if ended.all():
                progress.advance(len(documents) * (context_length - position))
                break
            if can_drop_rows(cache):  # no work is spent on documents that have ended
                alive = _close_gaps(finished)
                rows, tokens = rows[alive], tokens[alive]
                cache.batch_select_indices(alive)
        progress.advance(len(documents))
    samples = zip(documents, written[:, 1:].tolist(), lengths.tolist(), ended.tolist(), strict=True)
    return [Sample(number, tokens[:n], end) for number, tokens, n, end in samples]


def _close_gaps(finished: Tensor) -> Tensor:
    """The unfinished rows, the last of them in the places of finished ones: few rows move."""
    alive = (~finished).nonzero().squeeze(1)
    kept = torch.arange(len(alive), device=finished.device)
    kept[finished[: len(alive)]] = alive[alive >= len(alive)]
    return kept


def document_uniforms(seed: int, document: int, length: int) -> np.ndarray:
    """The document's uniform draws in [0, 1), one per position, float64 [length].

    Philox is counter-based: stream (seed, document) needs no other stream to have been drawn.
    """
    return np.random.Generator(np.random.Philox(key=[seed, document])).random(length)


def penalised(logits: Tensor, context: Tensor, penalty: float) -> Tensor:
    """Logits with those of the tokens in `context` divided by the penalty where positive, and
    multiplied by it where negative; how often a token occurs makes no difference.

    Keskar et al. 2019 (arXiv 1909.05858) divide all; this is what transformers made of it, and so
    what "repetition penalty" means in its users' papers. logits: [batch, vocab]; context:
    [batch, n] token ids, the start token included.
    """
    seen = logits.gather(1, context)
    return logits.scatter(1, context, torch.where(seen < 0, seen * penalty, seen / penalty))


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Tokens drawn from softmax(logits / temperature), cut to the top_p nucleus: the smallest set
    of likeliest tokens with that mass; of equally likely tokens it holds all or none.

    logits: [batch, vocab]; uniforms: [batch] in [0, 1), one per draw. Returns token ids [batch].
    """
    # A GPU wants few launches; a CPU wants each probability to stay in its cache until it is used.
    rows = len(logits) if logits.is_cuda else max(1, CACHED // logits.shape[-1])

    def by_parts(function: Callable[..., Tensor], *arguments: Tensor) -> Tensor:
        parts = zip(*(torch.split(a, rows) for a in arguments), strict=True)
        return torch.cat([function(*part, temperature, top_p) for part in parts])

    tokens = by_parts(_draw_or_miss, logits, uniforms)
    missed = (tokens < 0).nonzero().squeeze(1)
    if len(missed):
        tokens[missed] = by_parts(_draw_again, logits[missed], uniforms[missed], ~tokens[missed])
    return tokens


def _draw_or_miss(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> Tensor:
    """Draws from all tokens; where that lies outside the nucleus, its complement ~token, below 0.

    A token drawn from all that lies in the nucleus is a draw from the nucleus: at most a share of
    1 - top_p must be drawn again, and only their rows need the nucleus itself.
    """
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    tokens = _inverse_cdf(weights, uniforms)
    if top_p >= 1:
        return tokens
    likelier = weights > weights.gather(1, tokens.unsqueeze(1))
    return torch.where(_masked_mass(weights, likelier) < top_p, tokens, ~tokens)


def _draw_again(
    logits: Tensor, uniforms: Tensor, tokens: Tensor, temperature: float, top_p: float
) -> Tensor:
    """Draws from the nucleus, where `uniforms` [batch] led to `tokens` [batch] outside it."""
    weights = torch.softmax(logits.float() / temperature, dim=-1)
    nucleus = weights >= _threshold(weights, top_p)
    uniforms = _left_over(weights, ~nucleus, tokens, uniforms)
    return _inverse_cdf(weights * nucleus, uniforms)


def _masked_mass(weights: Tensor, mask: Tensor) -> Tensor:
    """Sum of the weights [batch, n] under the mask, [batch]: float32, as exact as the weights."""
    return (weights * mask).sum(-1)


def _threshold(weights: Tensor, top_p: float) -> Tensor:
    """The largest weight at or above which the weights [batch, n] sum to top_p, [batch, 1].

    Floats that are not negative are ordered as their bits are, so 31 halvings find it exactly.
    """
    low = torch.zeros((len(weights), 1), device=weights.device, dtype=torch.int32)
    high = weights.amax(-1, keepdim=True).view(torch.int32) + 1  # nothing is this large
    for _ in range(31):
        middle = low + (high - low) // 2
        enough = _masked_mass(weights, weights >= middle.view(torch.float32)) >= top_p
        low = torch.where(enough.unsqueeze(1), middle, low)
        high = torch.where(enough.unsqueeze(1), high, middle)
    return low.view(torch.float32)


def _left_over(weights: Tensor, outside: Tensor, tokens: Tensor, uniforms: Tensor) -> Tensor:
    """A fresh uniform draw from one that hit a token outside: where it lies within their mass.

    weights, outside: [batch, n]; tokens, uniforms: [batch]. Returns float64 [batch] in [0, 1).
    """
    token = tokens.unsqueeze(1)
    own = weights.double().gather(1, token).squeeze(1)
    cumulative = weights.double().cumsum(-1)
    target = uniforms * cumulative[:, -1]
    inside = target - (cumulative.gather(1, token).squeeze(1) - own)
    inside = torch.minimum(inside.clamp(min=0), own)  # sums in another order may differ by a bit
    cumulative = (weights * outside).cumsum(-1, dtype=torch.float64)
    before = cumulative.gather(1, token).squeeze(1) - own
    return ((before + inside) / cumulative[:, -1]).clamp_(0, BELOW_ONE)


def _inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Where the cumulative sum of `weights` [batch, n] first exceeds u times the total.

    Two levels, block sums and then one block, in float64: over a vocabulary of 50k, a float32
    running sum would misplace draws, and one variate per row replaces one per vocabulary entry.
    """
    batch, n = weights.shape
    if n % CDF_BLOCK:
        weights = torch.nn.functional.pad(weights, (0, -n % CDF_BLOCK))
    blocks = weights.view(batch, -1, CDF_BLOCK)
    sums = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    target = uniforms.double() * sums[:, -1]
    block = torch.searchsorted(sums, target.unsqueeze(1), right=True).clamp_(max=sums.shape[1] - 1)
    before = torch.where(block > 0, sums.gather(1, (block - 1).clamp(min=0)), 0.0)
    inside = blocks[torch.arange(batch, device=weights.device), block.squeeze(1)]
    cumulative = inside.double().cumsum(-1)
    offset = torch.searchsorted(cumulative, target.unsqueeze(1) - before, right=True)
    # Rounding can put the target at a block's very end: step back to the last token with weight.
    last = CDF_BLOCK - 1 - (inside.flip(-1) > 0).int().argmax(-1, keepdim=True)
    return (block * CDF_BLOCK + torch.minimum(offset, last)).squeeze(1)
