"""Contexts: what the model reads at once, the start token and tokens of one document.

Token ids are kept from here to the SAE; nothing is decoded and encoded again.
"""

from collections.abc import Iterable, Iterator
from hashlib import blake2b
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa

CONTEXTS = pa.schema(
    {
        "document": pa.int64(),
        "start": pa.int32(),  # where in its document the context begins, in tokens
        "tokens": pa.list_(pa.int32()),  # the start token first
        "ended": pa.bool_(),  # the model ended the document here (sampled text only)
    }
)


class Document(NamedTuple):
    """A document's token ids [n] int32 (no start token), the digest of its content, and its end."""

    tokens: np.ndarray
    digest: bytes
    ended: bool = False


class Sample(NamedTuple):
    """One sampled document: its number, its ids without the start token, and whether it ended."""

    document: int
    tokens: list[int]
    ended: bool


class Context(NamedTuple):
    """A context before it is a row of a table; `key` orders contexts, `tokens` is [n] int32."""

    key: bytes
    document: int
    start: int
    tokens: np.ndarray
    ended: bool


def cut_contexts(
    documents: Iterable[tuple[int, Document]], start_token: int, context_length: int
) -> Iterator[Context]:
    """Consecutive contexts of each document; no context mixes two documents."""
    step = context_length - 1
    for number, document in documents:
        n = len(document.tokens)
        for start in range(0, n, step):
            tokens = document.tokens[start : start + step]
            yield Context(
                digest(document.digest + start.to_bytes(8, "big")),
                number,
                start,
                np.concatenate([[start_token], tokens]).astype(np.int32),
                document.ended and start + step >= n,
            )


def pack_contexts(
    documents: Iterable[tuple[int, Document]], start_token: int, context_length: int
) -> Iterator[Context]:
    """Full contexts cut from all documents in a row, a start token between two of them.

    `document` is that of the context's first token.
    """
    ordered = sorted(documents, key=lambda d: d[1].digest)
    lengths = [len(document.tokens) + 1 for _, document in ordered]
    pieces = [piece for _, d in ordered for piece in ([start_token], d.tokens)]
    if not pieces:
        return
    stream = np.concatenate(pieces).astype(np.int32)
    owner = np.repeat([number for number, _ in ordered], lengths)
    start = 0
    while start < len(stream):
        if stream[start] == start_token:  # the context's own start token stands for it
            start += 1
            continue
        tokens = stream[start : start + context_length - 1]
        yield Context(
            digest(tokens.tobytes() + start.to_bytes(8, "big")),
            int(owner[start]),
            start,
            np.concatenate([[start_token], tokens]).astype(np.int32),
            False,
        )
        start += len(tokens)


def take(contexts: list[Context], tokens: int) -> list[Context]:
    """The first contexts that together hold `tokens` tokens, the last one cut to fit."""
    taken, left = [], tokens
    for context in contexts:
        if left <= 0:
            break
        kept = context.tokens[: left + 1]
        ended = context.ended and len(kept) == len(context.tokens)
        taken.append(context._replace(tokens=kept, ended=ended))
        left -= len(kept) - 1
    return taken


class FirstContexts:
    """Of all contexts added, the first in the order of their keys, `tokens` tokens of them.

    Memory: contexts of twice as many tokens, however many are added.
    """

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self._kept: list[Context] = []
        self._held = 0

    def add(self, contexts: Iterable[Context]) -> None:
        for context in contexts:
            self._kept.append(context)
            self._held += len(context.tokens) - 1
            if self._held > 2 * self.tokens:
                # What comes later can only push out more: what is cut off now is never missed.
                self._kept, self._held = self.taken(), self.tokens

    def taken(self) -> list[Context]:
        """In order, the last one cut to fit; fewer tokens where fewer were added."""
        return take(sorted(self._kept), self.tokens)


def context_table(contexts: list[Context]) -> pa.Table:
    """Contexts as a table of schema CONTEXTS."""
    columns = {
        "document": [c.document for c in contexts],
        "start": [c.start for c in contexts],
        "tokens": [c.tokens for c in contexts],
        "ended": [c.ended for c in contexts],
    }
    return pa.table(columns, schema=CONTEXTS)


def context_tokens(contexts: pa.Table) -> list[np.ndarray]:
    """The tokens of each context, start token first, [n] int32: read-only views of the table.

    Python's own integers would take ten times the memory.
    """
    column = contexts["tokens"].combine_chunks()
    tokens = column.flatten().to_numpy()
    ends = np.cumsum(column.value_lengths().to_numpy(), dtype=np.int64)
    return [tokens[start:end] for start, end in pairwise([0, *ends.tolist()])]


def shard_of(n: int, shard: int, shards: int) -> range:
    """The run of `n` blocks that belongs to one of `shards` shards."""
    return range(n * shard // shards, n * (shard + 1) // shards)


def digest(content: bytes) -> bytes:
    """16 bytes that stand for a document or context: its identity, and its place in any order."""
    return blake2b(content, digest_size=16).digest()


def is_heldout(document: bytes, fraction: float) -> bool:
    """Whether the document of this digest is held out: a fixed property of its content."""
    return int.from_bytes(document[:8], "big") < fraction * 2**64
