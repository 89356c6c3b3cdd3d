"""Activation shards: what is written is what is read, and only the positions asked for."""

from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import D_IN, LENGTHS, N, contexts_of, numbers, rows_of, write_shards

from faithful_sae import shards
from faithful_sae.activations import context_activations
from faithful_sae.models import load_model
from faithful_sae.prepare import randomize
from faithful_sae.shards import EVERY_POSITION, Positions, Shards, blocks_of, shard_of
from faithful_sae.state import State

quick = settings(max_examples=25)
context_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
@quick
@given(lengths=context_lengths, seed=st.integers(0, 99))
def test_what_is_read_is_what_was_written_rounded_to_the_dtype(dtype, lengths, seed):
    x = torch.randn(sum(lengths), 5, generator=torch.Generator().manual_seed(seed))
    with TemporaryDirectory() as folder:
        read = Shards(write_shards(Path(folder), x, lengths, dtype=dtype), EVERY_POSITION)
        assert torch.equal(torch.cat(list(read.batches())), x.to(shards.DTYPES[dtype]).float())
        tokens = pq.read_table(read.paths[0], columns=["token"])["token"]
        assert tokens.to_pylist() == list(range(sum(lengths)))
        assert read.position.tolist() == [i for n in lengths for i in range(n)]
        assert read.document.tolist() == [i // 2 for i, n in enumerate(lengths) for _ in range(n)]
        assert np.array_equal(read.norm, x.norm(dim=1).numpy())


def test_a_real_model_writes_its_hidden_states(tmp_path):
    randomize(Path(__file__).parent / "tiny/architecture", tmp_path / "model", seed=0)
    model = load_model(tmp_path / "model")
    contexts = contexts_of([4, 6, 3])
    path = tmp_path / "shard0.parquet"
    shards.write_shard(
        path,
        model,
        contexts,
        "resid_pre.1",
        dtype="float32",
        shard=0,
        shards=1,
        metadata={},
        state=State(tmp_path / "state", {}, []),
    )
    read = Shards([path], EVERY_POSITION)
    rows = [np.array(row) for row in contexts["tokens"].to_pylist()]
    expected = torch.cat(context_activations(model, rows, "resid_pre.1")).cpu()
    assert torch.equal(torch.cat(list(read.batches())), expected)
    assert read.metadata == {
        "hook": "resid_pre.1",
        "dtype": "float32",
        "d_in": str(read.d_in),
        "start_token": str(rows[0][0]),
    }


@quick
@given(lengths=st.lists(st.integers(1, 20_000), max_size=30))
def test_blocks_partition_the_contexts_in_order(lengths):
    blocks = blocks_of(np.array(lengths, dtype=np.int64))
    assert [i for block in blocks for i in block] == list(range(len(lengths)))
    assert all(len(block) for block in blocks)


@quick
@given(lengths=st.lists(st.integers(1, 500), min_size=1, max_size=100))
def test_a_block_holds_about_block_tokens(lengths):
    for block in blocks_of(np.array(lengths)):
        assert sum(lengths[i] for i in block) < shards.BLOCK_TOKENS + max(lengths)


@quick
@given(n=st.integers(0, 50), n_shards=st.integers(1, 60))
def test_shards_partition_the_blocks_in_order_and_evenly(n, n_shards):
    runs = [shard_of(n, shard, n_shards) for shard in range(n_shards)]
    assert [i for run in runs for i in run] == list(range(n))
    assert max(map(len, runs)) - min(map(len, runs)) <= 1


@pytest.mark.parametrize("n_shards", [2, 3, 30])
def test_the_content_does_not_depend_on_the_number_of_shards(tmp_path, n_shards):
    """30 shards of 5 blocks: most of them are empty, and that is no error."""

    def row_groups(paths):
        files = [pq.ParquetFile(path) for path in paths]
        return [file.read_row_group(i) for file in files for i in range(file.num_row_groups)]

    one = row_groups(write_shards(tmp_path / "one", rows_of(), LENGTHS))
    many_paths = write_shards(tmp_path / "many", rows_of(), LENGTHS, n_shards=n_shards)
    many = row_groups(many_paths)
    assert len(one) == len(many) > 3
    assert all(a.equals(b) for a, b in zip(one, many, strict=True))
    read = Shards(many_paths, EVERY_POSITION)
    assert numbers(torch.cat(list(read.batches()))) == list(range(N))


def test_blocks_give_the_row_numbers_of_what_is_kept(tmp_path):
    paths = write_shards(tmp_path, rows_of(), LENGTHS, n_shards=2)
    read = Shards(paths, Positions(skip_first=2, max_norm=None))
    pairs = [(row, n) for rows, x in read.blocks() for row, n in zip(rows, numbers(x), strict=True)]
    assert [row for row, _ in pairs] == [n for _, n in pairs] == np.flatnonzero(read.kept).tolist()
    assert len(read) == len(pairs) == sum(max(n - 2, 0) for n in LENGTHS)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [(70_000.0, "bfloat16"), (float("inf"), "float32"), (float("nan"), "float32")],
)
def test_a_value_that_does_not_fit_is_an_error_and_leaves_no_file(tmp_path, value, remedy):
    x = rows_of()
    x[-1, 1] = value
    with pytest.raises(OverflowError, match=rf"(7e\+04|inf|nan).*float16.*{remedy}"):
        write_shards(tmp_path, x, LENGTHS, dtype="float16")
    assert not [*tmp_path.rglob("shard*"), *tmp_path.rglob("*.partial")]


