"""One training step on a CUDA device: ours against dense autograd, embedding_bag and sparsify.

    python benchmarks/cuda_step.py

TopK, 4096 tokens, fused Adam for all; milliseconds by CUDA events, medians of interleaved rounds.
First the gradients of one whole step are checked against dense float64 ones on the same active
latents, once with the encoder product in float32 and once, as in training, in TF32. The peers are
in float32 or TF32 throughout, sparsify (timed if `eai-sparsify` is installed) in its own bfloat16
autocast. The encoder product alone is the floor: every exact step needs it.
"""

import statistics
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest import mock

from timing import write_table

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from faithful_sae import sparse
from faithful_sae.sae import SAE
from faithful_sae.trainer import SAEConfig, Trainer

TOKENS = 4096
SHAPES = ((768, 12288, 32), (2048, 14336, 48), (4096, 16384, 64))  # d_in, d_sae, k
ROUNDS, CALLS = 7, 5  # each round times so many calls of each candidate
DEVICE = torch.device("cuda")


class Autograd:
    """The same step as one would write it: dense gradients by autograd, any decoder."""

    def __init__(self, sae: SAE, lr: float, decode: Callable[..., Tensor]) -> None:
        self.W_enc, self.W_dec, self.b_dec = (
            t.clone().requires_grad_() for t in (sae.W_enc, sae.W_dec, sae.b_dec)
        )
        self.k, self.decode = sae.k, decode
        self.optimizer = torch.optim.Adam([self.W_enc, self.W_dec, self.b_dec], lr=lr, fused=True)

    def step(self, x: Tensor) -> None:
        values, latents = ((x - self.b_dec) @ self.W_enc).relu().topk(self.k, dim=1, sorted=False)
        x_hat = self.decode(latents, values, self.W_dec) + self.b_dec
        self.optimizer.zero_grad()
        ((x_hat - x).square().sum() / len(x)).backward()
        with torch.no_grad():
            self.W_dec.grad -= projection(self.W_dec.grad, self.W_dec)
            self.optimizer.step()
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)


def dense_decode(latents: Tensor, values: Tensor, W_dec: Tensor) -> Tensor:
    return values.new_zeros(len(values), len(W_dec)).scatter(1, latents, values) @ W_dec


def bag_decode(latents: Tensor, values: Tensor, W_dec: Tensor) -> Tensor:
    return embedding_bag(latents, W_dec, per_sample_weights=values, mode="sum")


def projection(gradient: Tensor, rows: Tensor) -> Tensor:
    """The component of each row of `gradient` along the unit row."""
    return (gradient * rows).sum(1, keepdim=True) * rows


def sparsify_step(sae: SAE, lr: float) -> Callable[[Tensor], None] | None:
    """A step of EleutherAI's sparsify with its Triton decoder; None where it is not installed."""
    try:
        from sparsify import SparseCoder, SparseCoderConfig
    except ImportError:
        return None
    config = SparseCoderConfig(num_latents=sae.d_sae, k=sae.k)
    coder = SparseCoder(sae.d_in, config, DEVICE, dtype=torch.float32)
    optimizer = torch.optim.Adam(coder.parameters(), lr=lr, fused=True)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        coder(x).fvu.backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()

    return step


def gradient_error(sae: SAE, config: SAEConfig, x: Tensor, tolerance: float) -> float:
    """Largest relative error of a whole step's gradients against dense float64 ones.

    The reference takes the step's own active latents: rounding may swap two that are nearly equal.
    They must be the largest up to `tolerance` times the largest; else, or when the error exceeds
    `tolerance`, RuntimeError.
    """
    weights = [t.double().requires_grad_() for t in (sae.W_enc, sae.W_dec, sae.b_dec)]
    W_enc, W_dec, b_dec = weights
    trainer = Trainer(replace(sae, W_dec=sae.W_dec.clone(), b_dec=sae.b_dec.clone()), config)
    with torch.no_grad():
        active = sparse.top_k(x - sae.b_dec, trainer.W_enc_rows, sae.b_enc, sae.k)
    trainer.step(x)

    pre = (x - b_dec) @ W_enc
    chosen = torch.zeros_like(pre, dtype=torch.bool).scatter(
        1, active.latents.view(-1, sae.k), True
    )
    missed = pre.masked_fill(chosen, -torch.inf).amax(1) - pre.masked_fill(~chosen, torch.inf).amin(
        1
    )
    if missed.max() > tolerance * pre.max():
        raise RuntimeError(f"The step left out latents larger by {missed.max():.2g}.")
    x_hat = (pre.relu() * chosen) @ W_dec + b_dec
    ((x_hat - x).square().sum() / len(x)).backward()
    expected = [w.grad for w in weights]
    expected[1] -= projection(expected[1], W_dec.detach())
    found = [trainer.W_enc_rows.grad.T, trainer.sae.W_dec.grad, trainer.sae.b_dec.grad]
    error = max(float((f - e).norm() / e.norm()) for f, e in zip(found, expected, strict=True))
    if error > tolerance:
        raise RuntimeError(f"Gradients are off by {error:.2g}, relatively.")
    return error


