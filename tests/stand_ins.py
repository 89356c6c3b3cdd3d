"""What stands in for an SAE where its reconstruction has to be known."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor


@dataclass
class StandIn:
    """An "SAE" whose latents are the activations, rebuilt by any function of them."""

    rebuild: Callable[[Tensor], Tensor]
    d_in: int = 16
    d_sae: int = 16

    def encode(self, x: Tensor) -> Tensor:
        return x

    def decode(self, latents: Tensor) -> Tensor:
        return self.rebuild(latents)

    def __call__(self, x: Tensor) -> Tensor:
        return self.rebuild(x)

    def to(self, device: torch.device) -> Self:
        return self


IDENTITY = StandIn(lambda x: x.clone())
ZERO = StandIn(torch.zeros_like)


def constant(value: Tensor) -> StandIn:
    return StandIn(lambda x: value.to(x).expand_as(x))
