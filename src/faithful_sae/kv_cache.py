"""A key-value cache that keeps its place, for any causal language model of transformers.

transformers copies the whole cache anew for every token: on a CPU a sixth of sampling, most of it
in page faults.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer


class PreallocatedLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, written in place where DynamicLayer concatenates.

    It holds `capacity` positions and shows the attention views of those written so far,
    [rows, heads, length, head_dim]; with a sliding `window`, of those that a query can see.
    """

    def __init__(self, capacity: int, window: int | None = None) -> None:
        super().__init__()
        self.capacity, self.window = capacity, window
        self.is_sliding = window is not None
        self.length = 0
        self.stores: tuple[Tensor, ...] = ()  # keys, values: [batch, heads, capacity, head_dim]

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.stores = tuple(
            new.new_empty(*new.shape[:2], self.capacity, new.shape[3])
            for new in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        rows, _, new, _ = key_states.shape
        shown, first = self.get_mask_sizes(new)
        for store, states in zip(self.stores, (key_states, value_states), strict=True):
            store[:rows, :, self.length : self.length + new] = states
        self.length += new
        self.keys, self.values = (s[:rows, :, first : first + shown] for s in self.stores)
        return self.keys, self.values

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        first = 0 if self.window is None else max(0, self.length - self.window + 1)
        return self.length + query_length - first, first

    def get_seq_length(self) -> int:
        return self.length

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order. Only rows that change their place are copied."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for store in self.stores:
            written = store[:, :, : self.length]
            written[moved] = written[indices[moved]]


def preallocated_cache(model: Any, capacity: int) -> Any:
    """A cache for `capacity` tokens per row. Layers without keys and values stay as they are."""
    cache = DynamicCache(config=model.config)
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:
            cache.layers[i] = PreallocatedLayer(capacity)
        elif type(layer) is DynamicSlidingWindowLayer:
            cache.layers[i] = PreallocatedLayer(capacity, layer.sliding_window)
    return cache


def can_drop_rows(cache: Any) -> bool:
    """Whether rows can leave the batch: transformers cannot take them out of recurrent states."""
    return all(isinstance(layer, PreallocatedLayer) for layer in cache.layers)
