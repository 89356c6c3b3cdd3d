"""Writing a shard of activations, against the bare forward pass that makes them.

    python benchmarks/extraction.py

A random Llama of the shape of SmolLM2-135M (30 blocks, d_in 576), hook resid_pre.20, one thread.
*Bare* is the same model with the blocks from the hook on cut off, run on the same batches, its
output thrown away. The shard is written in two blocks, so that the first is written while the
second is computed. Medians of 5 rounds, CPU and wall time.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from timing import one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
import pyarrow as pa
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from faithful_sae import shards
from faithful_sae.activations import batches_by_length
from faithful_sae.hook_names import hook_block
from faithful_sae.linear import use_linear
from faithful_sae.state import State

HOOK, TOKENS, ROUNDS = "resid_pre.20", 4096, 5
SMOLLM2 = LlamaConfig(
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    vocab_size=49152,
    tie_word_embeddings=True,
)


def contexts_of(lengths: list[int]) -> pa.Table:
    generator = np.random.default_rng(0)
    rows = [generator.integers(0, SMOLLM2.vocab_size, n) for n in lengths]
    return pa.table(
        {"document": range(len(rows)), "tokens": pa.array(rows, pa.list_(pa.int32()))},
    )


def mixed_lengths() -> list[int]:
    """Lengths from 8 to 128 that add up to TOKENS."""
    generator = np.random.default_rng(0)
    lengths: list[int] = []
    while (left := TOKENS - sum(lengths)) > 0:
        lengths.append(min(left, int(generator.integers(8, 129))))
    return lengths


def bare(model: torch.nn.Module, contexts: pa.Table) -> None:
    rows = [np.array(row.values) for row in contexts["tokens"]]
    for block in shards.blocks_of(np.array([len(row) for row in rows])):
        for _, tokens in batches_by_length(rows[block.start : block.stop], torch.device("cpu")):
            with torch.inference_mode():
                model(input_ids=tokens, use_cache=False)


def write(model: torch.nn.Module, contexts: pa.Table, path: Path) -> None:
    state = State(path.with_suffix(".state"), {}, [])
    shards.write_shard(
        path,
        model,
        contexts,
        HOOK,
        dtype="float16",
        shard=0,
        shards=1,
        metadata={},
        state=state,
    )
    state.remove()


def timed(candidates: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """Median CPU and wall seconds; candidates take turns, after one round to warm up."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(ROUNDS + 1):
        for name, candidate in candidates.items():
            cpu, wall = time.process_time(), time.perf_counter()
            candidate()
            seconds[name].append((time.process_time() - cpu, time.perf_counter() - wall))
    return {
        name: (statistics.median(c for c, _ in s[1:]), statistics.median(w for _, w in s[1:]))
        for name, s in seconds.items()
    }


def main() -> None:
    torch.set_num_threads(1)
    pa.set_cpu_count(1)
    shards.BLOCK_TOKENS = TOKENS // 2
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SMOLLM2, dtype=torch.float32).eval()
    use_linear(model.requires_grad_(False))
    cut = AutoModelForCausalLM.from_config(SMOLLM2, dtype=torch.float32).eval().model
    use_linear(cut.requires_grad_(False))
    cut.layers = cut.layers[: hook_block(HOOK)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, lengths in (("128", [128] * (TOKENS // 128)), ("8 to 128", mixed_lengths())):
            contexts = contexts_of(lengths)
            path = Path(folder) / "shard0.parquet"
            seconds = timed(
                {
                    "ours": lambda c=contexts, p=path: write(model, c, p),
                    "bare": lambda c=contexts: bare(cut, c),
                }
            )
            for clock, i in (("CPU", 0), ("wall", 1)):
                ours, floor = TOKENS / seconds["ours"][i], TOKENS / seconds["bare"][i]
                rows.append(
                    {
                        "context length": name,
                        "clock": clock,
                        "ours, tokens/s": ours,
                        "bare forward, tokens/s": floor,
                        "ours / bare": ours / floor,
                    }
                )
    write_table("extraction", rows)


if __name__ == "__main__":
    main()
