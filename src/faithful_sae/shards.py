"""The on-disk format of activations: the only module that knows it.

One Parquet file per shard, one row per token. The activation is ONE fixed-width binary value per
row, uncompressed, without dictionary or statistics: plain Parquet that reads six times faster than
a list of floats (benchmarks/). The file's metadata says model, hook, dtype and width. Every page
carries a checksum that every read verifies.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from faithful_sae.activations import context_activations
from faithful_sae.disk import require_disk, row_bytes
from faithful_sae.files import written_whole
from faithful_sae.progress import Progress

BLOCK_TOKENS = 8192  # tokens of one block: a row group, and the unit that shards and shuffles share
BUFFER_BLOCKS = 4  # blocks mixed in memory at once while shuffling
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Positions:
    """Which tokens count, the same for training and every evaluation.

    skip_first: leading positions of each context left out (1: the start token alone).
    max_norm: tokens are left out whose norm exceeds this many times the median norm of the tokens
        that `skip_first` leaves; such attention sinks carry most of the energy and no content.
        None keeps all.
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


def shard_of(n: int, shard: int, shards: int) -> range:
    """The run of `n` blocks that belongs to one of `shards` shards."""
    return range(n * shard // shards, n * (shard + 1) // shards)


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
) -> None:
    """Run the model over this shard's blocks of contexts and write their activations.

    Block by block, so memory does not grow with the shard; under another name until it is whole.

    Raises OSError when the disk is too small, OverflowError when a value does not fit `dtype`.
    """
    tokens = contexts["tokens"].to_pylist()
    lengths = np.array([len(t) for t in tokens], dtype=np.int64)
    every = blocks_of(lengths)
    mine = [every[i] for i in shard_of(len(every), shard, shards)]
    n_tokens = int(sum(lengths[b.start : b.stop].sum() for b in mine))
    d_in = model.config.get_text_config().hidden_size
    width = d_in * DTYPES[dtype].itemsize
    require_disk(path.parent, n_tokens * row_bytes(d_in, dtype), f"the activations of {path.name}")

    metadata = metadata | {"hook": hook, "dtype": dtype, "d_in": str(d_in)}
    schema = _schema(width, metadata | {"start_token": str(tokens[0][0]) if tokens else ""})
    documents = contexts["document"].to_numpy()
    progress = Progress("extract_activations", n_tokens, "tokens")
    with (
        written_whole(path) as temporary,
        pq.ParquetWriter(
            temporary,
            schema,
            compression={name: "zstd" for name in schema.names} | {"activation": "none"},
            use_dictionary=["document"],
            write_statistics=False,
            write_page_checksum=True,
            data_page_size=1 << 20,
        ) as writer,
    ):
        for block in mine:
            rows = [np.asarray(tokens[i], np.int32) for i in block]
            activations = torch.cat(context_activations(model, rows, hook))
            table = pa.table(
                {
                    "document": np.repeat(documents[block.start : block.stop], [*map(len, rows)]),
                    "position": np.concatenate([np.arange(len(r), dtype=np.int32) for r in rows]),
                    "token": np.concatenate(rows),
                    "norm": activations.norm(dim=1).cpu().numpy(),
                    "activation": _pack(activations, dtype),
                },
                schema=schema,
            )
            writer.write_table(table, row_group_size=len(table))
            progress.advance(len(table))


