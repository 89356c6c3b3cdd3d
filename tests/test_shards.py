"""Activation shards: what is written is what is read, damage is found, shuffles are shuffles."""

from collections import Counter
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_shards import contexts_of, write_shards

from faithful_sae import disk, shards
from faithful_sae.activations import context_activations
from faithful_sae.disk import require_disk_for_study
from faithful_sae.models import load_model
from faithful_sae.prepare import randomize
from faithful_sae.shards import EVERY_POSITION, Positions, Shards, blocks_of, shard_of
from faithful_sae.state import State

quick = settings(max_examples=25)
context_lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)
LENGTHS = [7, 5, 9, 16, 3, 11, 8, 2, 13, 6]
N, D_IN = sum(LENGTHS), 3


def rows_of(n: int = N, d_in: int = D_IN) -> torch.Tensor:
    """Activations that differ in every row and are exact in every dtype: row i holds i."""
    return torch.arange(n, dtype=torch.float32)[:, None].repeat(1, d_in)


def numbers(batch: torch.Tensor) -> list[int]:
    """Which rows of `rows_of` a batch holds."""
    return [int(value) for value in batch[:, 0]]


# --- writing and reading ---------------------------------------------------------------------


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


# --- refusals --------------------------------------------------------------------------------


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


def test_too_small_a_disk_is_an_error_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(
        OSError,
        match="shard0.parquet, for a while twice, need .* GB",
    ):
        write_shards(tmp_path, rows_of(), LENGTHS)
    assert not [*tmp_path.rglob("shard*"), *tmp_path.rglob("*.partial")]


def test_shards_of_different_hooks_are_refused(tmp_path):
    a = write_shards(tmp_path / "a", rows_of(), LENGTHS, hook="resid_pre.1")
    b = write_shards(tmp_path / "b", rows_of(), LENGTHS, hook="resid_pre.2")
    with pytest.raises(ValueError, match=f"{b[0]} and {a[0]} do not hold the same"):
        Shards(a + b, EVERY_POSITION)


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


# --- positions -------------------------------------------------------------------------------


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


# --- shuffling -------------------------------------------------------------------------------


@quick
@given(
    lengths=context_lengths,
    batch_size=st.integers(1, 50),
    skip_first=st.integers(0, 1),
    seed=st.integers(0, 9),
)
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
@given(
    lengths=context_lengths,
    batch_size=st.integers(1, 50),
    skip_first=st.integers(0, 2),
    seed=st.integers(0, 9),
)
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


# --- reading again ---------------------------------------------------------------------------


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


# --- writing while computing -----------------------------------------------------------------


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


# --- disk ------------------------------------------------------------------------------------


def test_a_study_too_large_for_the_disk_is_refused_and_what_is_there_counts(tmp_path, monkeypatch):
    shard = tmp_path / "faithful" / "resid_pre.1" / "train" / "shard0.parquet"
    shard.parent.mkdir(parents=True)
    shard.write_bytes(bytes(6_000))
    config = {
        "models": {tmp_path.name: {"hooks": ["resid_pre.1", "resid_pre.2"], "corpora": None}},
        "corpora": {"faithful": {}},
        "corpus_size": {"train_tokens": 30, "heldout_tokens": 10},
        "evaluations": {"fake_features": {"tokens": 10}},
        "activations": {"dtype": "float16"},
    }
    # Of 2 hooks x (40 tokens, 3 random inputs of 10) x 100 bytes, 6,000 are there.
    free = SimpleNamespace(free=8_000)
    monkeypatch.setattr("faithful_sae.disk.shutil.disk_usage", lambda _: free)
    require_disk_for_study(tmp_path, 40, config)
    config["corpus_size"]["train_tokens"] = 31
    with pytest.raises(OSError, match="the activations of this study need"):
        require_disk_for_study(tmp_path, 40, config)
    # A model that is studied on fewer corpora needs less.
    config["corpora"]["other"] = {}
    config["corpus_size"]["train_tokens"] = 30
    with pytest.raises(OSError, match="the activations of this study need"):
        require_disk_for_study(tmp_path, 40, config)
    config["models"][tmp_path.name]["corpora"] = ["other"]
    require_disk_for_study(tmp_path, 40, config)
