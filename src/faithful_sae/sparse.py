"""Sparse products of SAE training: after the encoder product, everything costs O(k) per token.

Only k of d_sae latents are active on a token, so the decoder, both weight gradients and the
gradient of the latents need only the active (token, latent) pairs: a sixth of the time of a dense
step (benchmarks/README.md). On CUDA `sparse_cuda` does the sparse products, TF32 the encoder's.
Encoder weights are held as rows, W_enc.T [d_sae, d_in], here.
"""

import warnings
from collections.abc import Iterator
from types import ModuleType
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, pad

from faithful_sae.linear import linear

# torch says once a process that CSR is in beta; a user can do nothing about it.
warnings.filterwarnings("ignore", message="Sparse (CSR tensor support|invariant checks)")

# Tokens whose pre-activations are held at once: a tile is cut to its top k and freed.
TILE = {"cpu": 512, "cuda": 8192}
GROUP = 4  # latents that share a maximum while the largest are sought


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
        numbers = torch.arange(len(self.offsets), device=self.offsets.device)
        # Without its size, the result would make the host wait for a GPU.
        return numbers.repeat_interleave(self.bounds().diff(), output_size=len(self.latents))

    def bounds(self) -> Tensor:
        """Where each token's pairs begin, and the last one's end, [n + 1]."""
        return pad(self.offsets, (0, 1), value=len(self.latents))


def top_k(x: Tensor, W_enc_rows: Tensor, b_enc: Tensor, k: int) -> Active:
    """The k largest ReLU pre-activations of each token; x [n, d_in] is already centred."""
    n = len(x)
    values, latents = x.new_empty(n, k), torch.empty(n, k, dtype=torch.long, device=x.device)
    for first, pre in _tiles(x, W_enc_rows, b_enc):
        rows = slice(first, first + len(pre))
        values[rows], latents[rows] = _largest(pre, k)
    offsets = torch.arange(0, n * k, k, device=x.device)
    return Active(latents.view(-1), values.view(-1).relu_(), offsets)


def batch_top_k(x: Tensor, W_enc_rows: Tensor, b_enc: Tensor, k: int) -> Active:
    """The k * n largest ReLU pre-activations of the whole batch of n tokens; x is centred.

    Every tile adds what is not below `cut`, the k * n th largest value seen so far.
    """
    n, d_sae, wanted = len(x), len(W_enc_rows), k * len(x)
    values, pairs = x.new_empty(0), torch.empty(0, dtype=torch.long, device=x.device)
    cut = x.new_tensor(float("-inf"))
    for first, pre in _tiles(x, W_enc_rows, b_enc):
        groups = _group_maxima(pre)
        if len(values) < wanted <= groups.numel():  # as many different values reach this cut
            cut = torch.maximum(cut, groups.view(-1).topk(wanted, sorted=False).values.min())
        where = _at_least(pre, groups, cut)
        values = torch.cat([values, pre.view(-1)[where]])
        pairs = torch.cat([pairs, where + first * d_sae])
        if len(values) > wanted:
            values, kept = values.topk(wanted, sorted=False)
            pairs, cut = pairs[kept], values.min()
    pairs, order = pairs.sort()
    tokens = pairs // d_sae
    offsets = torch.searchsorted(tokens, torch.arange(n, device=x.device))
    return Active(pairs - tokens * d_sae, values[order].relu_(), offsets)


def decode(active: Active, W_dec: Tensor) -> Tensor:
    """latents @ W_dec, [n, d_in], from the active pairs."""
    if _on_cuda(W_dec):
        decoded: Tensor = _cuda().decode(*active, W_dec)
        return decoded
    return embedding_bag(
        active.latents, W_dec, active.offsets, per_sample_weights=active.values, mode="sum"
    )


