"""The sparse products of SAE training on CUDA: `faithful_sae.sparse` calls them there.

A program works on one tile of columns, and the tile is the slow axis of every grid: all programs of
one tile run before the next begins, so that the slice of the matrix whose rows they gather
([d_sae, COLUMNS]: 17 MB at d_sae = 16384) stays in the L2 cache, although the whole does not. Sums
are in float32 and in a fixed order (no atomics): equal inputs give these sums equal bits.

Not differentiable. All dense tensors are float32, of any strides; indices are int32 or int64.
"""

# Triton has no type stubs, and its compiler takes no annotation of a kernel but `tl.constexpr`.
# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator"
# mypy: disable-error-code="no-untyped-def, no-untyped-call"

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.nn.functional import pad

COLUMNS = 256  # of a row that one program reads: one float4 for each of 64 threads
PAIRS = 16  # rows that one program gathers at once, to have that many reads under way
PIECE = 256  # pairs that one program sums at most; a multiple of PAIRS


def decode(latents: Tensor, values: Tensor, offsets: Tensor, W_dec: Tensor) -> Tensor:
    """A @ W_dec, [n, d_in], where A [n, d_sae] has `values` at the active pairs.

    latents, values: [pairs], ordered by token; offsets: [n] where each token's pairs begin (a token
    may have none); W_dec: [d_sae, d_in].
    """
    bounds = pad(offsets, (0, 1), value=len(latents))
    out = W_dec.new_empty(len(offsets), W_dec.shape[1])
    _sum_rows(bounds, latents, values, W_dec, out)
    return out


def transposed_times(
    rows: Tensor, tokens: Tensor, values: Tensor, dense: Tensor, out: Tensor
) -> None:
    """out [d_sae, d] = A.T @ dense [n, d], where A [n, d_sae] has `values` at the active pairs.

    tokens, values: [pairs], ordered by latent; rows: [d_sae + 1] where each latent's pairs begin.
    """
    _sum_rows(rows, tokens, values, dense, out)


def pair_products(latents: Tensor, offsets: Tensor, dense: Tensor, W: Tensor) -> Tensor:
    """Dot product of each active pair's token row with its latent's row, [pairs].

    latents: [pairs], ordered by token; offsets: [n] where each token's pairs begin; dense: [n, d];
    W: [d_sae, d].
    """
    _require_float32(dense, W)
    pairs, d = len(latents), W.shape[1]
    numbers = torch.arange(pairs, device=offsets.device, dtype=offsets.dtype)
    tokens = torch.searchsorted(offsets, numbers, right=True) - 1
    tiles = triton.cdiv(d, COLUMNS)
    by_tile = W.new_empty(tiles, pairs)
    _pair_products[triton.cdiv(pairs, PAIRS), tiles](
        tokens,
        latents.contiguous(),
        dense,
        *dense.stride(),
        W,
        *W.stride(),
        by_tile,
        pairs,
        d,
        PAIRS,
        COLUMNS,
    )
    return by_tile.sum(0)


@contextmanager
def tf32() -> Iterator[None]:
    """float32 matrix products inside use TF32 tensor cores: 10-bit mantissas, float32 sums.

    For training alone; the precision found is restored. Code inside that reads the older switches
    (`allow_tf32`, `get_float32_matmul_precision`) meets a RuntimeError of torch.
    """
    matmul = torch.backends.cuda.matmul
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield
    finally:
        matmul.fp32_precision = before


def _sum_rows(bounds: Tensor, index: Tensor, values: Tensor, rows: Tensor, out: Tensor) -> None:
    """out[s] = sum of values[p] * rows[index[p]] over the pairs p of bounds[s] : bounds[s + 1].

    A segment of more than PIECE pairs (a dense latent; under BatchTopK a token with a large norm)
    is cut, so that no program runs long: its first piece is summed with its results, the further
    pieces into `partial` beforehand. How many there are is known to the device alone, and asking
    would wait for it; there are at most pairs / PIECE, and programs without a piece stop at once.
    """
    _require_float32(values, rows, out)
    segments, d = out.shape
    further = bounds.diff() // PIECE  # pieces of each segment but its first; the last may be empty
    pieces = pad(further.cumsum(0), (1, 0))  # [segments + 1]
    most = len(index) // PIECE
    numbers = torch.arange(most, device=pieces.device)
    owners = torch.searchsorted(pieces, numbers, right=True) - 1  # `segments` where there is none
    partial = out.new_empty(most, d)
    tiles = triton.cdiv(d, COLUMNS)
    pairs = index.contiguous(), values.contiguous()
    shared = bounds.contiguous(), pieces, *pairs, rows, *rows.stride(), partial
    _sum_further_pieces[most, tiles](*shared, owners, segments, d, PIECE, PAIRS, COLUMNS)
    _sum_segments[segments, tiles](*shared, out, *out.stride(), d, PIECE, PAIRS, COLUMNS)


