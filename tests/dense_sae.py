"""One training step of an SAE as the papers write it: dense latents, gradients by autograd.

Slow and plain on purpose; `faithful_sae.trainer.Trainer` has to agree with it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Gradients:
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


def keep_largest(pre: Tensor, k: int) -> Tensor:
    """Each row's k largest values after ReLU, zero elsewhere."""
    cut = pre.sort(dim=1, descending=True).values[:, k - 1 : k]
    return torch.where(pre >= cut, pre, 0.0).relu()


def keep_largest_of_batch(pre: Tensor, k: int) -> Tensor:
    """The k * n largest values of the batch after ReLU, zero elsewhere."""
    return keep_largest(pre.reshape(1, -1), k * len(pre)).view_as(pre)


def loss_and_gradients(
    weights: Gradients,
    x: Tensor,
    *,
    architecture: str,
    k: int,
    dead: Tensor,
    auxiliary_k: int,
    auxiliary_weight: float,
) -> tuple[float, float, Tensor, Gradients]:
    """(squared error, auxiliary loss, latents, gradients of the loss per token)."""
    W_enc, b_enc, W_dec, b_dec = (
        t.detach().clone().requires_grad_()
        for t in (weights.W_enc, weights.b_enc, weights.W_dec, weights.b_dec)
    )
    keep = keep_largest if architecture == "topk" else keep_largest_of_batch
    latents = keep((x - b_dec) @ W_enc + b_enc, k)
    error = x - (latents @ W_dec + b_dec)
    loss = error.square().sum(1).mean()
    auxiliary = torch.zeros(())
    if dead.any():
        # The error and the input are constants of the auxiliary loss.
        pre = ((x - b_dec).detach() @ W_enc + b_enc)[:, dead]
        silent = keep_largest(pre, min(auxiliary_k, int(dead.sum())))
        auxiliary = (error.detach() - silent @ W_dec[dead]).square().sum(1).mean()
    (loss + auxiliary_weight * auxiliary).backward()
    gradients = Gradients(*(t.grad for t in (W_enc, b_enc, W_dec, b_dec)))
    return error.square().sum().item(), auxiliary.item(), latents.detach(), gradients


def without_component_along(rows: Tensor, gradient: Tensor) -> Tensor:
    """The gradient minus, row by row, its projection on the unit row."""
    return torch.stack([g - (g @ row) * row for g, row in zip(gradient, rows, strict=True)])
