"""Contexts that are no text: random token ids after the start token, the same for every SAE.

Three of them, each closer to text than the one before: `uniform_tokens` (the paper's) keep nothing
of it, `unigram_tokens` how often each token occurs, `shuffled_tokens` which tokens occur together.
What a latent still does on the last and not on the first needs tokens, not their order.
"""

from collections.abc import Sequence
from itertools import cycle

import numpy as np
import pyarrow as pa

from faithful_sae.contexts import Context, context_table, context_tokens
from faithful_sae.random_inputs import RANDOM_INPUTS, UNIFORM, UNIGRAM


def random_tokens(
    random_input: str,
    heldout: Sequence[pa.Table],
    *,
    vocab_size: int,
    start_token: int,
    context_length: int,
    tokens: int,
) -> pa.Table:
    """Contexts of one of the RANDOM_INPUTS, start token first, with `tokens` tokens besides it.

    heldout: held-out contexts of each corpus (schema CONTEXTS), which uniform ids have no use for.
    Raises ValueError for another name.
    """
    if random_input not in RANDOM_INPUTS:
        raise ValueError(f"{random_input!r} is no random input: choose of {RANDOM_INPUTS}")
    if random_input == UNIFORM:
        pieces = uniform_tokens(vocab_size, context_length, tokens)
    elif random_input == UNIGRAM:
        probability = unigram_distribution(heldout, vocab_size, start_token)
        pieces = unigram_tokens(probability, context_length, tokens)
    else:
        pieces = shuffled_tokens(heldout, tokens)
    contexts = [
        Context(b"", number, 0, np.concatenate([[start_token], piece]).astype(np.int32), False)
        for number, piece in enumerate(pieces)
    ]
    return context_table(contexts)


def uniform_tokens(vocab_size: int, context_length: int, tokens: int) -> list[np.ndarray]:
    """Uniformly random ids in contexts without their start token (the paper's random input).

    All ids of the vocabulary are drawn, special and unused ones too, as in the authors' code.
    """
    return _cut(np.random.default_rng(0).integers(0, vocab_size, tokens), context_length)


def unigram_distribution(
    heldout: Sequence[pa.Table], vocab_size: int, start_token: int
) -> np.ndarray:
    """Probability of each id [vocab_size]: its share of a corpus' tokens, averaged over corpora.

    The start token is not counted, wherever it stands: within a context it is where packing joined
    two documents.
    """
    shares = []
    for table in heldout:
        counts = np.bincount(np.concatenate(_rows(table)), minlength=vocab_size)
        counts[start_token] = 0
        shares.append(counts / counts.sum())
    mean: np.ndarray = np.mean(shares, axis=0)
    return mean


def unigram_tokens(probability: np.ndarray, context_length: int, tokens: int) -> list[np.ndarray]:
    """Ids drawn one by one from `probability` [vocab_size], in contexts without start token."""
    ids = np.random.default_rng(0).choice(len(probability), tokens, p=probability)
    return _cut(ids, context_length)


def shuffled_tokens(heldout: Sequence[pa.Table], tokens: int) -> list[np.ndarray]:
    """Held-out contexts with their tokens permuted, without start token, corpora in equal shares.

    A corpus with fewer tokens than its share starts over, permuted anew; the last context of each
    is cut to fit.
    """
    generator = np.random.default_rng(0)
    pieces = []
    for number, table in enumerate(heldout):
        left = tokens * (number + 1) // len(heldout) - tokens * number // len(heldout)
        rows = cycle(_rows(table))
        while left > 0:
            pieces.append(generator.permutation(next(rows))[:left])
            left -= len(pieces[-1])
    return pieces


def _rows(table: pa.Table) -> list[np.ndarray]:
    """The tokens of each context after its start token."""
    return [row[1:] for row in context_tokens(table)]


def _cut(ids: np.ndarray, context_length: int) -> list[np.ndarray]:
    step = context_length - 1
    return [ids[start : start + step] for start in range(0, len(ids), step)]
