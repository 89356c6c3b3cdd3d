"""A consumer that goes on has the batches it would have had, and waits for no others."""

from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import write_shards

from faithful_sae.shards import Positions, Shards


def rows_of(n: int) -> torch.Tensor:
    """Row i holds i."""
    return torch.arange(float(n)).unsqueeze(1)


def batches(read: Shards, batch_size: int, skip: int, n: int) -> list[list[float]]:
    return [b.flatten().tolist() for b in islice(read.shuffled(batch_size, 3, skip), n)]


@settings(max_examples=30)
@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=40),
    batch_size=st.integers(1, 150),  # up to more than the blocks that are mixed hold
    skip=st.integers(0, 40),
    skip_first=st.integers(0, 1),
)
def test_skipped_batches_are_those_that_would_have_come_first(
    lengths, batch_size, skip, skip_first
):
    with TemporaryDirectory() as folder:
        paths = write_shards(Path(folder), rows_of(sum(lengths)), lengths)
        read = Shards(paths, Positions(skip_first, None))
        if len(read):
            expected = batches(read, batch_size, 0, skip + 8)[skip:]
            assert batches(Shards(paths, Positions(skip_first, None)), batch_size, skip, 8) == (
                expected
            )


@pytest.mark.parametrize("skip", [100, 1000])
def test_batches_that_are_skipped_are_not_read(tmp_path, monkeypatch, skip):
    paths = write_shards(tmp_path, rows_of(640), [16] * 40)
    read = Shards(paths, Positions(0, None))
    loaded = []
    load = Shards._load
    monkeypatch.setattr(
        Shards,
        "_load",
        lambda self, number, rows: loaded.append(number) or load(self, number, rows),
    )
    next(read.shuffled(15, 0, skip))
    assert len(loaded) <= 12  # the four that are mixed, and those that left rows over