def milliseconds(candidates: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Median milliseconds of one call of each candidate, in turn, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(ROUNDS + 1):
        for name, call in candidates.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(CALLS):
                call()
            end.record()
            end.synchronize()
            if number:
                times[name].append(start.elapsed_time(end) / CALLS)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(d_in: int, d_sae: int, k: int) -> dict[str, str | int | float]:
    """One row of the table."""
    from faithful_sae import sparse_cuda

    generator = torch.Generator(DEVICE).manual_seed(0)
    # Tokens share a mean, so that some latents are active far more often than others.
    x = torch.randn(TOKENS, d_in, generator=generator, device=DEVICE)
    x += torch.randn(d_in, generator=generator, device=DEVICE) / 2
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=k, seed=0).to(DEVICE)
    config = SAEConfig(
        architecture="topk",
        expansion=d_sae // d_in,
        k=k,
        encoder_bias=False,
        training_tokens=0,
        batch_size=TOKENS,
        lr=3e-4,
        dead_after=10**9,
    )

    with mock.patch.object(sparse_cuda, "tf32", nullcontext):
        exact = gradient_error(sae, config, x, tolerance=1e-5)
    rounded = gradient_error(sae, config, x, tolerance=1e-2)

    ours = Trainer(replace(sae, W_dec=sae.W_dec.clone(), b_dec=sae.b_dec.clone()), config)
    dense = Autograd(sae, config.lr, dense_decode)
    bag = Autograd(sae, config.lr, bag_decode)
    sparsify = sparsify_step(sae, config.lr)
    pre = x.new_empty(TOKENS, d_sae)

    def in_tf32(call: Callable[..., object], *arguments: Tensor, **more: Tensor) -> None:
        with sparse_cuda.tf32():
            call(*arguments, **more)

    candidates: dict[str, Callable[[], object]] = {
        "ours": lambda: ours.step(x),
        "dense": lambda: dense.step(x),
        "dense TF32": lambda: in_tf32(dense.step, x),
        "embedding_bag TF32": lambda: in_tf32(bag.step, x),
        "encoder": lambda: torch.mm(x, sae.W_enc, out=pre),
        "encoder TF32": lambda: in_tf32(torch.mm, x, sae.W_enc, out=pre),
    }
    if sparsify is not None:
        candidates["sparsify"] = lambda: sparsify(x)
    ms = milliseconds(candidates)
    ours_ms, peers = ms["ours"], ("dense", "dense TF32", "embedding_bag TF32", "sparsify")
    return (
        {"d_in": d_in, "d_sae": d_sae, "k": k, "gradient error": exact, "with TF32": rounded}
        | {"ours, ms": ours_ms, "tokens/s": round(TOKENS / ours_ms * 1e3)}
        | {f"{name}, ms": ms.get(name, "-") for name in (*peers, "encoder", "encoder TF32")}
        | {f"{name} / ours": ms[name] / ours_ms if name in ms else "-" for name in peers}
        | {"ours / encoder TF32": ours_ms / ms["encoder TF32"]}
    )


def main() -> None:
    if not torch.cuda.is_available():
        sys.exit("benchmarks/cuda_step.py needs a CUDA device, and torch finds none here.")
    device = torch.cuda.get_device_name()
    write_table("cuda_step", [{"device": device} | measure(*shape) for shape in SHAPES])


if __name__ == "__main__":
    main()
