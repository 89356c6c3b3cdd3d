"""Predictions by tiles equal those of one pass over the whole batch."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from faithful_sae import likelihood
from faithful_sae.activations import hidden_states, resumed_at
from faithful_sae.likelihood import next_token_losses, predictions

TOKENS = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(0))


def whole(model, tokens):
    with torch.inference_mode():
        return model(input_ids=tokens, use_cache=False).logits[:, :-1]


@pytest.mark.parametrize("tile", [1, 5, 24, 100])
def test_logits_are_the_model_s_own_whatever_the_tile(monkeypatch, family_model, tile):
    monkeypatch.setitem(likelihood.TILE, "cpu", tile)
    tiles = list(predictions(family_model, TOKENS))
    assert [len(logits) for logits, _ in tiles[:-1]] == [tile] * (len(tiles) - 1)
    logits = torch.cat([logits for logits, _ in tiles])
    expected = whole(family_model, TOKENS).flatten(0, 1)
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(torch.cat([following for _, following in tiles]), TOKENS[:, 1:].flatten())


def test_losses_are_the_cross_entropy_of_each_next_token(family_model):
    losses = next_token_losses(family_model, TOKENS)
    expected = cross_entropy(
        whole(family_model, TOKENS).transpose(1, 2), TOKENS[:, 1:], reduction="none"
    )
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)


def test_hooks_below_the_head_are_kept(llama):
    hidden = hidden_states(llama, TOKENS, "resid_pre.1")
    with resumed_at(llama, "resid_pre.1", 3 * hidden):
        losses, expected = next_token_losses(llama, TOKENS), whole(llama, TOKENS)
    plain = next_token_losses(llama, TOKENS)
    expected = cross_entropy(expected.transpose(1, 2), TOKENS[:, 1:], reduction="none")
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    assert (losses - plain).abs().max() > 1e-3


def test_the_model_is_left_as_it_was_even_after_an_error(llama, monkeypatch):
    before = whole(llama, TOKENS)
    for _ in predictions(llama, TOKENS):
        break
    monkeypatch.setattr(llama.lm_head, "forward", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        next_token_losses(llama, TOKENS)
    monkeypatch.undo()
    assert torch.equal(whole(llama, TOKENS), before)
