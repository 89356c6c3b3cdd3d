"""Reading activation shards: our format against lists of floats, our shuffle against concatenation.

    python benchmarks/shards.py

131,072 tokens of 768 float16 values in contexts of 128, page cache warm, one thread, GB/s of stored
bytes. Sequential reads bring the stored bytes into memory; their floor is a copy. Batches are 2048
rows of float32 without start tokens; their floor gathers and casts rows that lie in memory, into
memory that is already there.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

from timing import interleaved, one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from faithful_sae.shard_format import (
    blocks_in,
    read_verified,
    shard_schema,
    shard_writer,
    write_block,
)
from faithful_sae.shards import BLOCK_TOKENS, BUFFER_BLOCKS, Positions, Shards

N, D, CONTEXT, BATCH = 131_072, 768, 128, 2048
WIDTH = 2 * D


def write_ours(path: Path, x: torch.Tensor) -> None:
    metadata = {"dtype": "float16", "d_in": str(D)}
    schema = shard_schema(D, "float16", metadata)
    with shard_writer(path, schema) as writer:
        for start in range(0, N, BLOCK_TOKENS):
            block = np.arange(start, start + BLOCK_TOKENS)
            activations = x[start : start + BLOCK_TOKENS].float()
            write_block(
                writer,
                activations,
                document=block // CONTEXT,
                position=block % CONTEXT,
                token=block,
            )


def read_lists(path: Path) -> None:
    file = pq.ParquetFile(path, memory_map=True, pre_buffer=False)
    for group in range(file.num_row_groups):
        file.read_row_group(group, use_threads=False)


def concatenated(shards: Shards, batch_size: int) -> Iterator[torch.Tensor]:
    """One epoch of the shuffle in the plain way: verified reads, float32 blocks, torch.cat."""
    generator = np.random.default_rng(0)
    blocks = blocks_in(shards.paths[0], WIDTH)
    order = generator.permutation(len(blocks))
    rest = torch.empty(0, D)
    for first in range(0, len(order), BUFFER_BLOCKS):
        mixed = []
        for number in order[first : first + BUFFER_BLOCKS]:
            kept = shards.kept[number * BLOCK_TOKENS : (number + 1) * BLOCK_TOKENS]
            stored = read_verified(blocks[number], D, torch.float16)
            mixed.append(stored[torch.from_numpy(kept)].float())
        buffer = torch.cat([rest, *mixed])
        buffer = buffer[torch.from_numpy(generator.permutation(len(buffer)))]
        full = len(buffer) // batch_size * batch_size
        yield from buffer[:full].split(batch_size)
        rest = buffer[full:].clone()


def drain(batches: Iterator[torch.Tensor]) -> None:
    for _ in batches:
        pass


def main() -> None:
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    generator = np.random.default_rng(0)
    x = generator.standard_normal((N, D), np.float32).astype(np.float16)
    stored = torch.from_numpy(x)
    order = torch.from_numpy(generator.permutation(N))
    gathered, batch = torch.empty(BATCH, D, dtype=torch.float16), torch.empty(BATCH, D)

    def in_memory() -> None:
        for start in range(0, N, BATCH):
            torch.index_select(stored, 0, order[start : start + BATCH], out=gathered)
            batch.copy_(gathered)

    with tempfile.TemporaryDirectory() as folder:
        ours, plain, default = (Path(folder) / f"{n}.parquet" for n in ("ours", "plain", "default"))
        write_ours(ours, stored)
        lists = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1)), D)
        pq.write_table(
            pa.table({"x": lists}), plain, BLOCK_TOKENS,
            compression="none", use_dictionary=False, write_statistics=False,
        )  # fmt: skip
        pq.write_table(pa.table({"x": lists}), default, BLOCK_TOKENS)

        blocks = blocks_in(ours, WIDTH)
        buffer = torch.empty(BLOCK_TOKENS, D, dtype=torch.float16)
        policy = Positions(skip_first=1, max_norm=None)
        shards = Shards([ours], policy)

        def load(some: Shards) -> None:
            for number in range(len(blocks)):
                some._load(number, buffer)

        drain(shards.batches())  # verifies every block
        stream = shards.shuffled(BATCH, seed=0)
        candidates: dict[str, Callable[[], object]] = {
            "first": lambda: load(Shards([ours], policy)),
            "again": lambda: load(shards),
            "plain": lambda: read_lists(plain),
            "default": lambda: read_lists(default),
            "memcpy": lambda: [buffer.copy_(block) for block in stored.split(BLOCK_TOKENS)],
            "batches": lambda: drain(islice(stream, len(shards) // BATCH)),
            "concatenated": lambda: drain(concatenated(shards, BATCH)),
            "in memory": in_memory,
        }
        speed = {k: x.nbytes / v / 1e9 for k, v in interleaved(candidates, rounds=7).items()}

    def row(measured: str, ours: str, peer: str, floor: str) -> dict[str, str | float]:
        return {
            "measured": measured,
            "ours, GB/s": speed[ours],
            "peer, GB/s": speed[peer],
            "floor, GB/s": speed[floor],
            "ours / peer": speed[ours] / speed[peer],
            "ours / floor": speed[ours] / speed[floor],
        }

    write_table(
        "shards",
        [
            row("block read before; list of float16", "again", "plain", "memcpy"),
            row("block read before; list, pyarrow defaults", "again", "default", "memcpy"),
            row("first read, checksums; list of float16", "first", "plain", "memcpy"),
            row("shuffled batches; torch.cat", "batches", "concatenated", "in memory"),
        ],
    )
    print(f"\nshuffled: {speed['batches'] * 1e9 / WIDTH:,.0f} rows/s")


if __name__ == "__main__":
    main()
