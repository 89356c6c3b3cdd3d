"""Dense products x @ W.T + b: on the CPU by oneDNN, which torch carries beside MKL.

On AMD cores oneDNN is 1.1 to 1.4 times as fast in float32 (benchmarks/linear.py; other CPUs are
unmeasured), and nearly all of a study's time goes into these products. torch takes MKL for them and
has no switch; the operation called here is the one that its own compiler emits for a linear layer.

Its sums round 1.4 to 2 times as much as MKL's (3e-7 to 5e-7). Thirty blocks with attention sinks
make of that up to 4e-4 of the largest logit, where MKL's own distance from float64 was 5e-5.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [..., d_in] @ weight.T [d_in, d_out] + bias [d_out]: `torch.nn.functional.linear`.

    Equal to it up to the order of float sums. Where a gradient is wanted it is that function, since
    oneDNN's has none.
    """
    gradient = torch.is_grad_enabled() and any(
        t is not None and t.requires_grad for t in (x, weight, bias)
    )
    if gradient or not _ONEDNN or x.device.type != "cpu" or x.dtype != torch.float32:
        return functional.linear(x, weight, bias)
    product: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return product


def use_linear(model: nn.Module) -> Any:
    """The same model with `linear` in place of its layers' own products."""
    from transformers.pytorch_utils import Conv1D  # GPT-2's linear layer, weight [d_in, d_out]

    for module in model.modules():
        if isinstance(module, nn.Linear):
            forward = partial(linear, weight=module.weight, bias=module.bias)
        elif isinstance(module, Conv1D):
            forward = partial(linear, weight=module.weight.T, bias=module.bias)
        else:
            continue
        module.forward = forward  # type: ignore[method-assign]
    return model