class Shards:
    """The activations of one corpus at one hook, read as a stream in bounded memory.

    Raises ValueError naming the file when one is damaged, or when files do not belong together.
    """

    def __init__(self, paths: list[Path], positions: Positions) -> None:
        self.paths = paths
        self.metadata = self._metadata(paths)
        self.d_in = int(self.metadata["d_in"])
        self.dtype = DTYPES[self.metadata["dtype"]]
        small = [self._read(path, None, ["document", "position", "norm"]) for path in paths]
        columns = pa.concat_tables(small)
        self.document: np.ndarray = columns["document"].to_numpy()  # of every token
        self.position: np.ndarray = columns["position"].to_numpy()
        self.norm: np.ndarray = columns["norm"].to_numpy()
        self.kept = positions.kept(self.position, self.norm)
        self._groups: list[tuple[Path, int, slice]] = []  # file, row group, its rows in all
        first = 0
        for path in paths:
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                n = metadata.row_group(group).num_rows
                self._groups.append((path, group, slice(first, first + n)))
                first += n

    def __len__(self) -> int:
        """Tokens that the positions policy keeps."""
        return int(self.kept.sum())

    def blocks(self) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Kept tokens in file order, block by block: row numbers [n] and x [n, d_in] float32."""
        for number, (_, _, rows) in enumerate(self._groups):
            yield np.flatnonzero(self.kept[rows]) + rows.start, self._block(number)

    def batches(self) -> Iterator[Tensor]:
        """Kept activations in file order, [n, d_in] float32, one batch per block."""
        for _, x in self.blocks():
            yield x

    def shuffled(self, batch_size: int, seed: int) -> Iterator[Tensor]:
        """Endless batches [batch_size, d_in] float32, every epoch in another seeded order.

        Blocks are visited in random order and BUFFER_BLOCKS of them mixed in memory. The order
        depends on the seed and the data alone, not on how many shards hold them.
        """
        if not len(self):
            raise ValueError(f"{self.paths[0]}: no token is left after the positions policy.")
        generator = np.random.default_rng(seed)
        rest = torch.empty(0, self.d_in)
        while True:
            order = generator.permutation(len(self._groups))
            for first in range(0, len(order), BUFFER_BLOCKS):
                # A generator: a list would keep these blocks while the next ones are read.
                mixed = (self._block(int(b)) for b in order[first : first + BUFFER_BLOCKS])
                buffer = torch.cat([rest, *mixed])
                buffer = buffer[torch.from_numpy(generator.permutation(len(buffer)))]
                full = len(buffer) // batch_size * batch_size
                for start in range(0, full, batch_size):  # none if the buffer fills no batch
                    yield buffer[start : start + batch_size]
                rest = buffer[full:].clone()  # a view would keep the whole buffer

    def _block(self, number: int) -> Tensor:
        path, group, rows = self._groups[number]
        column = self._read(path, group, ["activation"])["activation"]
        values = [_unpack(chunk, self.d_in, self.dtype) for chunk in column.chunks]
        return torch.cat(values)[torch.from_numpy(self.kept[rows])].float()

    @staticmethod
    def _read(path: Path, group: int | None, columns: list[str]) -> pa.Table:
        try:
            file = pq.ParquetFile(path, page_checksum_verification=True, memory_map=True)
            if group is None:
                table, rows = file.read(columns, use_threads=False), file.metadata.num_rows
            else:
                table = file.read_row_group(group, columns, use_threads=False)
                rows = file.metadata.row_group(group).num_rows
            if len(table) != rows:  # a page's own count is not part of its checksum
                raise pa.ArrowInvalid(f"{len(table)} rows instead of {rows}")
            return table
        except (OSError, pa.ArrowException) as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{path} is damaged ({reason}); delete it and run again to extract it anew."
            ) from error

    @staticmethod
    def _metadata(paths: list[Path]) -> dict[str, str]:
        found: dict[str, str] = {}
        for path in paths:
            try:
                schema = pq.read_schema(path)
                raw = (schema.metadata or {}).items()
                here = {k.decode(): v.decode() for k, v in raw if k != b"ARROW:schema"}
                width = int(here["d_in"]) * DTYPES[here["dtype"]].itemsize
                if not schema.equals(_schema(width, {})):
                    raise pa.ArrowInvalid("other columns")
            except (OSError, pa.ArrowException, ValueError, KeyError) as error:
                raise ValueError(
                    f"{path} is damaged or no activation shard; delete it and run again."
                ) from error
            if found and here != found:
                raise ValueError(f"{path} and {paths[0]} do not hold the same activations.")
            found = here
        return found


def _schema(width: int, metadata: dict[str, str]) -> pa.Schema:
    return pa.schema(
        {
            "document": pa.int64(),
            "position": pa.int32(),
            "token": pa.int32(),
            "norm": pa.float32(),
            "activation": pa.binary(width),
        },
        metadata=metadata,
    )


def _pack(x: Tensor, dtype: str) -> pa.Array:
    """Rows of x [n, d] as fixed-width binary values of the given dtype."""
    narrow = x.to(DTYPES[dtype]).cpu().contiguous()
    if not bool(torch.isfinite(narrow).all()):
        largest = float(x.abs().max())
        raise OverflowError(
            f"an activation of {largest:.4g} does not fit {dtype}; set activations.dtype to "
            f"{'bfloat16' if np.isfinite(largest) else 'float32 and check the model'}."
        )
    width = narrow.shape[1] * narrow.element_size()
    data = pa.py_buffer(narrow.view(torch.uint8).numpy())
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), len(narrow), [None, data])


def _unpack(chunk: pa.Array, d_in: int, dtype: torch.dtype) -> Tensor:
    """The inverse of _pack, without a copy: [n, d_in] of the stored dtype."""
    n_bytes = d_in * dtype.itemsize
    raw = np.frombuffer(
        chunk.buffers()[1], np.uint8, count=len(chunk) * n_bytes, offset=chunk.offset * n_bytes
    )
    return torch.from_numpy(raw.reshape(len(chunk), n_bytes)).view(dtype)
