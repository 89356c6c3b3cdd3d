"""The CUDA kernels equal dense products: on a GPU, or without one in Triton's interpreter."""

import contextlib
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae import sparse
from faithful_sae.sae import SAE
from faithful_sae.trainer import SAEConfig, Trainer

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")

triton = pytest.importorskip("triton")  # interprets its kernels without a GPU: conftest.py
from faithful_sae import sparse_cuda  # noqa: E402

quick = settings(max_examples=12)


@pytest.fixture(autouse=True, scope="module")
def small_tiles_interpreted():
    """Tiles so small that the small problems below have several of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        for name, size in {"COLUMNS": 32, "PAIRS": 4, "PIECE": 8}.items():
            patch.setattr(sparse_cuda, name, size)
        yield


@st.composite
def problems(draw):
    """(A [n, d_sae] with silent tokens and latents, dense [n, d], W [d_sae, d], index dtype)."""
    n, d, d_sae = (draw(st.integers(1, most)) for most in (20, 70, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    def matrix(rows):
        """[rows, d], contiguous or not."""
        return draw(
            st.sampled_from([normal(rows, d), normal(d, rows).T, normal(rows, d + 3)[:, 1 : 1 + d]])
        )

    share = torch.rand(n, 1, generator=generator) * torch.rand(1, d_sae, generator=generator)
    A = normal(n, d_sae) * (torch.rand(n, d_sae, generator=generator) < 2 * share)
    A[draw(st.integers(0, n - 1))] = 0
    A[:, draw(st.integers(0, d_sae - 1))] = 0
    A, dense, W = (t.to(DEVICE) for t in (A, matrix(n), matrix(d_sae)))
    return A, dense, W, draw(st.sampled_from([torch.int32, torch.int64]))


def by_token(A, dtype):
    """(tokens, latents, values, offsets) of the non-zeros of A, ordered by token."""
    tokens, latents = A.nonzero(as_tuple=True)
    offsets = (A != 0).sum(1).cumsum(0) - (A != 0).sum(1)
    return tokens, latents.to(dtype), A[tokens, latents], offsets.to(dtype)


def by_latent(A, dtype):
    """(rows, tokens, values) of the non-zeros of A, ordered by latent."""
    latents, tokens = A.T.nonzero(as_tuple=True)
    rows = torch.cat([torch.zeros(1, device=A.device), (A != 0).sum(0).cumsum(0)])
    return rows.to(dtype), tokens.to(dtype), A[tokens, latents]


def close(found, expected):
    torch.testing.assert_close(found, expected.to(found.dtype), rtol=1e-5, atol=1e-5)


@quick
@given(problem=problems())
def test_decode_is_the_dense_product(problem):
    A, _, W, dtype = problem
    _, latents, values, offsets = by_token(A, dtype)
    close(sparse_cuda.decode(latents, values, offsets, W), A.double() @ W.double())


@quick
@given(problem=problems())
def test_pair_products_are_those_of_the_dense_product(problem):
    A, dense, W, dtype = problem
    tokens, latents, _, offsets = by_token(A, dtype)
    expected = (dense.double() @ W.double().T)[tokens, latents.long()]
    close(sparse_cuda.pair_products(latents, offsets, dense, W), expected)


@quick
@given(problem=problems(), transposed=st.booleans())
def test_transposed_times_is_the_dense_product_and_overwrites(problem, transposed):
    A, dense, W, dtype = problem
    out = torch.full_like(W.T if transposed else W, 7.0)  # a stale gradient
    out = out.T if transposed else out
    sparse_cuda.transposed_times(*by_latent(A, dtype), dense, out)
    close(out, A.T.double() @ dense.double())


def test_by_hand():
    W = torch.tensor([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]], device=DEVICE)
    x = torch.tensor([[1.0, 1.0], [5.0, 5.0], [0.0, 2.0]], device=DEVICE)
    latents = torch.tensor([2, 0, 0], device=DEVICE)
    values = torch.tensor([0.5, 3.0, 2.0], device=DEVICE)
    offsets = torch.tensor([0, 2, 2], device=DEVICE)  # token 1 has no pair, latent 1 neither
    decoded = sparse_cuda.decode(latents, values, offsets, W)
    assert decoded.tolist() == [[53.0, 106.0], [0.0, 0.0], [2.0, 4.0]]
    assert sparse_cuda.pair_products(latents, offsets, x, W).tolist() == [300.0, 3.0, 4.0]
    out = torch.full((3, 2), 7.0, device=DEVICE)
    rows = torch.tensor([0, 2, 2, 3], device=DEVICE)
    tokens = torch.tensor([0, 2, 0], device=DEVICE)
    sparse_cuda.transposed_times(rows, tokens, values[[1, 2, 0]], x, out)
    assert out.tolist() == [[3.0, 7.0], [0.0, 0.0], [0.5, 0.5]]


@pytest.mark.parametrize("count", [1, 3, 4, 7, 8, 9, 16, 17, 50])  # a piece is 8 pairs
def test_a_latent_active_on_every_token_is_summed_in_pieces(count):
    A = torch.zeros(count, 3, device=DEVICE)
    A[:, 1] = torch.arange(1, count + 1)
    A[0, 2] = 1  # the segment behind begins where it should
    dense = torch.ones(count, 5, device=DEVICE)
    out = torch.full((3, 5), 7.0, device=DEVICE)
    sparse_cuda.transposed_times(*by_latent(A, torch.int32), dense, out)
    assert out.T.tolist() == [[0.0, count * (count + 1) / 2, 1.0]] * 5


def test_no_pairs_at_all():
    none = torch.zeros(0, dtype=torch.long, device=DEVICE)
    nothing, W = torch.zeros(0, device=DEVICE), torch.ones(4, 5, device=DEVICE)
    offsets = torch.zeros(3, dtype=torch.long, device=DEVICE)
    assert not sparse_cuda.decode(none, nothing, offsets, W).any()
    assert sparse_cuda.pair_products(none, offsets, W[:3], W).shape == (0,)
    out = torch.full((4, 5), 7.0, device=DEVICE)
    sparse_cuda.transposed_times(torch.zeros(5, dtype=int, device=DEVICE), none, nothing, W, out)
    assert not out.any()


def test_rows_that_no_pair_names_are_not_read():
    W = torch.full((3, 5), float("nan"), device=DEVICE)
    W[1] = 2
    latents, offsets = torch.tensor([1], device=DEVICE), torch.tensor([0, 1], device=DEVICE)
    decoded = sparse_cuda.decode(latents, torch.ones(1, device=DEVICE), offsets, W)
    assert decoded.tolist() == [[2.0] * 5, [0.0] * 5]
    assert sparse_cuda.pair_products(latents, offsets, W[1:2].expand(2, 5), W).tolist() == [20.0]


def test_a_value_that_is_not_a_number_stays_in_its_row():
    values = torch.tensor([1.0, float("nan"), 1.0], device=DEVICE)
    numbers = torch.tensor([0, 1, 2], device=DEVICE)
    decoded = sparse_cuda.decode(numbers, values, numbers, torch.ones(3, 5, device=DEVICE))
    assert decoded.isnan().all(1).tolist() == [False, True, False]
    assert decoded[[0, 2]].tolist() == [[1.0] * 5] * 2


def test_a_matrix_may_have_more_than_2_to_the_31_elements():
    stride, last = 2**16, 2**15  # the last row begins at element 2^31; memory untouched is not used
    W = torch.empty(stride * last + 3, device=DEVICE).as_strided((last + 1, 3), (stride, 1))
    W[last] = torch.tensor([1.0, 2.0, 3.0])
    latents = torch.tensor([last], dtype=torch.int32, device=DEVICE)
    offsets, two = torch.zeros(1, dtype=torch.int32, device=DEVICE), torch.full((1,), 2.0)
    decoded = sparse_cuda.decode(latents, two.to(DEVICE), offsets, W)
    assert decoded.tolist() == [[2.0, 4.0, 6.0]]
    assert sparse_cuda.pair_products(latents, offsets, decoded, W).tolist() == [28.0]


def test_other_precisions_are_refused():
    latents, offsets = torch.tensor([0], device=DEVICE), torch.tensor([0], device=DEVICE)
    W = torch.ones(1, 2, dtype=torch.float64, device=DEVICE)
    with pytest.raises(ValueError, match=r"float32.*torch\.float64"):
        sparse_cuda.decode(latents, W[:, 0], offsets, W)
    with pytest.raises(ValueError, match=r"float32.*torch\.float64"):
        sparse_cuda.pair_products(latents, offsets, W, W)


@pytest.fixture
def matmul():
    settings = torch.backends.cuda.matmul
    before = settings.fp32_precision
    yield settings
    settings.fp32_precision = before


@pytest.mark.parametrize("before", ["none", "ieee", "tf32"])
def test_tf32_ends_with_its_block_however_that_ends(before, matmul):
    matmul.fp32_precision = before
    with sparse_cuda.tf32():
        assert matmul.fp32_precision == "tf32"
    assert matmul.fp32_precision == before
    with pytest.raises(KeyError), sparse_cuda.tf32():
        raise KeyError
    assert matmul.fp32_precision == before


@pytest.mark.skipif(DEVICE.type == "cuda", reason="the kernels ran on this GPU")
def test_the_compiler_takes_what_the_interpreter_takes():
    """Triton compiles for a GPU on any machine, and refuses some code that its interpreter runs."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    source = os.path.dirname(os.path.dirname(sparse_cuda.__file__))
    environment |= {"PYTHONPATH": source}
    subprocess.run([sys.executable, __file__], env=environment, check=True)


