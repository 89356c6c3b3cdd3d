"""Two one-thread jobs side by side against one two-thread job after the other.

    python benchmarks/threads.py

Each job is a process of its own: it trains SAEs of a given size, or runs a model of SmolLM2-135M's
shape over contexts, and times itself after its start-up. Wall seconds; needs two idle cores.
"""

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from timing import write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))
ROUNDS = 5
TOKENS = 2048


def train(d_in: int, d_sae: int) -> None:
    """Twenty training steps of 2048 tokens."""
    import torch

    from faithful_sae.sae import SAE
    from faithful_sae.trainer import SAEConfig, Trainer

    config = SAEConfig(
        architecture="topk",
        expansion=d_sae // d_in,
        k=32,
        encoder_bias=False,
        training_tokens=0,
        batch_size=TOKENS,
        lr=3e-4,
        dead_after=10**9,
    )
    trainer = Trainer(SAE.untrained(d_in=d_in, d_sae=d_sae, k=32, seed=0), config)
    x = torch.randn(TOKENS, d_in)
    trainer.step(x)
    _timed(lambda: [trainer.step(x) for _ in range(20)])


def extract() -> None:
    """Twenty blocks of a model over 2048 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from faithful_sae.activations import hidden_states
    from faithful_sae.linear import use_linear

    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    model = use_linear(LlamaForCausalLM(config).eval().requires_grad_(False))
    tokens = torch.randint(0, 49152, (TOKENS // 128, 128))
    hidden_states(model, tokens, "resid_pre.20")
    _timed(lambda: hidden_states(model, tokens, "resid_pre.20"))


def _timed(work) -> None:
    print("ready", flush=True)
    sys.stdin.readline()  # every process has started before any is timed
    start = time.perf_counter()
    work()
    print(time.perf_counter() - start, flush=True)


def jobs(what: str, n: int, threads: int) -> float:
    """Wall seconds of `n` such jobs side by side: of the slowest."""
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, what],
            env={"OMP_NUM_THREADS": str(threads), "THP_MEM_ALLOC_ENABLE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(n)
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    return max(float(process.communicate()[0]) for process in processes)


def main() -> None:
    rows = []
    for what in WORK:
        pair, single = [], []
        for _ in range(ROUNDS):
            pair.append(jobs(what, 2, threads=1))
            single.append(jobs(what, 1, threads=2))
        rows.append(
            {
                "work": what,
                "two 1-thread jobs, s": median(pair),
                "one 2-thread job twice, s": 2 * median(single),
                "ratio": 2 * median(single) / median(pair),
            }
        )
    write_table("threads", rows)


WORK = {
    "train (256, 4096)": lambda: train(256, 4096),
    "train (576, 1152)": lambda: train(576, 1152),
    "extract": extract,
}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        WORK[sys.argv[1]]()
    else:
        main()
