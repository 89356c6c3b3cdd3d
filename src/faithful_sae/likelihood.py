"""Next-token predictions of a language model, a tile of positions at a time.

A batch's logits are a hundred times its hidden states. Held at once, copied and normalised, they
cost more in page faults than their arithmetic; a tile is small enough to be reused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

TILE = {"cpu": 256, "cuda": 4096}  # positions whose logits are held at once


@torch.inference_mode()
def predictions(model: Any, tokens: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits [n, vocab] float32 of consecutive positions, and the tokens [n] that follow them.

    tokens: [batch, position]. Over all tiles the positions are those of tokens[:, :-1].flatten().
    Runs under whatever hooks the model has, such as `activations.resumed_at`.
    """
    decoder = model.get_decoder()
    decoded = decoder(input_ids=tokens, use_cache=False)
    hidden = decoded.last_hidden_state[:, :-1].flatten(0, 1)
    following = tokens[:, 1:].flatten()
    tile = TILE[tokens.device.type]
    for first in range(0, len(hidden), tile):
        rows = slice(first, first + tile)
        output = type(decoded)(**{**decoded, "last_hidden_state": hidden[None, rows]})
        with _returning(decoder, output):  # what follows the blocks differs from family to family
            logits = model(input_ids=following[None, rows], use_cache=False).logits
        yield logits[0].float(), following[rows]


@contextmanager
def _returning(decoder: Any, output: Any) -> Iterator[None]:
    """Inside this context the decoder computes nothing and returns `output`."""
    decoder.forward = lambda *_args, **_kwargs: output
    try:
        yield
    finally:
        del decoder.forward  # uncovers the class's own method


def next_token_losses(model: Any, tokens: Tensor) -> Tensor:
    """Cross-entropy of each next token in nats, [batch, position - 1]; tokens [batch, position]."""
    losses = [
        cross_entropy(logits, following, reduction="none")
        for logits, following in predictions(model, tokens)
    ]
    return torch.cat(losses).view(len(tokens), -1)
