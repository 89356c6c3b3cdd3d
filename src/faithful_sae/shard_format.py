"""The on-disk format of activations: the only module that knows it.

One Parquet file per shard, one row per token. The activation is ONE fixed-width binary value per
row, uncompressed, without dictionary or statistics, and one page per row group: plain Parquet whose
values lie in one run of bytes, which reads as fast as memory is copied (benchmarks/). The file's
metadata says model, hook, dtype and width. Every page carries a checksum.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from faithful_sae.arrow import read_arrow, require_seal, sealed
from faithful_sae.checksums import damage

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


class Block(NamedTuple):
    """A row group of a shard; `start` is where in the file its run of activations should begin."""

    path: Path
    group: int
    rows: int
    start: int


def shard_schema(d_in: int, dtype: str, metadata: dict[str, str]) -> pa.Schema:
    """The columns of a shard, and its metadata."""
    return pa.schema(
        {
            "document": pa.int64(),
            "position": pa.int32(),
            "token": pa.int32(),
            "norm": pa.float32(),
            "activation": pa.binary(d_in * DTYPES[dtype].itemsize),
        },
        metadata=metadata,
    )


def shard_writer(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    """A writer for `write_block`."""
    return pq.ParquetWriter(
        path,
        sealed(schema),
        compression={name: "zstd" for name in schema.names} | {"activation": "none"},
        use_dictionary=["document"],
        write_statistics=False,
        write_page_checksum=True,
        data_page_size=1 << 30,  # one page per row group
    )


def write_block(
    writer: pq.ParquetWriter,
    activations: Tensor,
    *,
    document: np.ndarray,
    position: np.ndarray,
    token: np.ndarray,
) -> None:
    """Append tokens as one row group: activations [n, d_in], the other columns [n].

    Raises OverflowError, with the dtype to use instead, when a value does not fit.
    """
    columns = {
        "document": document,
        "position": position,
        "token": token,
        "norm": activations.norm(dim=1).cpu().numpy(),
        "activation": _pack(activations, writer.schema.metadata[b"dtype"].decode()),
    }
    table = pa.table(columns, schema=writer.schema)
    writer.write_table(table, row_group_size=len(table))


def append_block(writer: pq.ParquetWriter, piece: Path) -> None:
    """Append the one row group of another shard, its checksums verified."""
    table = read_arrow(piece)
    writer.write_table(table, row_group_size=len(table))


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


def shard_metadata(paths: list[Path]) -> dict[str, str]:
    """What all of these shards say of themselves.

    Raises ValueError for a file that is no whole shard, or that differs from the first.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            schema = pq.read_schema(path)
            own = (b"ARROW:schema", b"sha256")
            here = {
                k.decode(): v.decode() for k, v in (schema.metadata or {}).items() if k not in own
            }
            if not schema.equals(shard_schema(int(here["d_in"]), here["dtype"], {})):
                raise pa.ArrowInvalid("other columns")
            require_seal(path, schema)
        except (OSError, pa.ArrowException, ValueError, KeyError) as error:
            raise damage(path, "or it is no activation shard") from error
        if found and here != found:
            raise ValueError(f"{path} and {paths[0]} do not hold the same activations.")
        found = here
    return found


def blocks_in(path: Path, width: int) -> list[Block]:
    """The row groups of a shard whose activations have `width` bytes each."""
    metadata = pq.read_metadata(path)
    blocks = []
    for group in range(metadata.num_row_groups):
        activations = metadata.row_group(group).column(metadata.schema.names.index("activation"))
        rows = metadata.row_group(group).num_rows
        end = activations.data_page_offset + activations.total_compressed_size
        blocks.append(Block(path, group, rows, end - rows * width))
    return blocks


def read_column(path: Path, name: str) -> np.ndarray:
    """A small column of a whole shard, its checksums verified: [tokens]."""
    column: np.ndarray = _read(path, None, name).to_numpy()
    return column


def read_verified(block: Block, d_in: int, dtype: torch.dtype) -> Tensor:
    """The activations of a block, its checksums verified: [rows, d_in] of the stored dtype."""
    values = []
    for chunk in _read(block.path, block.group, "activation").chunks:
        width = d_in * dtype.itemsize
        raw = np.frombuffer(
            chunk.buffers()[1], np.uint8, count=len(chunk) * width, offset=chunk.offset * width
        )
        values.append(torch.from_numpy(raw.reshape(len(chunk), width)).view(dtype))
    return values[0] if len(values) == 1 else torch.cat(values)


def read_straight(block: Block, rows: Tensor) -> bool:
    """Fill `rows` [rows, d_in] with the block's bytes, unverified; whether the file has so many."""
    try:
        with open(block.path, "rb") as file:
            file.seek(block.start)
            return file.readinto(rows.view(torch.uint8).numpy().data) == rows.nbytes
    except (OSError, ValueError):  # a damaged footer may name any place
        return False


def _read(path: Path, group: int | None, column: str) -> pa.ChunkedArray:
    try:
        file = pq.ParquetFile(
            path, page_checksum_verification=True, memory_map=True, pre_buffer=False
        )
        if group is None:
            table, rows = file.read([column], use_threads=False), file.metadata.num_rows
        else:
            table = file.read_row_group(group, [column], use_threads=False)
            rows = file.metadata.row_group(group).num_rows
        if len(table) != rows:  # a page's own count is not part of its checksum
            raise pa.ArrowInvalid(f"{len(table)} rows instead of {rows}")
        return table[column]
    except (OSError, pa.ArrowException) as error:
        raise damage(path, str(error).strip().splitlines()[0]) from error
