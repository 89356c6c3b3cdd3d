"""Real activation shards with given contents: only the language model is replaced."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from faithful_sae import shards
from faithful_sae.state import State

LENGTHS = [7, 5, 9, 16, 3, 11, 8, 2, 13, 6]
N, D_IN = sum(LENGTHS), 3


def rows_of(n: int = N, d_in: int = D_IN) -> Tensor:
    """Activations that differ in every row and are exact in every dtype: row i holds i."""
    return torch.arange(n, dtype=torch.float32)[:, None].repeat(1, d_in)


def numbers(batch: Tensor) -> list[int]:
    """Which rows of `rows_of` a batch holds."""
    return [int(value) for value in batch[:, 0]]


def contexts_of(lengths: list[int]) -> pa.Table:
    """Contexts of these lengths; every token has an id of its own, a document two contexts."""
    first = np.cumsum([0, *lengths])
    return pa.table(
        {
            "document": pa.array([i // 2 for i in range(len(lengths))], pa.int64()),
            "tokens": pa.array(
                [range(a, a + n) for a, n in zip(first, lengths, strict=False)],
                pa.list_(pa.int32()),
            ),
        }
    )


def write_shards(
    folder: Path,
    x: Tensor,
    lengths: list[int],
    *,
    n_shards: int = 1,
    dtype: str = "float32",
    hook: str = "resid_pre.1",
    block_tokens: int = 16,
    **metadata: Any,
) -> list[Path]:
    """Shards in which the activation of token i is x[i]; blocks of about `block_tokens` tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    model = SimpleNamespace(
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(hidden_size=x.shape[1]))
    )
    paths = [folder / f"shard{shard}.parquet" for shard in range(n_shards)]
    with (
        patch.object(shards, "BLOCK_TOKENS", block_tokens),
        patch.object(shards, "context_activations", lambda _, rows, __: [x[row] for row in rows]),
    ):
        for shard, path in enumerate(paths):
            state = State(folder / f"state{shard}", {}, [])
            shards.write_shard(
                path,
                model,
                contexts_of(lengths),
                hook,
                dtype=dtype,
                shard=shard,
                shards=n_shards,
                metadata={"model": "synthetic", "corpus": "synthetic"} | metadata,
                state=state,
            )
            state.remove()
    return paths
