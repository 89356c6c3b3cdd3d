"""Contexts: cut without mixing, packed without loss, taken to the exact budget."""

import tracemalloc
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.arrow import write_arrow
from faithful_sae.contexts import (
    CONTEXTS,
    Context,
    Document,
    FirstContexts,
    context_table,
    context_tokens,
    cut_contexts,
    digest,
    is_heldout,
    pack_contexts,
    take,
)

START = 0


# Cutting


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=40), max_size=5),
    st.integers(2, 12),
    st.booleans(),
)
def test_contexts_put_together_give_back_the_documents(
    documents: list[list[int]], context_length: int, ended: bool
) -> None:
    given_ = [
        (n, Document(np.array(tokens, np.int32), bytes([n]), ended))
        for n, tokens in enumerate(documents)
    ]
    contexts = list(cut_contexts(given_, START, context_length))
    for number, tokens in enumerate(documents):
        mine = [c for c in contexts if c.document == number]
        assert [t for c in mine for t in c.tokens[1:].tolist()] == tokens
        assert [c.start for c in mine] == list(range(0, len(tokens), context_length - 1))
        assert [c.ended for c in mine] == [False] * (len(mine) - 1) + [ended] * bool(mine)
    assert all(c.tokens[0] == START and 2 <= len(c.tokens) <= context_length for c in contexts)
    assert len({c.key for c in contexts}) == len(contexts)


# Packing


def pack(documents: list[list[int]], context_length: int) -> list[Context]:
    numbered = [
        # Their numbers are neither their places in the list nor in the order of digests.
        (10 + n, Document(np.array(tokens, np.int32), digest(bytes([n])), ended=True))
        for n, tokens in enumerate(documents)
    ]
    return list(pack_contexts(numbered, START, context_length))


def assert_packed(documents: list[list[int]], context_length: int) -> None:
    """Walk the stream of documents beside the contexts, token by token."""
    order = sorted(range(len(documents)), key=lambda n: digest(bytes([n])))
    stream = [(token, 10 + n) for n in order for token in (START, *documents[n])]
    contexts = pack(documents, context_length)
    at = 0
    for number, context in enumerate(contexts):
        begun = at
        while stream[at][0] == START:  # the context's own start token stands for these
            at += 1
        start, *tokens = context.tokens.tolist()
        piece = stream[at : at + len(tokens)]
        assert start == START and tokens and tokens == [token for token, _ in piece]
        assert context.document == piece[0][1] and not context.ended
        full = context_length - 1 - (at > begun)  # a start token passed over may leave a gap
        assert full <= len(tokens) < context_length or number == len(contexts) - 1
        at += len(tokens)
    assert all(token == START for token, _ in stream[at:])  # nothing is left
    assert len({c.key for c in contexts}) == len({c.start for c in contexts}) == len(contexts)


@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=25), max_size=8), st.integers(3, 12)
)
def test_packed_contexts_hold_every_token_once_in_row_with_the_owner_of_their_first(
    documents: list[list[int]], context_length: int
) -> None:
    assert_packed(documents, context_length)


@pytest.mark.parametrize(
    ("documents", "context_length"),
    [
        ([[], [1, 2, 3, 4, 5]], 4),
        ([[1, 2, 3, 4, 5], []], 4),
        ([[START, 1, 2, 3]], 4),  # a text may hold the start token itself
        ([[1], [2], [3]], 2),
    ],
    ids=["empty one last", "empty one first", "own start token", "shortest contexts"],
)
def test_no_packed_context_is_empty_or_begins_with_two_start_tokens(
    documents: list[list[int]], context_length: int
) -> None:
    assert_packed(documents, context_length)


def test_packing_by_hand() -> None:
    documents = [[1, 1, 1], [2, 2, 2, 2], [3]]
    first, second, third = sorted(range(3), key=lambda n: digest(bytes([n])))
    stream = [t for n in (first, second, third) for t in (START, *documents[n])]
    contexts = pack(documents, 100)
    assert [c.tokens.tolist() for c in contexts] == [stream]  # one start token, not two
    assert (contexts[0].document, contexts[0].tokens.dtype) == (10 + first, np.int32)
    assert stream.count(START) == 3


def test_packing_nothing_gives_nothing() -> None:
    assert pack([], 8) == []


