"""One training step: ours against SAELens, EleutherAI's sparsify and dense autograd.

    make peers
    .venv-peers/bin/python benchmarks/training_step.py

Float32, CPU time of one thread, all taking turns in one process: about ten minutes. SAELens takes
its whole `SAETrainer.step` at its defaults, sparsify its `embedding_bag` decoder and Adam in the
order of calls of its `fit`; it has no BatchTopK. The encoder product, by `torch.mm`, is the least
that torch's own matmul allows; ours takes it from oneDNN, which is faster on AMD. The last columns
are what a step with a tenth of the latents dead costs more: the auxiliary loss.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from timing import Number, interleaved, one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from sae_lens.config import SAETrainerConfig
from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.training.sae_trainer import SAETrainer
from sparsify import SparseCoder, SparseCoderConfig
from torch import Tensor

from faithful_sae.sae import SAE
from faithful_sae.trainer import SAEConfig, Trainer

SHAPES = [  # d_in, d_sae, k, tokens; the last is the default study's
    (256, 4096, 32, 2048),
    (576, 9216, 32, 2048),
    (768, 12288, 32, 2048),
    (576, 1152, 24, 512),
]
LONG = 10**9  # tokens; nothing that is not set dead becomes so
Step = Callable[[Tensor], object]


def ours(architecture: str, d_in: int, d_sae: int, k: int, n: int, dead: int = 0) -> Step:
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=k, seed=0)
    sae.W_enc[:, :dead] *= 1e-3  # too weak to be chosen
    config = SAEConfig(
        architecture=architecture,
        expansion=d_sae // d_in,
        k=k,
        encoder_bias=False,
        training_tokens=0,
        batch_size=n,
        lr=3e-4,
        dead_after=LONG,
    )
    trainer = Trainer(sae, config)
    trainer.tokens_since_fired[:dead] = LONG
    return trainer.step


def sae_lens(architecture: str, d_in: int, d_sae: int, k: int, n: int, dead: int = 0) -> Step:
    sizes = {"d_in": d_in, "d_sae": d_sae, "k": k, "device": "cpu"}
    sae = (
        TopKTrainingSAE(TopKTrainingSAEConfig(**sizes))
        if architecture == "topk"
        else BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**sizes))
    )
    with torch.no_grad():
        sae.W_enc[:, :dead] *= 1e-3
    config = SAETrainerConfig(
        total_training_samples=LONG,
        train_batch_size_samples=n,
        dead_feature_window=LONG,
        lr_end=3e-5,
    )
    trainer = SAETrainer(config, sae, iter(()))
    trainer.n_forward_passes_since_fired[:dead] = 2 * LONG

    def step(x: Tensor) -> None:
        trainer.step(x)
        trainer.n_training_steps += 1

    return step


def sparsify(d_in: int, d_sae: int, k: int, dead: int = 0) -> Step:
    coder = SparseCoder(d_in, SparseCoderConfig(num_latents=d_sae, k=k), "cpu", dtype=torch.float32)
    with torch.no_grad():
        coder.encoder.weight[:dead] *= 1e-3
    optimizer = torch.optim.Adam(coder.parameters(), lr=3e-4)
    tokens_since_fired = torch.zeros(d_sae, dtype=torch.long)
    tokens_since_fired[:dead] = 2 * LONG
    fired = torch.zeros(d_sae, dtype=torch.bool)

    def step(x: Tensor) -> None:
        coder.set_decoder_norm_to_unit_norm()
        mask = tokens_since_fired > LONG if dead else None
        out = coder(x=x, y=x, dead_mask=mask)
        fired[out.latent_indices.flatten()] = True
        (out.fvu + out.auxk_loss / 32).backward()
        coder.remove_gradient_parallel_to_decoder_directions()
        optimizer.step()
        optimizer.zero_grad()
        tokens_since_fired.add_(len(x))[fired] = 0
        fired.zero_()

    return step


def dense(d_in: int, d_sae: int, k: int) -> Step:
    """The same TopK step by dense products, autograd and stock Adam."""
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=k, seed=0)
    W_enc, W_dec, b_dec = weights = [t.requires_grad_() for t in (sae.W_enc, sae.W_dec, sae.b_dec)]
    optimizer = torch.optim.Adam(weights, lr=3e-4)

    def step(x: Tensor) -> None:
        latents = ((x - b_dec) @ W_enc).relu()
        values, indices = latents.topk(k, dim=1)
        latents = torch.zeros_like(latents).scatter(1, indices, values)
        loss = (latents @ W_dec + b_dec - x).square().sum() / len(x)
        optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            optimizer.step()
            W_dec.div_(W_dec.norm(dim=1, keepdim=True))

    return step


def measure(architecture: str, d_in: int, d_sae: int, k: int, n: int) -> dict[str, Number]:
    torch.manual_seed(0)
    x, dead = torch.randn(n, d_in), d_sae // 10
    size = (d_in, d_sae, k)
    W_enc, product = torch.randn(d_in, d_sae), torch.empty(n, d_sae)
    steps: dict[str, Step] = {
        "ours": ours(architecture, *size, n),
        "sae-lens": sae_lens(architecture, *size, n),
        "encoder product": lambda x: torch.mm(x, W_enc, out=product),
        "ours, dead": ours(architecture, *size, n, dead),
    }
    if architecture == "topk":
        steps |= {
            "sparsify": sparsify(*size),
            "dense": dense(*size),
            "sae-lens, dead": sae_lens(architecture, *size, n, dead),
            "sparsify, dead": sparsify(*size, dead),
        }
    ms = {
        name: 1000 * seconds
        for name, seconds in interleaved(
            {name: lambda step=step: step(x) for name, step in steps.items()}
        ).items()
    }

    def ratio(a: str, b: str) -> Number:
        return ms[a] / ms[b] if a in ms and b in ms else "-"

    def more(name: str) -> str:
        dead = f"{name}, dead"
        return f"{ms[dead] / ms[name] - 1:+.0%}" if dead in ms else "-"

    return {
        "architecture": architecture,
        "d_in": d_in,
        "d_sae": d_sae,
        "k": k,
        "tokens": n,
        "ours ms": ms["ours"],
        "sae-lens ms": ms["sae-lens"],
        "sparsify ms": ms.get("sparsify", "-"),
        "dense autograd ms": ms.get("dense", "-"),
        "encoder product ms": ms["encoder product"],
        "sae-lens / ours": ratio("sae-lens", "ours"),
        "sparsify / ours": ratio("sparsify", "ours"),
        "ours / product": ratio("ours", "encoder product"),
        "10 % dead: ours": more("ours"),
        "sae-lens dead": more("sae-lens"),
        "sparsify dead": more("sparsify"),
    }


def main() -> None:
    torch.set_num_threads(1)
    rows = [measure(name, *shape) for name in ("topk", "batch_topk") for shape in SHAPES]
    write_table("training_step", rows)


if __name__ == "__main__":
    main()
