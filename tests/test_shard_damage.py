"""Damage to a shard is found before anything depends on it, and read right is read right again."""

from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from synthetic_shards import LENGTHS, N, contexts_of, numbers, rows_of, write_shards

from faithful_sae import shards
from faithful_sae.shards import EVERY_POSITION, Shards


def content(path: Path) -> list:
    read = Shards([path], EVERY_POSITION)
    columns = [read.document, read.position, read.norm]
    values = [np.stack([c.astype(np.float64) for c in columns]), *map(np.asarray, read.batches())]
    return [read.metadata, *(v.tobytes() for v in values)]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_flipped_byte_in_any_page_is_found_or_harmless(tmp_path, dtype):
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    (path,) = write_shards(tmp_path, x, LENGTHS, dtype=dtype, block_tokens=48)
    whole, good = content(path), path.read_bytes()
    pages = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    found = 0
    for place in np.random.default_rng(0).permutation(pages)[:400]:
        damaged = bytearray(good)
        damaged[place] ^= 1 << int(place % 8)
        path.write_bytes(damaged)
        try:
            assert content(path) == whole, f"byte {place} of {pages} changed the data unseen"
        except ValueError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            found += 1
    assert found > 300


def test_a_flipped_bit_in_an_activation_is_found(tmp_path):
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    (path,) = write_shards(tmp_path, x, LENGTHS)
    good = path.read_bytes()
    for row in (0, 20, N - 1):
        damaged = bytearray(good)
        damaged[good.index(x[row].numpy().tobytes())] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="shard0.parquet is damaged .*delete it"):
            list(Shards([path], EVERY_POSITION).batches())


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    (path,) = write_shards(tmp_path, rows_of(), LENGTHS)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ValueError, match="shard0.parquet is damaged"):
        Shards([path], EVERY_POSITION)


def test_a_parquet_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "contexts.parquet"
    pq.write_table(contexts_of(LENGTHS), path)
    with pytest.raises(ValueError, match="contexts.parquet is .*no activation shard"):
        Shards([path], EVERY_POSITION)


def test_checksums_are_verified_at_the_first_read_of_each_block_and_then_no_more(
    tmp_path, monkeypatch
):
    read = Shards(write_shards(tmp_path, rows_of(), LENGTHS, n_shards=2), EVERY_POSITION)
    verified = []
    inner = shards.read_verified
    monkeypatch.setattr(shards, "read_verified", lambda b, *a: verified.append(b) or inner(b, *a))
    for _ in range(2):
        assert numbers(torch.cat(list(read.batches()))) == list(range(N))
    for _ in islice(read.shuffled(8, seed=0), 3 * N // 8):
        pass
    assert verified == read._blocks


def test_damage_is_found_by_a_shuffle_that_reads_first(tmp_path):
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    (path,) = write_shards(tmp_path, x, LENGTHS)
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(x[N - 1].numpy().tobytes())] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(ValueError, match="shard0.parquet is damaged .*delete it"):
        for _ in islice(Shards([path], EVERY_POSITION).shuffled(4, seed=0), N // 4):
            pass


@pytest.mark.parametrize("gone", [False, True])
def test_a_shard_that_is_cut_or_goes_between_two_reads_is_an_error(tmp_path, gone):
    (path,) = write_shards(tmp_path, rows_of(), LENGTHS)
    read = Shards([path], EVERY_POSITION)
    list(read.batches())
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if gone:
        path.unlink()
    with pytest.raises(ValueError, match="shard0.parquet is damaged .*delete it"):
        list(read.batches())


def test_blocks_of_several_pages_are_read_right_every_time(tmp_path):
    """Parquet that another tool wrote anew: page headers lie among the values."""
    x = torch.randn(N, 8, generator=torch.Generator().manual_seed(0))
    (path,) = write_shards(tmp_path, x, LENGTHS)
    table = pq.read_table(path)
    pq.write_table(
        table, path, 32, compression="none", use_dictionary=False, data_page_size=1,
        write_batch_size=1,
    )  # fmt: skip
    read = Shards([path], EVERY_POSITION)
    for _ in range(3):
        assert torch.equal(torch.cat(list(read.batches())), x)
