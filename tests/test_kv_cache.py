"""Decoding from memory in place gives the logits of a plain forward pass."""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from faithful_sae.kv_cache import PreallocatedLayer, preallocated_cache

LENGTH = 12  # three times the sliding window of the tiny models


def random_tokens(rows: int, length: int) -> Tensor:
    return torch.randint(61, (rows, length), generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_decoded_logits_equal_a_plain_forward_pass_while_rows_leave(family_model: Any) -> None:
    tokens = random_tokens(6, LENGTH)
    expected = family_model(input_ids=tokens, use_cache=False).logits
    leaving = {2: [0, 5, 2, 3], 7: [3, 1, 2], 9: [2, 0]}  # position: rows that stay, in new order
    rows = torch.arange(6)
    cache = preallocated_cache(family_model, LENGTH)
    for position in range(LENGTH):
        if position in leaving:
            stay = torch.tensor(leaving[position])
            rows = rows[stay]
            cache.batch_select_indices(stay)
        asked = tokens[rows, position : position + 1]
        logits = family_model(input_ids=asked, past_key_values=cache, use_cache=True).logits
        torch.testing.assert_close(logits[:, 0], expected[rows, position], rtol=1e-5, atol=1e-5)
    assert all(type(layer) is PreallocatedLayer for layer in cache.layers)


@pytest.mark.parametrize("window", [None, 2, 5, 100])
def test_a_layer_shows_what_a_concatenating_one_shows(window: int | None) -> None:
    generator = torch.Generator().manual_seed(0)
    ours = PreallocatedLayer(12, window)
    theirs = DynamicLayer() if window is None else DynamicSlidingWindowLayer(window)
    assert ours.is_sliding == theirs.is_sliding
    for step, new in enumerate([1, 1, 3, 1, 2, 1, 1, 2]):
        rows = 4 if step < 5 else 3
        if step == 5:
            stay = torch.tensor([0, 3, 2])
            ours.batch_select_indices(stay)
            theirs.batch_select_indices(stay)
        keys, values = torch.randn(2, rows, 2, new, 8, generator=generator)
        assert ours.get_mask_sizes(new) == theirs.get_mask_sizes(new)
        shown = ours.update(keys, values), theirs.update(keys, values)
        assert all(torch.equal(a, b) for a, b in zip(*shown, strict=True))
        assert ours.get_seq_length() == theirs.get_seq_length()


def test_a_cache_keeps_its_place(llama: Any) -> None:
    cache = preallocated_cache(llama, LENGTH)
    places = set()
    for position in range(LENGTH):
        tokens = random_tokens(3, LENGTH)[:, position : position + 1]
        llama(input_ids=tokens, past_key_values=cache, use_cache=True)
        places.add(tuple(layer.keys.data_ptr() for layer in cache.layers))
    assert len(places) == 1


def test_layers_without_keys_and_values_stay_as_they_are() -> None:
    from types import SimpleNamespace

    from transformers import LlamaConfig

    config = LlamaConfig(num_hidden_layers=2, layer_types=["full_attention", "linear_attention"])
    cache = preallocated_cache(SimpleNamespace(config=config), LENGTH)
    assert [type(layer).__name__ for layer in cache.layers] == [
        "PreallocatedLayer",
        "LinearAttentionLayer",
    ]
