"""Agreement of two SAEs by what they do on the same tokens, whatever their weights look like.

Latents are sparse, [tokens, d_sae] with k of them active, so that pairs of latents active on the
same token, tokens * k^2 of them, are all that is multiplied.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from faithful_sae.matching import best_assignment

CONSTANT = 1e-12  # variance over mean square below which only rounding varies
ROWS = 256  # latents whose products are held sparse at once: on many tokens hardly any is zero


def correlations(a: sparse.csr_array, b: sparse.csr_array) -> Tensor:
    """Pearson correlation of each latent of a with each of b over tokens, [n_a, n_b] float32.

    r_ij = sum_t (a_ti - mean_i)(b_tj - mean_j) / (T sd_i sd_j); 0 where a latent does not vary, as
    dead ones do not.

    a, b: [T, n] latents of the same tokens.  Raises ValueError for different tokens.
    """
    scale_a, scale_b = (_inverse_norm(latents) for latents in (a, b))
    return centred_products(a, b).mul_(scale_a[:, None]).mul_(scale_b).float()


def centred_products(a: sparse.csr_array, b: sparse.csr_array) -> Tensor:
    """sum_t (a_ti - mean_i)(b_tj - mean_j) of all latents i of a, j of b, [n_a, n_b] float64.

    Memory: one matrix of that size.
    a, b: [T, n] latents of the same tokens.  Raises ValueError for different tokens.
    """
    tokens = a.shape[0]
    if tokens != b.shape[0]:
        raise ValueError(
            f"latents of {tokens} and {b.shape[0]} tokens: encode the same tokens with both"
        )
    # float64: of latents that are seldom silent, the means take nearly all away.
    a, b = a.astype(np.float64), b.astype(np.float64)
    mean_a, mean_b = torch.from_numpy(a.mean(0)), torch.from_numpy(b.mean(0))
    by_latent = a.T.tocsr()
    products = torch.empty(a.shape[1], b.shape[1], dtype=torch.float64)
    for start in range(0, len(products), ROWS):
        some = slice(start, start + ROWS)
        products[some] = torch.from_numpy((by_latent[some] @ b).toarray())
    products.addr_(mean_a, mean_b, alpha=-tokens)
    return products


def _inverse_norm(latents: sparse.csr_array) -> Tensor:
    """1 / (sqrt(T) sd) of each latent, [n] float64; 0 where it does not vary."""
    values = latents.astype(np.float64)
    squares, mean = (torch.from_numpy(x.mean(0)) for x in (values.power(2), values))
    variance = squares - mean**2
    variance[variance <= CONSTANT * squares] = torch.inf
    return torch.rsqrt(latents.shape[0] * variance)


def matched_correlations(correlation: Tensor) -> Tensor:
    """Correlations [min(n, m)] of the one-to-one pairs that maximise their total, exact.

    correlation: [n, m] of the latents that take part.
    """
    n, m = correlation.shape
    smaller = correlation if n <= m else correlation.T.contiguous()
    partner, _ = best_assignment(smaller)
    return smaller[torch.arange(len(smaller)), partner]


def shifted(latents: sparse.csr_array) -> sparse.csr_array:
    """The same latents with the tokens moved round by half their number.

    A null for what two SAEs do on the same tokens (a circular shift, after Lan et al. 2024): every
    latent keeps how often, how strongly and in what runs it fires, and only the tokens are others.
    """
    half = latents.shape[0] // 2
    return sparse.csr_array(sparse.vstack([latents[half:], latents[:half]]))


def contribution_cka(
    latents_a: sparse.csr_array, W_dec_a: Tensor, latents_b: sparse.csr_array, W_dec_b: Tensor
) -> float:
    """Do two groups of latents, each taken as a whole, write the same into the reconstruction?

    Linear CKA (Kornblith et al. 2019) of the contributions X = latents @ W_dec [tokens, d_in], each
    centred over tokens: `||X_a^T X_b||_F^2 / (||X_a^T X_a||_F ||X_b^T X_b||_F)`, between 0 and 1.

    It needs no pairs, so it can tell latents that differ because one content was cut up differently
    (high) from latents that write something else (low); the question of Gerasimov et al. 2026. What
    it cannot say:

    - It is 1 if and only if the contributions agree up to a rotation of the residual stream and a
      factor. It does not change when latents are exchanged, split or turned within the space they
      span as long as their sum stays the same on every token; if the turn changes the sum (other
      activations for other directions), it falls, though the space spanned is the same.
    - Directions count by their variance squared: a few large ones decide it.
    - Two SAEs that rebuild the same x and agree in one group must agree in the rest: compare the
      unmatched latents with the matched ones and with shifted tokens, not with 0. On fewer tokens
      than d_in it is large by chance.

    latents: [tokens, n] of the same tokens.  W_dec: [n, d_in].  NaN when a group is empty or writes
    a constant.
    """
    between = _products_of_contributions(latents_a, W_dec_a, latents_b, W_dec_b)
    size_a, size_b = (
        _products_of_contributions(x, W_dec, x, W_dec).norm()
        for x, W_dec in ((latents_a, W_dec_a), (latents_b, W_dec_b))
    )
    return float(between.square().sum() / (size_a * size_b))


def _products_of_contributions(
    latents_a: sparse.csr_array, W_dec_a: Tensor, latents_b: sparse.csr_array, W_dec_b: Tensor
) -> Tensor:
    """X_a^T X_b [d_in, d_in] float64, without the contributions [tokens, d_in] themselves."""
    return (W_dec_a.T @ centred_products(latents_a, latents_b).float() @ W_dec_b).double()
