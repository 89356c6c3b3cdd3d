"""What a direction of the residual stream does to the model's next-token predictions by itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from faithful_sae.models import blocks

EFFECTS = 8  # tokens that a latent promotes most, and as many that it suppresses most


@torch.inference_mode()
def logit_effects(model: Any, directions: Tensor) -> Tensor:
    """What each direction adds to the logits, [n, vocab]; directions [n, d_in] of unit norm.

    unembed(norm(d)) - unembed(norm(0)), less its mean over the vocabulary, which no probability
    depends on: the direction read as if it were the whole residual stream (logit lens). A norm's
    divisor is one positive number for a direction, so tokens are ordered as by d * gain @ W_U, the
    usual direct effect (Bloom & Lin 2024), LayerNorm's centring included; where blocks lie between
    the hook and the last one, what they make of the direction is left out.
    """
    norm, unembed = final_norm(model), model.get_output_embeddings()
    d = directions.to(model.device)
    effect: Tensor = (unembed(norm(d)) - unembed(norm(torch.zeros_like(d[:1])))).float()
    return (effect - effect.mean(dim=1, keepdim=True)).cpu()


def final_norm(model: Any) -> nn.Module:
    """The norm between the last block and the unembedding; the identity where there is none."""
    inside = set(blocks(model).modules())
    norms = [
        module
        for module in model.get_decoder().modules()
        if module not in inside and getattr(getattr(module, "weight", None), "ndim", 0) == 1
    ]
    return norms[-1] if norms else nn.Identity()


def strongest_effects(effects: Tensor, latents: NDArray[np.int64]) -> pl.DataFrame:
    """The EFFECTS tokens that each latent promotes most, and as many that it suppresses most.

    Columns latent, effect ("promoted" or "suppressed"), rank (0 strongest), token (id), value.
    """
    n = min(EFFECTS, effects.shape[1])
    frames = []
    for name, sign in (("promoted", 1), ("suppressed", -1)):
        value, token = (sign * effects).topk(n, dim=1)
        frames.append(
            pl.DataFrame(
                {
                    "latent": np.repeat(latents, n),
                    "effect": [name] * token.numel(),
                    "rank": np.tile(np.arange(n), len(latents)),
                    "token": token.flatten().numpy(),
                    "value": (sign * value).flatten().numpy(),
                }
            )
        )
    return pl.concat(frames)
