"""Sparse products equal their dense counterparts."""

from unittest import mock

import pytest
import torch
from dense_sae import keep_largest, keep_largest_of_batch
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae import sparse

quick = settings(max_examples=40)


@st.composite
def problems(draw):
    """(x, W_enc_rows, b_enc, k) in float64; ties have probability zero."""
    n, d_in = (draw(st.integers(1, most)) for most in (12, 6))
    d_sae = draw(st.integers(1, 10) | st.sampled_from([16, 24, 64]))  # wide enough for groups
    k = draw(st.integers(1, min(d_sae, 10)))
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


@pytest.mark.parametrize(
    ("select", "keep"),
    [(sparse.top_k, keep_largest), (sparse.batch_top_k, keep_largest_of_batch)],
)
@quick
@given(problem=problems(), tile=st.integers(1, 13))
def test_the_largest_are_the_dense_ones_whatever_the_tile(select, keep, problem, tile):
    x, W, b, k = problem
    with mock.patch.dict(sparse.TILE, {"cpu": tile}):
        active = select(x, W, b, k)
    torch.testing.assert_close(dense(active, len(x), len(W)), keep(x @ W.T + b, k))
    assert len(active.latents) == len(x) * k
    assert (active.tokens().diff() >= 0).all()
    pairs = active.tokens() * len(W) + active.latents
    assert len(pairs.unique()) == len(pairs)


@pytest.mark.parametrize("select", [sparse.top_k, sparse.batch_top_k])
@pytest.mark.parametrize("bias", [1.0, 0.0, -1.0])
def test_of_equal_values_k_per_token_are_taken_and_none_twice(select, bias):
    x, W, k = torch.zeros(6, 3), torch.ones(64, 3), 2
    with mock.patch.dict(sparse.TILE, {"cpu": 4}):
        active = select(x, W, torch.full((64,), bias), k)
    assert active.values.tolist() == [max(bias, 0.0)] * 12
    assert len((active.tokens() * 64 + active.latents).unique()) == 12


@quick
@given(problem=problems(), select=st.sampled_from([sparse.top_k, sparse.batch_top_k]))
def test_decode_and_pair_products_are_the_dense_products(problem, select):
    x, W, b, k = problem
    active = select(x, W, b, k)
    torch.testing.assert_close(sparse.decode(active, W), dense(active, len(x), len(W)) @ W)
    expected = (x @ W.T)[active.tokens(), active.latents]
    torch.testing.assert_close(sparse.pair_products(active, x, W), expected)


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


def test_pair_products_by_hand_where_a_token_has_no_pair():
    active = sparse.Active(
        latents=torch.tensor([1, 0, 1]), values=torch.ones(3), offsets=torch.tensor([0, 1, 1])
    )
    tokens = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.0, 2.0]])
    W = torch.tensor([[3.0, 4.0], [6.0, 7.0]])
    assert sparse.pair_products(active, tokens, W).tolist() == [6.0, 8.0, 14.0]
