"""The loss of the model when it reads reconstructions: a slow splice, and sums by hand."""

from typing import Any

import numpy as np
import pytest
import torch
from stand_ins import IDENTITY, ZERO, StandIn, constant
from torch import Tensor
from torch.nn.functional import cross_entropy

from faithful_sae.models import blocks
from faithful_sae.reconstruction import LossSums, loss_metrics
from faithful_sae.sae import SAE

HOOK = "resid_pre.1"


def slow_increase(
    model: Any, sae: Any, contexts: list[np.ndarray], kept: list[np.ndarray]
) -> tuple[float, float]:
    """Loss, and its increase when one context at a time reads x_hat in a hook of its own."""
    clean, spliced, tokens = 0.0, 0.0, 0
    for context, mask in zip(contexts, kept, strict=True):
        ids = torch.from_numpy(context).long()[None]

        def splice(_: Any, args: Any, mask: np.ndarray = mask) -> Any:
            x = args[0].clone()
            for position in np.flatnonzero(mask):
                x[0, position] = sae(x[0, position : position + 1])[0]
            return (x, *args[1:])

        clean += float(cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
        handle = blocks(model)[1].register_forward_pre_hook(splice)
        spliced += float(cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="sum"))
        handle.remove()
        tokens += len(context) - 1
    return clean / tokens, (spliced - clean) / tokens


@pytest.mark.parametrize("policy", ["start kept", "start left out", "random"])
def test_losses_equal_a_slow_splice_at_kept_positions_only(
    llama: Any, random_contexts: list[np.ndarray], policy: str
) -> None:
    generator = np.random.default_rng(0)
    kept = {
        "start kept": [np.ones(len(c), bool) for c in random_contexts],
        "start left out": [np.arange(len(c)) > 0 for c in random_contexts],
        "random": [generator.random(len(c)) < 0.5 for c in random_contexts],
    }[policy]
    saes = {("a", 0): SAE.untrained(d_in=16, d_sae=32, k=4, seed=0), ("b", 0): ZERO}
    mean = torch.linspace(-1, 1, 16)
    found = loss_metrics(llama, saes, random_contexts, kept, mean, HOOK)
    slow = {
        name: slow_increase(llama, sae, random_contexts, kept)
        for name, sae in [("sae", saes["a", 0]), ("zero", ZERO), ("mean", constant(mean))]
    }
    mine = found["a", 0]
    assert mine["ce_loss"] == pytest.approx(slow["sae"][0], abs=1e-5)
    assert mine["ce_loss_increase"] == pytest.approx(slow["sae"][1], abs=1e-5)
    assert mine["ce_tokens"] == sum(len(c) - 1 for c in random_contexts)
    for how in ("zero", "mean"):
        expected = 1 - slow["sae"][1] / slow[how][1]
        assert mine[f"ce_loss_recovered_{how}"] == pytest.approx(expected, rel=1e-3)
    assert found["b", 0]["ce_loss_increase"] == pytest.approx(slow["zero"][1], abs=1e-5)


def test_only_activations_at_kept_positions_are_ever_read(
    llama: Any, random_contexts: list[np.ndarray]
) -> None:
    read: list[int] = []

    def watch(x: Tensor) -> Tensor:
        read.append(len(x))
        return x

    watching = StandIn(watch)
    kept = [np.arange(len(c)) % 3 == 1 for c in random_contexts]
    loss_metrics(llama, {("a", 0): watching}, random_contexts, kept, torch.zeros(16), HOOK)
    assert sum(read) == sum(int(k.sum()) for k in kept)  # padding is none of them


def test_losses_do_not_depend_on_the_batches(
    llama: Any, random_contexts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = [np.ones(len(c), bool) for c in random_contexts]
    saes = {("a", 0): SAE.untrained(d_in=16, d_sae=32, k=4, seed=0)}
    whole = loss_metrics(llama, saes, random_contexts, kept, torch.zeros(16), HOOK)
    monkeypatch.setattr("faithful_sae.activations.FORWARD_TOKENS", {"cpu": 13})
    small = loss_metrics(llama, saes, random_contexts, kept, torch.zeros(16), HOOK)
    assert small["a", 0] == pytest.approx(whole["a", 0], abs=1e-5)


def test_nothing_is_recovered_where_ablation_changes_nothing(
    llama: Any, random_contexts: list[np.ndarray]
) -> None:
    kept = [np.zeros(len(c), bool) for c in random_contexts]
    saes: Any = {("a", 0): SAE.untrained(d_in=16, d_sae=32, k=4, seed=0), ("b", 0): IDENTITY}
    found = loss_metrics(llama, saes, random_contexts, kept, torch.zeros(16), HOOK)
    for metrics in found.values():
        assert metrics["ce_loss"] > 0
        assert metrics["ce_loss_increase"] == metrics["ce_loss_increase_stderr"] == 0
        for how in ("zero", "mean"):
            assert np.isnan(metrics[f"ce_loss_recovered_{how}"])


def test_each_ablation_is_guarded_for_itself(
    llama: Any, random_contexts: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Activations that are their own mean: only zero ablation changes what the model reads.
    from faithful_sae import reconstruction as module

    original = module.hidden_states
    monkeypatch.setattr(module, "hidden_states", lambda *args: torch.ones_like(original(*args)))
    kept = [np.ones(len(c), bool) for c in random_contexts]
    found = loss_metrics(llama, {("a", 0): ZERO}, random_contexts, kept, torch.ones(16), HOOK)
    assert np.isnan(found["a", 0]["ce_loss_recovered_mean"])
    assert found["a", 0]["ce_loss_recovered_zero"] == 0


def sums(loss: list[float], tokens: list[int]) -> LossSums:
    made = LossSums()
    made.loss, made.tokens = loss, tokens
    return made


def test_mean_increase_and_its_standard_error_by_hand() -> None:
    clean, worse = sums([4.0, 4.0], [2, 2]), sums([6.0, 4.0], [2, 2])
    # increases of 1 and 0 nats per token: mean 1/2, deviation sqrt(1/2), error 1/2
    assert worse.increase(clean) == pytest.approx((0.5, 0.5))
    assert clean.mean() == 2


def test_long_contexts_weigh_by_their_tokens() -> None:
    clean, worse = sums([0.0, 0.0], [1, 9]), sums([1.0, 0.0], [1, 9])
    mean, error = worse.increase(clean)
    # residuals 1 - 1/10 and 0 - 9/10: sqrt((0.81 + 0.81) * 2 / 1) / 10
    assert (mean, error) == pytest.approx((0.1, 0.18))


def test_one_context_has_no_standard_error() -> None:
    mean, error = sums([3.0], [2]).increase(sums([1.0], [2]))
    assert mean == 1 and np.isnan(error)