# Splitting


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_the_heldout_share_is_the_fraction_asked_for(fraction: float) -> None:
    n = 4000
    heldout = sum(is_heldout(digest(str(i).encode()), fraction) for i in range(n))
    assert abs(heldout - n * fraction) <= 4 * np.sqrt(n * fraction * (1 - fraction))


def test_a_larger_fraction_only_adds_documents_to_the_heldout_ones() -> None:
    digests = [digest(str(i).encode()) for i in range(500)]
    small, large = ({d for d in digests if is_heldout(d, f)} for f in (0.2, 0.4))
    assert small < large


# Budgets


@given(
    st.lists(st.tuples(st.integers(1, 7), st.booleans()), max_size=12),
    st.integers(0, 60),
)
def test_taken_contexts_are_the_first_ones_cut_to_the_budget(
    sizes: list[tuple[int, bool]], budget: int
) -> None:
    contexts = [
        Context(b"", n, 0, np.r_[START, np.full(size, n + 1)].astype(np.int32), ended)
        for n, (size, ended) in enumerate(sizes)
    ]
    everything = [(n, t) for n, c in enumerate(contexts) for t in c.tokens[1:].tolist()]
    taken = take(contexts, budget)
    found = [(c.document, t) for c in taken for t in c.tokens[1:].tolist()]
    assert found == everything[:budget]
    assert [n for n, _ in groupby(found, lambda pair: pair[0])] == [c.document for c in taken]
    for c in taken:
        whole = contexts[c.document]
        assert c.tokens[0] == START
        assert c.ended == (whole.ended and len(c.tokens) == len(whole.tokens))


# Files


def test_contexts_come_back_from_their_file_with_checksums(tmp_path: Path) -> None:
    table = context_table([Context(b"", 7, 3, np.array([START, 5, 6], np.int32), True)])
    assert table.schema.equals(CONTEXTS)
    write_arrow(table, tmp_path / "train.parquet")
    assert pq.read_table(tmp_path / "train.parquet").equals(table)
    damaged = (tmp_path / "train.parquet").read_bytes().replace(b"\x28\xb5\x2f\xfd", b"\0" * 4, 1)
    (tmp_path / "train.parquet").write_bytes(damaged)
    with pytest.raises(OSError, match="(?i)crc|checksum"):
        pq.read_table(tmp_path / "train.parquet", page_checksum_verification=True)


def test_contexts_that_cannot_be_written_leave_no_file(tmp_path: Path) -> None:
    broken: Any = None
    with pytest.raises(AttributeError):
        write_arrow(broken, tmp_path / "train.parquet")
    assert not list(tmp_path.iterdir())


# Many contexts


@given(
    st.lists(st.tuples(st.binary(min_size=2, max_size=2), st.integers(1, 5)), max_size=60),
    st.integers(1, 40),
)
def test_first_contexts_are_those_of_all_in_order_however_many_are_added(
    made: list[tuple[bytes, int]], tokens: int
) -> None:
    by_key = dict(made)
    contexts = [
        Context(key, i, 0, np.arange(n + 1, dtype=np.int32), True)
        for i, (key, n) in enumerate(by_key.items())
    ]
    first = FirstContexts(tokens)
    for context in contexts:
        first.add([context])
    expected = take(sorted(contexts), tokens)
    assert [c._replace(tokens=len(c.tokens)) for c in first.taken()] == [
        c._replace(tokens=len(c.tokens)) for c in expected
    ]


def test_first_contexts_need_no_memory_for_those_that_come_after() -> None:
    def many() -> Iterator[Context]:
        for i in range(4_000):
            yield Context(digest(bytes([i % 256, i // 256])), i, 0, np.zeros(1_001, np.int32), True)

    first = FirstContexts(2_000)
    tracemalloc.start()
    first.add(many())  # 16 MB
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000 and len(first.taken()) == 2


def test_tokens_of_contexts_are_those_of_the_table_whatever_its_chunks() -> None:
    rows = [[0, 5, 6], [0], [0, 7], [0, 8, 9, 10]]
    contexts = [Context(b"", i, 0, np.array(r, np.int32), False) for i, r in enumerate(rows)]
    table = context_table(contexts)
    for some in (table, table[1:], table[:0], pa.concat_tables([table[2:], table[:2]])):
        found = context_tokens(some)
        assert [tokens.tolist() for tokens in found] == some["tokens"].to_pylist()
        assert all(tokens.dtype == np.int32 for tokens in found)
