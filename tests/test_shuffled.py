"""The stream that SAEs are trained on: full batches, fair epochs, seeded orders, bounded memory."""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import D_IN, LENGTHS, N, numbers, rows_of, write_shards

from faithful_sae import shards
from faithful_sae.shards import EVERY_POSITION, Positions, Shards

quick = settings(max_examples=25)
any_stream = given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    batch_size=st.integers(1, 50),
    skip_first=st.integers(0, 2),
    seed=st.integers(0, 9),
)


@quick
@any_stream
def test_batches_are_full_and_epochs_use_every_kept_row_equally(
    lengths, batch_size, skip_first, seed
):
    """After any number of batches no row is more than the batch in waiting behind the others."""
    with TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), rows_of(sum(lengths)), lengths)
        read = Shards(paths, Positions(skip_first, None))
        if not len(read):
            with pytest.raises(ValueError, match="no token is left"):
                next(read.shuffled(batch_size, seed))
            return
        epochs = 3
        n_batches = epochs * len(read) // batch_size
        batches = [numbers(x) for x in islice(read.shuffled(batch_size, seed), n_batches)]
    assert all(len(batch) == batch_size for batch in batches)
    counts = Counter(n for batch in batches for n in batch)
    waiting = epochs * len(read) - n_batches * batch_size
    assert set(counts) <= set(np.flatnonzero(read.kept).tolist())
    assert max(counts.values(), default=0) <= epochs
    assert sum(epochs - counts[int(row)] for row in np.flatnonzero(read.kept)) == waiting


def test_every_epoch_is_another_permutation_when_batches_fit(tmp_path):
    read = Shards(write_shards(tmp_path, rows_of(), LENGTHS), EVERY_POSITION)
    batches = islice(read.shuffled(8, seed=0), 3 * N // 8)
    stream = [n for batch in batches for n in numbers(batch)]
    epochs = [stream[i : i + N] for i in range(0, len(stream), N)]
    assert N % 8 == 0 and len(epochs) == 3
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in [list(range(N)), *epochs]}) == 4


def test_the_order_follows_the_seed_and_not_the_number_of_shards(tmp_path):
    def stream(n_shards, seed):
        paths = write_shards(tmp_path / str(n_shards), rows_of(), LENGTHS, n_shards=n_shards)
        read = Shards(paths, Positions(1, None))
        return [numbers(batch) for batch in islice(read.shuffled(7, seed), 30)]

    assert stream(1, seed=0) == stream(1, seed=0) == stream(4, seed=0)
    assert stream(1, seed=0) != stream(1, seed=1)


def test_blocks_are_mixed_within_a_batch(tmp_path):
    read = Shards(write_shards(tmp_path, rows_of(), LENGTHS), EVERY_POSITION)
    batch = next(read.shuffled(20, seed=0))
    assert len({n // 16 for n in numbers(batch)}) > 2


def test_blocks_are_visited_in_another_order_in_every_epoch_and_for_every_seed(tmp_path):
    """The blocks that are mixed first: those of the first 64 rows, if nothing moved them."""
    read = Shards(write_shards(tmp_path, rows_of(400), [16] * 25), EVERY_POSITION)

    def mixed_first(seed):
        stream = islice(read.shuffled(16, seed), 50)
        rows = [n for batch in stream for n in numbers(batch)]
        return [frozenset(n // 16 for n in rows[start : start + 64]) for start in (0, 400)]

    found = [*mixed_first(seed=0), *mixed_first(seed=1)]
    assert all(len(blocks) == shards.BUFFER_BLOCKS for blocks in found)
    assert len({frozenset(range(4)), *found}) == 5


def by_concatenation(read: Shards, batch_size: int, seed: int) -> Iterator[torch.Tensor]:
    """The shuffle of `Shards.shuffled`, with fresh memory for every block and batch."""
    blocks = [x for _, x in read.blocks()]
    generator = np.random.default_rng(seed)
    rest = torch.empty(0, read.d_in)
    while True:
        order = generator.permutation(len(blocks))
        for first in range(0, len(order), shards.BUFFER_BLOCKS):
            mixed = [blocks[i] for i in order[first : first + shards.BUFFER_BLOCKS]]
            buffer = torch.cat([rest, *mixed])
            buffer = buffer[torch.from_numpy(generator.permutation(len(buffer)))]
            while len(buffer) >= batch_size:
                yield buffer[:batch_size]
                buffer = buffer[batch_size:]
            rest = buffer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@quick
@any_stream
def test_the_stream_equals_that_of_plain_concatenation(
    dtype, lengths, batch_size, skip_first, seed
):
    x = torch.randn(sum(lengths), 5, generator=torch.Generator().manual_seed(seed))
    with TemporaryDirectory() as folder, patch.object(shards, "GATHER_ROWS", 8):
        paths = write_shards(Path(folder), x, lengths, dtype=dtype)
        read = Shards(paths, Positions(skip_first, None))
        if len(read):
            reference = by_concatenation(read, batch_size, seed)
            for batch, expected in islice(
                zip(read.shuffled(batch_size, seed), reference, strict=True), 20
            ):
                assert batch.dtype == torch.float32
                assert torch.equal(batch, expected)
                batch.fill_(torch.nan)  # the consumer's own until it asks for the next one


def test_shuffling_never_holds_more_than_the_buffer(tmp_path, monkeypatch):
    paths = write_shards(tmp_path, rows_of(400), [10] * 40)
    read = Shards(paths, EVERY_POSITION)
    largest = max(block.rows for block in read._blocks)
    assert len(read._blocks) > 3 * shards.BUFFER_BLOCKS
    load, memory = Shards._load, set()

    def spied(self, number, buffer):
        storage = buffer.untyped_storage()
        memory.add((storage.data_ptr(), storage.nbytes()))
        return load(self, number, buffer)

    monkeypatch.setattr(Shards, "_load", spied)
    batches = {batch.data_ptr() for batch in islice(read.shuffled(7, seed=0), 150)}
    assert len(batches) == len(memory) == 1
    ((_, n_bytes),) = memory
    assert n_bytes <= (shards.BUFFER_BLOCKS * largest + 6) * 4 * D_IN
