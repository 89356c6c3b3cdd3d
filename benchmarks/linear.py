"""Dense float32 products: oneDNN (faithful_sae.linear) against torch's own, MKL.

    python benchmarks/linear.py

Shapes of SmolLM2-135M and of SAE encoders, one thread.
"""

import sys
from pathlib import Path

from timing import interleaved, one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch.nn import functional

from faithful_sae.linear import linear

SHAPES = {  # tokens, d_in, d_out
    "attention and MLP, in": (2048, 576, 1536),
    "MLP, out": (2048, 1536, 576),
    "head, one sampling step": (256, 576, 49152),
    "SAE encoder, demo": (512, 576, 1152),
    "SAE encoder, GPT-2": (2048, 768, 12288),
}


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for name, (tokens, d_in, d_out) in SHAPES.items():
        x, weight = torch.randn(tokens, d_in), torch.randn(d_out, d_in)
        flop = 2 * tokens * d_in * d_out
        repeats = max(1, int(2e9 / flop))

        def repeated(product, repeats=repeats, x=x, weight=weight):
            return lambda: [product(x, weight) for _ in range(repeats)]

        seconds = interleaved({"ours": repeated(linear), "torch": repeated(functional.linear)})
        rate = {who: flop * repeats / s / 1e9 for who, s in seconds.items()}
        rows.append(
            {
                "product": name,
                "tokens": tokens,
                "d_in": d_in,
                "d_out": d_out,
                "ours, GFLOP/s": rate["ours"],
                "torch, GFLOP/s": rate["torch"],
                "ours / torch": rate["ours"] / rate["torch"],
            }
        )
    write_table("linear", rows)


if __name__ == "__main__":
    main()
