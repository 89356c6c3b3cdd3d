"""Sparse products equal their dense counterparts."""

import torch
from dense_sae import keep_largest, keep_largest_of_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae import sparse

quick = settings(max_examples=40, deadline=None)


@st.composite
def problems(draw):
    """(x, W_enc_rows, b_enc, k) in float64; ties have probability zero."""
    n, d_in, d_sae = (draw(st.integers(1, most)) for most in (12, 6, 10))
    k = draw(st.integers(1, d_sae))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    x, W, b = (
        torch.randn(shape, generator=generator, dtype=torch.float64)
        for shape in [(n, d_in), (d_sae, d_in), (d_sae,)]
    )
    return x, W, b - draw(st.sampled_from([0.0, 1.5])), k  # with -1.5 many tokens are silent


def dense(active: sparse.Active, n: int, d_sae: int) -> torch.Tensor:
    """The latents [n, d_sae] that the pairs stand for."""
    latents = torch.zeros(n, d_sae, dtype=torch.float64)
    ends = [*active.offsets[1:].tolist(), len(active.latents)]
    for token, (first, end) in enumerate(zip(active.offsets.tolist(), ends, strict=True)):
        for pair in range(first, end):
            latents[token, active.latents[pair]] += active.values[pair]
    return latents


@quick
@given(problem=problems(), tile=st.integers(1, 13))
def test_top_k_is_the_dense_top_k_whatever_the_tile(problem, tile):
    x, W, b, k = problem
    whole, sparse.TILE = sparse.TILE, tile
    try:
        active = sparse.top_k(x, W, b, k)
    finally:
        sparse.TILE = whole
    torch.testing.assert_close(dense(active, len(x), len(W)), keep_largest(x @ W.T + b, k))
    assert len(active.latents) == len(x) * k


@quick
@given(problem=problems())
def test_batch_top_k_is_the_dense_batch_top_k(problem):
    x, W, b, k = problem
    active = sparse.batch_top_k(x, W, b, k)
    expected = keep_largest_of_batch(x @ W.T + b, k)
    torch.testing.assert_close(dense(active, len(x), len(W)), expected)
    assert len(active.latents) == len(x) * k


@quick
@given(problem=problems(), select=st.sampled_from([sparse.top_k, sparse.batch_top_k]))
def test_decode_and_its_gradient_are_the_dense_ones(problem, select):
    x, W, b, k = problem
    active = select(x, W, b, k)
    active.values.requires_grad_()
    latents = dense(active, len(x), len(W)).detach().requires_grad_()
    decoded = sparse.decode(active, W)
    torch.testing.assert_close(decoded, latents @ W)
    towards = torch.cos(torch.arange(decoded.numel(), dtype=torch.float64)).view_as(decoded)
    (found,) = torch.autograd.grad(decoded, active.values, towards)
    (expected,) = torch.autograd.grad(latents @ W, latents, towards)
    torch.testing.assert_close(found, expected[active.tokens(), active.latents])


@quick
@given(problem=problems(), select=st.sampled_from([sparse.top_k, sparse.batch_top_k]))
def test_transpose_times_is_the_dense_product_and_overwrites(problem, select):
    x, W, b, k = problem
    active = select(x, W, b, k)
    out = torch.full_like(W, 7.0)  # a stale gradient
    sparse.transpose(active, len(W)).times(active.values, x, out=out)
    torch.testing.assert_close(out, dense(active, len(x), len(W)).T @ x)


def test_tokens_number_the_pairs_by_token_even_where_a_token_has_none():
    active = sparse.Active(
        latents=torch.tensor([4, 1, 1]),
        values=torch.ones(3),
        offsets=torch.tensor([0, 0, 2, 3]),  # token 0 and token 3 have no pair
    )
    assert active.tokens().tolist() == [1, 1, 2]
