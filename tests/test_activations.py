"""Activations are transformers' own hidden states, and the model can be run on from others."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from faithful_sae.activations import (
    batches_by_length,
    context_activations,
    hidden_states,
    resumed_at,
)
from faithful_sae.models import blocks

HOOKS = ["resid_pre.0", "resid_pre.1", "resid_pre.2"]
TOKENS = torch.tensor([[0, 5, 60, 17, 2, 9], [0, 8, 8, 3, 44, 30]])


def outputs(model: Any, tokens: Tensor = TOKENS, **options: Any) -> Any:
    return model(input_ids=tokens, use_cache=False, **options)


@pytest.mark.parametrize("hook", HOOKS)
def test_hidden_states_equal_those_that_transformers_returns(family_model: Any, hook: str) -> None:
    every = outputs(family_model, output_hidden_states=True).hidden_states
    found = hidden_states(family_model, TOKENS, hook)
    assert torch.equal(found, every[int(hook[-1])])


@pytest.mark.parametrize("hook", HOOKS)
def test_nothing_after_the_hook_is_computed(family_model: Any, hook: str) -> None:
    ran: list[int] = []
    handles = [
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
        for i, block in enumerate(blocks(family_model))
    ]
    hidden_states(family_model, TOKENS, hook)
    for handle in handles:
        handle.remove()
    assert ran == list(range(int(hook[-1])))


def test_the_model_is_whole_again_after_activations_were_read(family_model: Any) -> None:
    before = outputs(family_model).logits
    hidden_states(family_model, TOKENS, "resid_pre.1")
    assert torch.equal(outputs(family_model).logits, before)


@pytest.mark.parametrize("hook", HOOKS)
def test_resuming_from_untouched_hidden_states_gives_the_same_logits(
    family_model: Any, hook: str
) -> None:
    hidden = hidden_states(family_model, TOKENS, hook)
    with resumed_at(family_model, hook, hidden):
        resumed = outputs(family_model).logits
    torch.testing.assert_close(resumed, outputs(family_model).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("hook", HOOKS)
def test_resuming_reads_the_hidden_states_given_and_no_tokens(family_model: Any, hook: str) -> None:
    other = TOKENS.flip(0)
    hidden = hidden_states(family_model, other, hook)
    with resumed_at(family_model, hook, hidden):
        resumed = outputs(family_model).logits
    torch.testing.assert_close(resumed, outputs(family_model, other).logits, rtol=0, atol=1e-5)
    assert not torch.allclose(resumed, outputs(family_model).logits, atol=1e-2)


def test_lower_blocks_are_passed_over_while_resumed(family_model: Any) -> None:
    ran = []
    attention = [m for m in blocks(family_model)[0].modules() if m is not blocks(family_model)[0]]
    handles = [m.register_forward_hook(lambda *_: ran.append(1)) for m in attention]
    hidden = hidden_states(family_model, TOKENS, "resid_pre.1")
    ran.clear()
    with resumed_at(family_model, "resid_pre.1", hidden):
        outputs(family_model)
    for handle in handles:
        handle.remove()
    assert not ran


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_whole_again_after_it_was_resumed(family_model: Any, fails: bool) -> None:
    before = outputs(family_model).logits
    hidden = hidden_states(family_model, TOKENS, "resid_pre.2")
    try:
        with resumed_at(family_model, "resid_pre.2", torch.zeros_like(hidden)):
            if fails:
                raise RuntimeError("something inside failed")
    except RuntimeError:
        assert fails
    assert torch.equal(outputs(family_model).logits, before)
    assert not any("forward" in vars(block) for block in blocks(family_model))


def test_padding_on_the_right_changes_nothing(family_model: Any) -> None:
    padded = torch.cat([TOKENS, torch.zeros(2, 7, dtype=torch.long)], dim=1)
    found = hidden_states(family_model, padded, "resid_pre.2")[:, : TOKENS.shape[1]]
    alone = hidden_states(family_model, TOKENS, "resid_pre.2")
    torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


def test_activations_do_not_depend_on_order_or_grouping_of_contexts(
    family_model: Any, random_contexts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    together = context_activations(family_model, random_contexts, "resid_pre.2")
    assert [len(x) for x in together] == [len(c) for c in random_contexts]
    alone = [context_activations(family_model, [c], "resid_pre.2")[0] for c in random_contexts]
    reversed_ = context_activations(family_model, random_contexts[::-1], "resid_pre.2")[::-1]
    monkeypatch.setattr("faithful_sae.activations.FORWARD_TOKENS", {"cpu": 20})
    small = context_activations(family_model, random_contexts, "resid_pre.2")
    for other in (alone, reversed_, small):
        for x, y in zip(together, other, strict=True):
            torch.testing.assert_close(x, y, rtol=0, atol=1e-5)


@pytest.mark.parametrize("limit", [1, 20, 24, 1000])
def test_batches_hold_every_context_once_within_the_limit(
    random_contexts: list[np.ndarray], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faithful_sae.activations.FORWARD_TOKENS", {"cpu": limit})
    seen: list[int] = []
    for numbers, tokens in batches_by_length(random_contexts, torch.device("cpu")):
        assert tokens.numel() <= limit or len(numbers) == 1
        for number, row in zip(numbers, tokens, strict=True):
            context = random_contexts[number]
            assert row[: len(context)].tolist() == context.tolist()
            assert not row[len(context) :].any()
        seen += numbers
    assert sorted(seen) == list(range(len(random_contexts)))
