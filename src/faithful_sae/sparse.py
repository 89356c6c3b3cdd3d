"""Sparse products of SAE training: after the encoder product, everything costs O(k) per token.

Only k of d_sae latents are active on a token, so the decoder, both weight gradients and the
gradient of the latents need only the active (token, latent) pairs: a fifth of the time of a dense
step (benchmarks/README.md). Encoder weights are held as rows, W_enc.T [d_sae, d_in], here.
"""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

# torch says once a process that CSR is in beta; a user can do nothing about it.
warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")

TILE = 512  # tokens whose pre-activations are held at once: a tile is cut to its top k and reused


class Active(NamedTuple):
    """The active pairs of a batch of n tokens, ordered by token.

    latents: [pairs] latent numbers; values: [pairs] activations, >= 0; offsets: [n] where each
    token's pairs begin.
    """

    latents: Tensor
    values: Tensor
    offsets: Tensor

    def tokens(self) -> Tensor:
        """The token number of each pair, [pairs]."""
        ends = torch.cat([self.offsets[1:], self.offsets.new_tensor([len(self.latents)])])
        numbers = torch.arange(len(self.offsets), device=self.offsets.device)
        return numbers.repeat_interleave(ends - self.offsets)


def top_k(x: Tensor, W_enc_rows: Tensor, b_enc: Tensor, k: int) -> Active:
    """The k largest ReLU pre-activations of each token; x [n, d_in] is already centred."""
    n, d_sae = len(x), len(W_enc_rows)
    values, latents = x.new_empty(n, k), torch.empty(n, k, dtype=torch.long, device=x.device)
    tile = x.new_empty(min(TILE, n), d_sae)
    for first in range(0, n, TILE):
        rows = slice(first, min(first + TILE, n))
        pre = torch.addmm(b_enc, x[rows], W_enc_rows.T, out=tile[: rows.stop - first])
        values[rows], latents[rows] = pre.topk(k, dim=1, sorted=False)
    offsets = torch.arange(0, n * k, k, device=x.device)
    return Active(latents.view(-1), values.view(-1).relu_(), offsets)


def batch_top_k(x: Tensor, W_enc_rows: Tensor, b_enc: Tensor, k: int) -> Active:
    """The k * n largest ReLU pre-activations of the whole batch of n tokens; x is centred."""
    n, d_sae = len(x), len(W_enc_rows)
    pre = torch.addmm(b_enc, x, W_enc_rows.T).relu_()
    pairs = pre.view(-1).topk(n * k, sorted=False).indices.sort().values
    tokens = pairs // d_sae
    offsets = torch.searchsorted(tokens, torch.arange(n, device=x.device))
    return Active(pairs % d_sae, pre.view(-1)[pairs], offsets)


def decode(active: Active, W_dec: Tensor) -> Tensor:
    """latents @ W_dec, [n, d_in], from the active pairs; differentiable in the values alone."""
    return embedding_bag(
        active.latents, W_dec, active.offsets, per_sample_weights=active.values, mode="sum"
    )


class Transposed(NamedTuple):
    """The pattern of active pairs ordered by latent: sorted once, used by both weight gradients."""

    order: Tensor
    rows: Tensor  # [d_sae + 1] where each latent's pairs begin
    tokens: Tensor  # [pairs] token of each pair, by latent

    def times(self, values: Tensor, dense: Tensor, out: Tensor) -> None:
        """out [d_sae, d] = A.T @ dense [n, d], where A [n, d_sae] has `values` at the pairs."""
        matrix = torch.sparse_csr_tensor(
            self.rows,
            self.tokens,
            values[self.order],
            (len(self.rows) - 1, len(dense)),
            check_invariants=False,
        )
        torch.addmm(out, matrix, dense, beta=0, out=out)


def transpose(active: Active, d_sae: int) -> Transposed:
    """The pattern of `active`, ordered by latent."""
    order = torch.argsort(active.latents, stable=True)
    rows = active.latents.new_zeros(d_sae + 1)
    torch.cumsum(torch.bincount(active.latents, minlength=d_sae), 0, out=rows[1:])
    # 32-bit indices are faster, and no batch has 2^31 pairs.
    return Transposed(order, rows.int(), active.tokens()[order].int())
