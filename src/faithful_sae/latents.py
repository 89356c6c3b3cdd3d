"""Latents of held-out tokens, kept sparse: an SAE is encoded once for all that is read off it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from faithful_sae.heldout import Heldout
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

# Dense latents of one batch of tokens are the largest thing in memory: 4 * d_sae bytes a token.
TOKENS_PER_BATCH = 1024


@dataclass(frozen=True)
class Encoded:
    """An SAE and what it makes of held-out tokens.

    latents: [tokens, d_sae] float32 CSR, tokens in file order; 8 bytes for each active latent.
    """

    sae: SAE
    latents: sparse.csr_array

    @cached_property
    def frequency(self) -> Tensor:
        """Share of the tokens on which each latent fires, [d_sae] float64."""
        tokens, d_sae = self.latents.shape
        counts = np.bincount(self.latents.indices, minlength=d_sae)
        return torch.from_numpy(counts / tokens)

    @property
    def alive(self) -> Tensor:
        """Latents [d_sae] bool that fire at least once."""
        return self.frequency > 0


def encode(sae: SAE, heldout: Shards | Heldout) -> Encoded:
    """The SAE with its latents on the tokens that the shards' positions policy keeps."""
    parts = [
        sparse.csr_array(sae.encode(x).numpy())
        for batch in heldout.batches()
        for x in torch.split(batch, TOKENS_PER_BATCH)
    ]
    return Encoded(sae, sparse.csr_array(sparse.vstack(parts)))
