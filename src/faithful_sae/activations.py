"""Activations of a language model at one hook, and the model run on from replaced ones.

Raw `transformers` hidden states: no weight is folded or centred, so `resid_pre.L` equals
`hidden_states[L]`. The forward pass stops at the hook.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from faithful_sae.hook_names import hook_block
from faithful_sae.models import blocks

FORWARD_TOKENS = {"cpu": 1024, "cuda": 65536}  # padded tokens in one forward pass


class _Reached(Exception):
    """Raised inside the forward pass to leave it at the hook."""


@torch.inference_mode()
def hidden_states(model: Any, tokens: Tensor, hook: str) -> Tensor:
    """The residual stream at the hook, [batch, position, d_in]; later blocks are not computed."""
    reached: list[Tensor] = []

    def stop(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        reached.append(args[0] if args else kwargs["hidden_states"])
        raise _Reached

    handle = blocks(model)[hook_block(hook)].register_forward_pre_hook(stop, with_kwargs=True)
    try:
        model(input_ids=tokens, use_cache=False)
    except _Reached:
        pass
    finally:
        handle.remove()
    return reached[0]


@contextmanager
def resumed_at(model: Any, hook: str, hidden: Tensor) -> Iterator[None]:
    """Inside this context the model runs as if `hidden` [batch, position, d_in] entered the hook.

    Blocks below the hook are passed over, since what they compute would be thrown away.
    """
    depth = hook_block(hook)
    lower = list(blocks(model)[:depth])

    def replace(
        _module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if args:
            return (hidden, *args[1:]), kwargs
        return args, kwargs | {"hidden_states": hidden}

    handle = blocks(model)[depth].register_forward_pre_hook(replace, with_kwargs=True)
    try:
        for block in lower:
            block.forward = _pass_through
        yield
    finally:
        handle.remove()
        for block in lower:
            del block.forward  # uncovers the class's own method


def _pass_through(hidden_states: Tensor, *_args: Any, **_kwargs: Any) -> Tensor:
    return hidden_states


def batches_by_length(
    contexts: list[np.ndarray], device: torch.device
) -> Iterator[tuple[list[int], Tensor]]:
    """Contexts of similar length, right-padded: (context numbers, tokens [batch, position]).

    Attention is causal, so padding on the right changes nothing to its left and needs no mask.
    """
    limit = FORWARD_TOKENS[device.type]
    order = sorted(range(len(contexts)), key=lambda i: (-len(contexts[i]), i))
    while order:
        length = len(contexts[order[0]])
        numbers, order = order[: max(1, limit // length)], order[max(1, limit // length) :]
        tokens = np.zeros((len(numbers), length), np.int64)
        for row, number in enumerate(numbers):
            tokens[row, : len(contexts[number])] = contexts[number]
        yield numbers, torch.from_numpy(tokens).to(device)


def context_activations(model: Any, contexts: list[np.ndarray], hook: str) -> list[Tensor]:
    """Activations of each context, [len(context), d_in] float32, in the order given."""
    found: dict[int, Tensor] = {}
    for numbers, tokens in batches_by_length(contexts, model.device):
        hidden = hidden_states(model, tokens, hook)
        for row, number in enumerate(numbers):
            found[number] = hidden[row, : len(contexts[number])]
    return [found[i] for i in range(len(contexts))]