def pair_products(active: Active, dense: Tensor, W: Tensor) -> Tensor:
    """dense[token] . W[latent] of each pair, [pairs]; dense [n, d], W [d_sae, d].

    With dense the gradient of the decoded tokens and W the decoder: the gradient of the values.
    """
    if _on_cuda(W):
        products: Tensor = _cuda().pair_products(active.latents, active.offsets, dense, W)
        return products
    matrix = _csr(active.bounds(), active.latents, active.values, (len(dense), len(W)))
    products = torch.sparse.sampled_addmm(matrix, dense, W.T, beta=0).values()
    return products


class Transposed(NamedTuple):
    """The pattern of active pairs ordered by latent: sorted once, used by both weight gradients."""

    order: Tensor
    rows: Tensor  # [d_sae + 1] where each latent's pairs begin
    tokens: Tensor  # [pairs] token of each pair, by latent

    def times(self, values: Tensor, dense: Tensor, out: Tensor) -> None:
        """out [d_sae, d] = A.T @ dense [n, d], where A [n, d_sae] has `values` at the pairs."""
        if _on_cuda(out):
            _cuda().transposed_times(self.rows, self.tokens, values[self.order], dense, out)
            return
        shape = (len(self.rows) - 1, len(dense))
        matrix = _csr(self.rows, self.tokens, values[self.order], shape)
        torch.addmm(out, matrix, dense, beta=0, out=out)


def transpose(active: Active, d_sae: int) -> Transposed:
    """The pattern of `active`, ordered by latent."""
    latents, order = torch.sort(active.latents.int(), stable=True)
    # Counting them with bincount would make the host wait for a GPU.
    numbers = torch.arange(d_sae + 1, dtype=latents.dtype, device=latents.device)
    rows = torch.searchsorted(latents, numbers, out_int32=True)
    return Transposed(order, rows, active.tokens().int()[order])


def _csr(rows: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    # 32-bit indices are faster, and no batch has 2^31 pairs.
    return torch.sparse_csr_tensor(rows.int(), columns.int(), values, shape, check_invariants=False)


def _on_cuda(x: Tensor) -> bool:
    return x.is_cuda


def _cuda() -> ModuleType:
    from faithful_sae import sparse_cuda  # needs triton, which torch brings along for CUDA alone

    return sparse_cuda


def _tiles(x: Tensor, W_enc_rows: Tensor, b_enc: Tensor) -> Iterator[tuple[int, Tensor]]:
    """(first token, pre-activations [tokens, d_sae]) of tile after tile."""
    tile = TILE[x.device.type]
    for first in range(0, len(x), tile):
        rows = x[first : first + tile]
        if _on_cuda(x):
            with _cuda().tf32():
                pre = linear(rows, W_enc_rows, b_enc)
        else:
            pre = linear(rows, W_enc_rows, b_enc)
        yield first, pre


def _largest(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of x [n, m] and their columns, both [n, k] and unordered.

    They lie in the k groups with the largest maxima, which are found in the same way.
    """
    m = x.shape[1]
    if m % GROUP or m < 2 * GROUP * k:
        values, columns = x.topk(k, dim=1, sorted=False)
        return values, columns
    groups = _largest(_group_maxima(x), k)[1]
    members = torch.arange(0, m, m // GROUP, device=x.device).unsqueeze(1)
    columns = (groups.unsqueeze(1) + members).flatten(1)
    values, kept = x.gather(1, columns).topk(k, dim=1, sorted=False)
    return values, columns.gather(1, kept)


def _group_maxima(x: Tensor) -> Tensor:
    """[n, m / GROUP] maxima of x [n, m]; group i has columns i, i + m / GROUP, ...: fast to reduce.

    x itself where GROUP does not divide m.
    """
    return x if x.shape[1] % GROUP else x.view(len(x), GROUP, -1).amax(1)


def _at_least(x: Tensor, groups: Tensor, cut: Tensor) -> Tensor:
    """Flat positions of the values of x [n, m] that are not below `cut`, given its group maxima."""
    m, width = x.shape[1], groups.shape[1]
    hits = (groups >= cut).view(-1).nonzero()
    members = torch.arange(0, m, width, device=x.device)
    where = (hits + hits // width * (m - width) + members).view(-1)
    return where[x.view(-1)[where] >= cut]
