"""One training step of a TopK SAE: sparse (ours) against dense autograd, and the encoder product.

    python benchmarks/training_step.py

Float32, 2048 tokens, one thread. The encoder product alone is the floor: every exact TopK step
needs it.
"""

import sys
from pathlib import Path

import torch
from timing import interleaved

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from faithful_sae.sae import SAE
from faithful_sae.train import SAEConfig, Trainer

TOKENS = 2048


class Dense:
    """The same step by dense products, autograd and stock Adam."""

    def __init__(self, sae: SAE, lr: float) -> None:
        self.W_enc, self.W_dec, self.b_dec = (
            t.clone().requires_grad_() for t in (sae.W_enc, sae.W_dec, sae.b_dec)
        )
        self.k = sae.k
        self.optimizer = torch.optim.Adam([self.W_enc, self.W_dec, self.b_dec], lr=lr)

    def step(self, x: torch.Tensor) -> None:
        latents = ((x - self.b_dec) @ self.W_enc).relu()
        values, indices = latents.topk(self.k, dim=1)
        latents = torch.zeros_like(latents).scatter(1, indices, values)
        loss = (latents @ self.W_dec + self.b_dec - x).square().sum() / len(x)
        self.optimizer.zero_grad()
        loss.backward()
        with torch.no_grad():
            gradient = self.W_dec.grad
            gradient -= (gradient * self.W_dec).sum(1, keepdim=True) * self.W_dec
            self.optimizer.step()
            self.W_dec /= self.W_dec.norm(dim=1, keepdim=True)


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"{'d_in':>5} {'d_sae':>6} {'k':>3} {'ours ms':>8} {'dense ms':>9} {'dense/ours':>11} "
        f"{'ours/encoder':>13}"
    )
    for d_in, d_sae, k in ((256, 4096, 32), (576, 9216, 32), (768, 12288, 32)):
        x = torch.randn(TOKENS, d_in, generator=torch.Generator().manual_seed(0))
        config = SAEConfig("topk", d_sae // d_in, k, False, 0, TOKENS, 3e-4, 10**9)
        sizes = {"d_in": d_in, "d_sae": d_sae, "k": k, "seed": 0}
        ours = Trainer(SAE.untrained(**sizes), config)
        dense = Dense(SAE.untrained(**sizes), config.lr)
        out = torch.empty(TOKENS, d_sae)
        W_enc = SAE.untrained(**sizes).W_enc
        t = interleaved(
            {
                "ours": lambda ours=ours, x=x: ours.step(x),
                "dense": lambda dense=dense, x=x: dense.step(x),
                "encoder": lambda x=x, W=W_enc, out=out: torch.mm(x, W, out=out),
            }
        )
        print(
            f"{d_in:5} {d_sae:6} {k:3} {t['ours'] * 1e3:8.0f} {t['dense'] * 1e3:9.0f} "
            f"{t['dense'] / t['ours']:11.1f} {t['ours'] / t['encoder']:13.2f}"
        )


if __name__ == "__main__":
    main()
