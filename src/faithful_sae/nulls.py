"""Dictionaries that share nothing but the covariance of the activations."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from faithful_sae.matching import match


def covariance_null(covariance: Tensor, n: int, seed: int) -> Tensor:
    """Matched cosines [n] of two dictionaries that share nothing but the activations' covariance.

    Two independent sets of n rows from N(0, covariance) are matched like decoders: what anisotropy
    alone yields.

    covariance: [d, d], centred.  Raises ValueError when it is not symmetric positive semi-definite.
    """
    matrix = covariance.double().cpu()
    values = torch.linalg.eigvalsh(matrix)
    if not torch.allclose(matrix, matrix.T) or values[0] < -1e-6 * values[-1]:
        raise ValueError(
            "the covariance is not symmetric positive semi-definite: "
            "build it with activation_covariance"
        )
    generator = torch.Generator().manual_seed(seed)
    # Cosines do not change with the axes, so rows are drawn along the eigenvectors; rounding leaves
    # eigenvalues a little below zero where the covariance is singular.
    deviations = values.clamp(min=0).sqrt()
    a, b = (
        torch.randn(n, len(matrix), dtype=torch.float64, generator=generator) * deviations
        for _ in range(2)
    )
    return match(a, b).cosine


def activation_covariance(batches: Iterable[Tensor]) -> Tensor:
    """Covariance of activations about their per-dimension mean, [d, d] float64.

    sum_t (x_t - mean)(x_t - mean)^T / (tokens - 1), in one pass over batches [n, d].
    Raises ValueError for fewer than two tokens.
    """
    tokens = 0
    origin = total = products = torch.zeros(())
    for batch in batches:
        rows = batch.double()
        if tokens == 0:
            # Sums about a rough mean: about zero, a large mean would cancel the variance away.
            origin = rows.mean(0)
            total, products = torch.zeros_like(origin), torch.zeros_like(rows.T @ rows)
        rows = rows - origin
        tokens += len(rows)
        total = total + rows.sum(0)
        products += rows.T @ rows
    if tokens < 2:
        raise ValueError(f"a covariance needs at least 2 tokens, found {tokens}: extract more")
    return (products - torch.outer(total, total) / tokens) / (tokens - 1)
