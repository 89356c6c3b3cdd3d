"""Open SAEs in SAELens and compare its outputs with ours, run by hand in an environment of its own.

    python -m venv ../saelens
    ../saelens/bin/pip install sae-lens==6.54.12 torch==2.13.0
    ../saelens/bin/python tests/check_saelens.py results/demo/smollm2/*/resid_pre.20/topk/seed*

Prints the largest difference of latents and, relative to their norm, of reconstructions; exits
with 1 when one exceeds 1e-5.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from faithful_sae.sae import SAE as Ours


def main(folders: list[str]) -> int:
    from sae_lens import SAE as Theirs

    worst = 0.0
    for folder in folders:
        ours, theirs = Ours.load(Path(folder)), Theirs.load_from_disk(folder)
        generator = torch.Generator().manual_seed(0)
        x = ours.b_dec + 10 * torch.randn(512, ours.d_in, generator=generator)
        with torch.no_grad():
            latents = (theirs.encode(x) - ours.encode(x)).abs().max() / ours.encode(x).max()
            x_hat = (theirs(x) - ours(x)).norm() / ours(x).norm()
        worst = max(worst, float(latents), float(x_hat))
        sys.stdout.write(f"{folder}: latents {latents:.1e}, reconstruction {x_hat:.1e}\n")
    return int(worst > 1e-5)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