def test_a_failed_rewrite_leaves_the_old_shard(tmp_path):
    (path,) = write_shards(tmp_path, rows_of(), LENGTHS)
    before = path.read_bytes()
    with pytest.raises(OverflowError):
        write_shards(tmp_path, rows_of() * 1e6, LENGTHS, dtype="float16")
    assert path.read_bytes() == before
    assert list(tmp_path.rglob("*.parquet")) == [path]


def test_shards_of_different_hooks_are_refused(tmp_path):
    a = write_shards(tmp_path / "a", rows_of(), LENGTHS, hook="resid_pre.1")
    b = write_shards(tmp_path / "b", rows_of(), LENGTHS, hook="resid_pre.2")
    with pytest.raises(ValueError, match=f"{b[0]} and {a[0]} do not hold the same"):
        Shards(a + b, EVERY_POSITION)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        (Positions(0, None), [1, 1, 1, 1, 1, 1]),
        (Positions(1, None), [0, 1, 1, 0, 1, 1]),
        (Positions(2, None), [0, 0, 1, 0, 0, 1]),
        (Positions(9, 2.0), [0, 0, 0, 0, 0, 0]),
        # Median of 3, 2, 4 and 30 is 3.5; the start tokens do not count.
        (Positions(1, 8.0), [0, 1, 1, 0, 1, 0]),
        (Positions(1, 30 / 3.5), [0, 1, 1, 0, 1, 1]),  # equal is kept
        # Median of all six is (4 + 30) / 2 = 17.
        (Positions(0, 2.0), [0, 1, 1, 0, 1, 1]),
    ],
)
def test_positions_keep_what_a_hand_count_keeps(policy, kept):
    position = np.array([0, 1, 2, 0, 1, 2])
    norm = np.array([900.0, 3, 2, 900, 4, 30])
    assert policy.kept(position, norm).astype(int).tolist() == kept


def test_the_median_norm_is_that_of_all_shards_together(tmp_path):
    x = torch.ones(N, 1)
    x[: N // 4] = 3.0  # all of the first shard, and no outlier there
    policy = Positions(skip_first=0, max_norm=2.0)
    paths = write_shards(tmp_path, x, LENGTHS, n_shards=5)
    assert len(Shards(paths, policy)) == N - N // 4


def test_a_block_is_written_while_the_next_is_computed_and_no_more_than_one_waits(
    tmp_path, monkeypatch
):
    second_began, log, write = Event(), [], shards.write_block

    def computed(_model, rows, _hook):
        log.append("compute")
        if log.count("compute") == 2:
            second_began.set()
        return [torch.zeros(len(row), D_IN) for row in rows]

    def write_block(*block, **columns):
        assert second_began.wait(timeout=60), "the second block waited for the first to be written"
        log.append("write")
        write(*block, **columns)

    monkeypatch.setattr(shards, "write_block", write_block)
    monkeypatch.setattr(shards, "BLOCK_TOKENS", 16)
    monkeypatch.setattr(shards, "context_activations", computed)
    shards.write_shard(
        tmp_path / "shard0.parquet",
        SimpleNamespace(
            config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=D_IN))
        ),
        contexts_of(LENGTHS),
        "resid_pre.1",
        dtype="float32",
        shard=0,
        shards=1,
        metadata={},
        state=State(tmp_path / "state", {}, []),
    )
    written = 0
    for computed_blocks, what in zip(np.cumsum([w == "compute" for w in log]), log, strict=True):
        written += what == "write"
        assert written <= computed_blocks <= written + 2
    assert written == log.count("compute") == len(blocks_of(np.array(LENGTHS)))


@pytest.mark.parametrize("failing", [0, 2, -1])
def test_what_fails_while_writing_is_raised_and_leaves_whole_pieces(tmp_path, monkeypatch, failing):
    n_blocks = -(-N // 16)
    calls, write = count(), shards.write_block

    def write_block(*block, **columns):
        if next(calls) == failing % n_blocks:
            raise OSError("no space left on device")
        write(*block, **columns)

    monkeypatch.setattr(shards, "write_block", write_block)
    with pytest.raises(OSError, match="no space left"):
        write_shards(tmp_path, rows_of(), LENGTHS)
    assert not [*tmp_path.rglob("shard*"), *tmp_path.rglob("*.partial")]
    assert next(calls) == failing % n_blocks + 1  # nothing is written after it
    assert len(list(tmp_path.rglob("*.parquet"))) == failing % n_blocks
