"""Held-out activations by which it is decided which latents of an SAE are alive, or dense."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from faithful_sae.shards import Shards


@dataclass(frozen=True)
class Heldout:
    """Held-out activations of one corpus after the other.

    A trained SAE has one, its own corpus. What a pretrained one was trained on is not here: it has
    every corpus of its model, equally many tokens of each. The positions policy, which compares
    norms, is applied to each corpus by itself.
    """

    corpora: Sequence[Shards]

    def batches(self) -> Iterator[Tensor]:
        """Kept activations in file order, [n, d_in] float32."""
        for shards in self.corpora:
            yield from shards.batches()
