"""Products by oneDNN equal torch's own, for every shape and layout that the library meets."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from faithful_sae.linear import linear, use_linear

sizes = st.integers(0, 40)


@settings(max_examples=60)
@given(
    leading=st.lists(st.integers(0, 5), min_size=1, max_size=3),
    d_in=st.integers(1, 40),
    d_out=sizes,
    bias=st.booleans(),
    transposed=st.booleans(),
    strided=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_product_is_that_of_torch(leading, d_in, d_out, bias, transposed, strided, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*leading, 2 * d_in, generator=generator)
    x = x[..., ::2] if strided else x[..., :d_in].contiguous()
    weight = torch.randn(d_in, d_out, generator=generator).T
    weight = weight if transposed else weight.contiguous()
    b = torch.randn(d_out, generator=generator) if bias else None
    expected = functional.linear(x.double(), weight.double(), None if b is None else b.double())
    product = linear(x, weight, b)
    assert product.shape == expected.shape and product.dtype == torch.float32
    torch.testing.assert_close(product.double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("wanted", ["x", "weight", "bias"])
def test_gradients_are_not_lost(wanted):
    tensors = {"x": torch.randn(3, 4), "weight": torch.randn(2, 4), "bias": torch.randn(2)}
    tensors[wanted].requires_grad_()
    linear(**tensors).sum().backward()
    assert tensors[wanted].grad is not None


def test_other_dtypes_are_torch_s_own():
    x, weight = torch.randn(3, 4, dtype=torch.float64), torch.randn(2, 4, dtype=torch.float64)
    assert torch.equal(linear(x, weight), x @ weight.T)


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this torch was built without oneDNN"
)
def test_the_cpu_s_float32_products_are_onednn_s():
    x, weight = torch.randn(64, 300), torch.randn(700, 300)
    expected = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    assert torch.equal(linear(x, weight), expected)


def test_a_model_computes_the_same_through_it(family_model):
    tokens = torch.arange(12).view(2, 6)
    with torch.inference_mode():
        before = family_model(tokens).logits
        through = []
        text = [*family_model.get_decoder().modules(), family_model.get_output_embeddings()]
        modules = [module for module in text if isinstance(module, torch.nn.Linear | Conv1D)]
        try:
            use_linear(family_model)
            for module in modules:
                forward = module.forward
                module.forward = lambda x, forward=forward: through.append(1) or forward(x)
            torch.testing.assert_close(family_model(tokens).logits, before, rtol=1e-4, atol=1e-5)
        finally:
            for module in modules:
                module.forward = type(module).forward.__get__(module)
    assert len(through) == len(modules) > 0