def compile_kernels():
    """Compile each kernel for an A100 and an H100, with stride 1 as a constant as at a launch."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: getattr(sparse_cuda, name) for name in ("COLUMNS", "PAIRS", "PIECE")}
    constants |= {"column_stride": 1, "out_column_stride": 1, "W_column_stride": 1}
    floats = {"values", "rows", "partial", "out", "dense", "W", "by_tile"}
    indices = {"bounds", "pieces", "index", "owners", "tokens", "latents"}
    kernels = ("_sum_further_pieces", "_sum_segments", "_pair_products")
    for capability, index in ((80, "*i64"), (90, "*i32")):
        types = dict.fromkeys(constants, "constexpr") | dict.fromkeys(floats, "*fp32")
        types |= dict.fromkeys(indices, index)
        for kernel in (getattr(sparse_cuda, name) for name in kernels):
            signature = {name: types.get(name, "i32") for name in kernel.arg_names}
            known = {name: value for name, value in constants.items() if name in signature}
            source = ASTSource(kernel, signature, constexprs=known)
            triton.compile(source, target=GPUTarget("cuda", capability, 32))


@pytest.mark.parametrize("architecture", ["topk", "batch_topk"])
def test_a_training_step_through_the_kernels_has_the_gradients_of_one_without(
    monkeypatch, architecture
):
    def trained(through_kernels):
        monkeypatch.setattr(sparse, "_on_cuda", lambda _: through_kernels)
        generator = torch.Generator().manual_seed(1)
        sae = SAE.untrained(d_in=20, d_sae=24, k=3, seed=0).to(DEVICE)
        config = SAEConfig(
            architecture=architecture,
            expansion=2,
            k=3,
            encoder_bias=True,
            training_tokens=0,
            batch_size=16,
            lr=1e-3,
            dead_after=10**9,
        )
        trainer = Trainer(sae, config)
        trainer.backward(torch.randn(16, 20, generator=generator).to(DEVICE))
        return [parameter.grad for parameter in trainer.parameters]

    calls = []
    for name in ("decode", "pair_products", "transposed_times"):
        kernel = getattr(sparse_cuda, name)
        monkeypatch.setattr(
            sparse_cuda, name, lambda *a, kernel=kernel, name=name: calls.append(name) or kernel(*a)
        )
    # TF32 is a GPU's; its rounding would hide an error of a kernel.
    monkeypatch.setattr(sparse_cuda, "tf32", contextlib.nullcontext)
    for found, expected in zip(trained(True), trained(False), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert calls == ["decode", "pair_products", "transposed_times", "transposed_times"]


if __name__ == "__main__":
    compile_kernels()
