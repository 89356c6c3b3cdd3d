"""Activation shards: written by running a model, read as a stream."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from faithful_sae.activations import context_activations
from faithful_sae.checksums import damage
from faithful_sae.contexts import shard_of
from faithful_sae.disk import require_disk, row_bytes
from faithful_sae.files import written_whole
from faithful_sae.progress import Progress
from faithful_sae.shard_format import (
    DTYPES,
    append_block,
    blocks_in,
    read_column,
    read_straight,
    read_verified,
    shard_metadata,
    shard_schema,
    shard_writer,
    write_block,
)
from faithful_sae.state import State

BLOCK_TOKENS = 8192  # tokens of one block: a row group, and the unit that shards and shuffles share
BUFFER_BLOCKS = 4  # blocks mixed in memory at once while shuffling
GATHER_ROWS = 512  # rows that stay in cache between being gathered and being made float32


@dataclass(frozen=True)
class Positions:
    """Which tokens count, the same for training and every evaluation.

    skip_first: leading positions of each context left out (1: the start token alone).
    max_norm: tokens are left out whose norm exceeds this many times the median norm of the tokens
    that `skip_first` leaves; such attention sinks carry most of the energy and no content. None
    keeps all.
    """

    skip_first: int
    max_norm: float | None

    def kept(self, position: np.ndarray, norm: np.ndarray) -> np.ndarray:
        """Mask [n] of the tokens that count, given their positions and norms [n]."""
        kept: np.ndarray = position >= self.skip_first
        if self.max_norm is not None and kept.any():
            kept &= norm <= self.max_norm * np.median(norm[kept])
        return kept


EVERY_POSITION = Positions(skip_first=0, max_norm=None)


def blocks_of(lengths: np.ndarray) -> list[range]:
    """Consecutive contexts in blocks of about BLOCK_TOKENS tokens; lengths [contexts] in tokens."""
    block = (np.cumsum(lengths) - 1) // BLOCK_TOKENS
    edges = np.flatnonzero(np.diff(block, prepend=-1, append=block[-1] + 1 if len(block) else 0))
    return [range(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


def write_shard(
    path: Path,
    model: Any,
    contexts: pa.Table,
    hook: str,
    *,
    dtype: str,
    shard: int,
    shards: int,
    metadata: dict[str, str],
    state: State,
) -> None:
    """Run the model over this shard's blocks of contexts and write their activations.

    Block by block, one written while the next is computed, so memory does not grow with the shard.
    Blocks are pieces of the job's `state` until all are there.

    Raises OSError when the disk is too small, OverflowError when a value does not fit `dtype`.
    """
    tokens = contexts["tokens"].combine_chunks()
    lengths = tokens.value_lengths().to_numpy().astype(np.int64)
    every = blocks_of(lengths)
    mine = [every[i] for i in shard_of(len(every), shard, shards)]
    n_tokens = int(sum(lengths[b.start : b.stop].sum() for b in mine))
    d_in = model.config.get_text_config().hidden_size
    n_bytes = 2 * n_tokens * row_bytes(d_in, dtype)  # the pieces, and the shard made of them
    require_disk(path.parent, n_bytes, f"the activations of {path.name}, for a while twice,")

    start_token = str(tokens[0][0]) if len(tokens) else ""
    own = {"hook": hook, "dtype": dtype, "d_in": str(d_in), "start_token": start_token}
    schema = shard_schema(d_in, dtype, metadata | own)
    documents = contexts["document"].to_numpy()
    state.begin()
    done = len(state.pieces())
    before = int(sum(lengths[b.start : b.stop].sum() for b in mine[:done]))
    progress = Progress("extract_activations", n_tokens, "tokens", before)

    def write(number: int, rows: list[np.ndarray], activations: Tensor) -> None:
        block = mine[number]
        with (
            written_whole(state.piece(number)) as temporary,
            shard_writer(temporary, schema) as writer,
        ):
            write_block(
                writer,
                activations,
                document=np.repeat(documents[block.start : block.stop], [*map(len, rows)]),
                position=np.concatenate([np.arange(len(r)) for r in rows]),
                token=np.concatenate(rows),
            )
        progress.advance(len(activations))

    with ThreadPoolExecutor(max_workers=1) as background:
        written: Future[None] | None = None
        for number in range(done, len(mine)):
            rows = [np.array(tokens[i].values) for i in mine[number]]
            activations = torch.cat(context_activations(model, rows, hook))
            if written:
                written.result()  # raises what writing raised, and bounds what waits
            written = background.submit(write, number, rows, activations)
        if written:
            written.result()
    with written_whole(path) as temporary, shard_writer(temporary, schema) as writer:
        for piece in state.whole(len(mine)):
            append_block(writer, piece)


class Shards:
    """The activations of one corpus at one hook, read as a stream.

    The checksums of a block are verified when it is first read, and its bytes are read straight
    from the file after that: damage is found before anything depends on a block, and the epochs
    that follow do not pay for it again. Memory, once opened: one byte per token for `kept`, and the
    buffers of the stream, whatever the number of shards.

    Raises ValueError naming the file when one is damaged, or when files do not belong together.
    """

    def __init__(self, paths: list[Path], positions: Positions) -> None:
        self.paths = paths
        self.metadata = shard_metadata(paths)
        self.d_in = int(self.metadata["d_in"])
        self.dtype = DTYPES[self.metadata["dtype"]]
        self.kept = positions.kept(self._column("position"), self._column("norm"))
        width = self.d_in * self.dtype.itemsize
        self._blocks = [block for path in paths for block in blocks_in(path, width)]
        self._first = np.cumsum([0, *(block.rows for block in self._blocks)])
        self._straight: dict[int, bool] = {}  # blocks that were read: do they lie in one run?

    def __len__(self) -> int:
        """Tokens that the positions policy keeps."""
        return int(self.kept.sum())

    @cached_property
    def document(self) -> np.ndarray:
        """The document of every token, kept or not, [tokens] int64."""
        return self._column("document")

    @cached_property
    def position(self) -> np.ndarray:
        """The position in its context of every token, kept or not, [tokens] int32."""
        return self._column("position")

    @cached_property
    def norm(self) -> np.ndarray:
        """The norm of every activation before it was rounded to its dtype, [tokens] float32."""
        return self._column("norm")

    def blocks(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Kept tokens in file order, block by block: row numbers [n] and x [n, d_in] float32."""
        stored = self._buffer(max((block.rows for block in self._blocks), default=0))
        for number in range(len(self._blocks)):
            kept = self._kept_rows(number)
            x = torch.empty(len(kept), self.d_in)
            self._load(number, stored)
            _gather(stored, torch.from_numpy(kept), out=x)
            yield kept + self._first[number], x

    def batches(self) -> Iterator[Tensor]:
        """Kept activations in file order, [n, d_in] float32, one batch per block."""
        for _, x in self.blocks():
            yield x

    def shuffled(self, batch_size: int, seed: int, skip: int = 0) -> Iterator[Tensor]:
        """Endless batches [batch_size, d_in] float32, every epoch in another seeded order.

        Blocks are visited in random order and BUFFER_BLOCKS of them mixed in memory. The order
        depends on the seed and the data alone, not on how many shards hold them. The first `skip`
        batches are passed over without being read, for a consumer that has had them.

        A batch is the consumer's until it asks for the next one, which takes the same memory: to
        get fresh memory for each from the system costs more time than to fill it.
        """
        if not len(self):
            raise ValueError(f"{self.paths[0]}: no token is left after the positions policy.")
        generator = np.random.default_rng(seed)
        largest = sorted(block.rows for block in self._blocks)[-BUFFER_BLOCKS:]
        stored = self._buffer(batch_size - 1 + sum(largest))
        batch = torch.empty(batch_size, self.d_in)
        left, there = np.zeros(0, np.int64), True  # rows left over; are they the first of `stored`?
        while True:
            order = generator.permutation(len(self._blocks))
            for first in range(0, len(order), BUFFER_BLOCKS):
                numbers = order[first : first + BUFFER_BLOCKS].tolist()
                starts = np.cumsum([len(left), *(self._blocks[number].rows for number in numbers)])
                kept = [self._kept_rows(number) for number in numbers]
                rows = np.concatenate([left, *map(np.add, self._first[numbers], kept)])
                places = np.concatenate([np.arange(len(left)), *map(np.add, starts, kept)])
                mixed = generator.permutation(len(rows))
                row, place = rows[mixed], torch.from_numpy(places[mixed])
                full = len(row) // batch_size * batch_size
                passed = min(skip, full // batch_size)
                skip -= passed
                if not skip:
                    if not there:
                        self._fetch(left, stored)
                    for number, start in zip(numbers, starts, strict=False):
                        self._load(number, stored[start:])
                    for start in range(passed * batch_size, full, batch_size):
                        _gather(stored, place[start : start + batch_size], out=batch)
                        yield batch
                    stored[: len(row) - full] = stored[place[full:]]
                left, there = row[full:], not skip

    def _fetch(self, rows: np.ndarray, stored: Tensor) -> None:
        """Read single rows, by their numbers in the corpus, into the first ones of `stored`."""
        owners = np.searchsorted(self._first, rows, side="right") - 1
        block = stored[len(rows) :]
        for number in np.unique(owners).tolist():
            self._load(number, block)
            mine = np.flatnonzero(owners == number)
            inside = rows[mine] - self._first[number]
            stored[torch.from_numpy(mine)] = block[torch.from_numpy(inside)]

    def _buffer(self, rows: int) -> Tensor:
        return torch.empty(rows, self.d_in, dtype=self.dtype)

    def _kept_rows(self, number: int) -> np.ndarray:
        """Which rows of a block are kept, counted from its first."""
        return np.flatnonzero(self.kept[self._first[number] : self._first[number + 1]])

    def _load(self, number: int, buffer: Tensor) -> int:
        """Read a block as stored, all its rows, into the first rows of `buffer`; how many."""
        block = self._blocks[number]
        rows = buffer[: block.rows]
        straight = self._straight.get(number)
        complete = straight is not False and read_straight(block, rows)
        if straight and not complete:
            raise damage(block.path, "it has become shorter")
        if not straight:
            values = read_verified(block, self.d_in, self.dtype)
            # Not taken on trust: shards with several pages hold page headers among the values.
            self._straight[number] = complete and _same_bytes(rows, values)
            if not self._straight[number]:
                rows.copy_(values)
        return block.rows

    def _column(self, name: str) -> np.ndarray:
        return np.concatenate([read_column(path, name) for path in self.paths])


def _same_bytes(a: Tensor, b: Tensor) -> bool:
    word = np.uint64 if a.nbytes % 8 == 0 else np.uint8  # eight bytes at once, where they divide
    x, y = (t.flatten().view(torch.uint8).numpy().view(word) for t in (a, b))
    return np.array_equal(x, y)


def _gather(rows: Tensor, numbers: Tensor, *, out: Tensor) -> None:
    """out = rows[numbers] as float32."""
    for start in range(0, len(numbers), GATHER_ROWS):
        some = slice(start, start + GATHER_ROWS)
        out[some] = rows.index_select(0, numbers[some])