def _require_float32(*tensors: Tensor) -> None:
    for tensor in tensors:
        if tensor.dtype != torch.float32:
            raise ValueError(f"The CUDA kernels sum in float32; they were given {tensor.dtype}.")


@triton.jit
def _sum_further_pieces(
    bounds,
    pieces,
    index,
    values,
    rows,
    row_stride,
    column_stride,
    partial,
    owners,
    segments,
    d,
    PIECE: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    piece = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    segment = tl.load(owners + piece)
    if segment < segments:
        skipped = (piece - tl.load(pieces + segment) + 1) * PIECE
        begin = tl.load(bounds + segment) + skipped
        end = tl.minimum(begin + PIECE, tl.load(bounds + segment + 1))
        total = _weighted_sum(
            begin, end, index, values, rows, row_stride, column_stride, columns, d, PAIRS, COLUMNS
        )
        tl.store(partial + piece * d + columns, total, mask=columns < d)


@triton.jit
def _sum_segments(
    bounds,
    pieces,
    index,
    values,
    rows,
    row_stride,
    column_stride,
    partial,
    out,
    out_row_stride,
    out_column_stride,
    d,
    PIECE: tl.constexpr,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    segment = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.load(bounds + segment)
    end = tl.minimum(begin + PIECE, tl.load(bounds + segment + 1))
    total = _weighted_sum(
        begin, end, index, values, rows, row_stride, column_stride, columns, d, PAIRS, COLUMNS
    )
    for piece in range(tl.load(pieces + segment), tl.load(pieces + segment + 1)):
        total += tl.load(partial + piece * d + columns, mask=columns < d, other=0.0)
    to = out + segment * out_row_stride + columns.to(tl.int64) * out_column_stride
    tl.store(to, total, mask=columns < d)


@triton.jit
def _weighted_sum(
    begin,
    end,
    index,
    values,
    rows,
    row_stride,
    column_stride,
    columns,
    d,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Sum over the pairs begin : end of values * rows[index], [COLUMNS]."""
    totals = tl.zeros([PAIRS, COLUMNS], tl.float32)
    for first in range(begin, end, PAIRS):
        pairs = first + tl.arange(0, PAIRS)
        weights = tl.load(values + pairs, mask=pairs < end, other=0.0)
        tile = _gather(
            rows, row_stride, column_stride, index, pairs, pairs < end, columns, columns < d
        )
        totals += weights[:, None] * tile
    return tl.sum(totals, 0)


@triton.jit
def _gather(rows, row_stride, column_stride, index, pairs, is_pair, columns, is_column):
    """rows[index[pairs], columns], zero where either is masked."""
    # 64 bits: a matrix may have more than 2^31 elements.
    numbers = tl.load(index + pairs, mask=is_pair, other=0).to(tl.int64)
    places = numbers[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    return tl.load(rows + places, mask=is_pair[:, None] & is_column[None, :], other=0.0)


@triton.jit
def _pair_products(
    tokens,
    latents,
    dense,
    dense_row_stride,
    dense_column_stride,
    W,
    W_row_stride,
    W_column_stride,
    by_tile,
    n_pairs,
    d,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    tile = tl.program_id(1)
    pairs = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)
    columns = tile * COLUMNS + tl.arange(0, COLUMNS)
    is_pair, is_column = pairs < n_pairs, columns < d
    left = _gather(
        dense, dense_row_stride, dense_column_stride, tokens, pairs, is_pair, columns, is_column
    )
    right = _gather(W, W_row_stride, W_column_stride, latents, pairs, is_pair, columns, is_column)
    to = by_tile + tile.to(tl.int64) * n_pairs + pairs
    tl.store(to, tl.sum(left * right, 1), mask=is_pair)
