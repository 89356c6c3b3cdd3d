"""Reconstruction metrics: SAEs of known quality, hand counts, and slow references."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from stand_ins import IDENTITY, ZERO, constant
from torch import Tensor

from faithful_sae.contexts import Context, context_table
from faithful_sae.headline import REBUILT_METRICS, RECONSTRUCTION_METRICS
from faithful_sae.reconstruction import ReconstructionSums, reconstruction, reconstruction_metrics
from faithful_sae.sae import SAE
from faithful_sae.sae_card import METRICS
from faithful_sae.shards import EVERY_POSITION, Positions, Shards, write_shard
from faithful_sae.state import State

HOOK = "resid_pre.1"
WITHOUT_START = Positions(skip_first=1, max_norm=None)


@pytest.fixture(scope="module")
def contexts(random_contexts: list[np.ndarray]) -> pa.Table:
    return context_table([Context(b"", i, 0, c, False) for i, c in enumerate(random_contexts)])


@pytest.fixture(scope="module")
def paths(llama: Any, contexts: pa.Table, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("activations")
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("faithful_sae.shards.BLOCK_TOKENS", 16)  # several blocks and shards
        for shard in range(2):
            made.append(folder / f"shard{shard}.parquet")
            write_shard(
                made[-1],
                llama,
                contexts,
                HOOK,
                dtype="float32",
                shard=shard,
                shards=2,
                metadata={"model": "llama"},
                state=State(folder / f"state{shard}", {}, []),
            )
    return made


def everything(paths: list[Path], positions: Positions) -> Tensor:
    return torch.cat(list(Shards(paths, positions).batches()))


def evaluate(
    sae: Any, llama: Any, contexts: pa.Table, paths: list[Path], positions: str, **changes: Any
) -> dict[str, float]:
    asked: dict[str, Any] = {"positions": WITHOUT_START, "hook": HOOK, "ce_tokens": 10_000}
    table = reconstruction(llama, {("mine", 0): sae}, "mine", contexts, paths, **asked | changes)
    chosen = table.filter(pl.col("positions") == positions)
    return dict(chosen.select("metric", "value").iter_rows())


@pytest.mark.parametrize("positions", ["kept", "all"])
def test_an_identity_loses_nothing(
    llama: Any, contexts: pa.Table, paths: list[Path], positions: str
) -> None:
    found = evaluate(IDENTITY, llama, contexts, paths, positions)
    assert found["mse"] == found["fvu"] == 0
    assert found["explained_variance"] == found["explained_variance_pooled"] == 1
    assert found["ce_loss_increase"] == found["ce_loss_increase_stderr"] == 0
    assert found["ce_loss_recovered_zero"] == found["ce_loss_recovered_mean"] == 1


@pytest.mark.parametrize(
    ("positions", "policy"), [("kept", WITHOUT_START), ("all", EVERY_POSITION)]
)
def test_the_mean_explains_and_recovers_nothing(
    llama: Any, contexts: pa.Table, paths: list[Path], positions: str, policy: Positions
) -> None:
    mean = everything(paths, policy).double().mean(0)
    found = evaluate(constant(mean), llama, contexts, paths, positions)
    assert found["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert found["fvu"] == pytest.approx(1, abs=1e-6)
    assert found["ce_loss_recovered_mean"] == pytest.approx(0, abs=1e-5)
    assert abs(found["ce_loss_increase"]) > 1e-2


@pytest.mark.parametrize("positions", ["kept", "all"])
def test_zero_recovers_nothing_of_zero_ablation(
    llama: Any, contexts: pa.Table, paths: list[Path], positions: str
) -> None:
    found = evaluate(ZERO, llama, contexts, paths, positions)
    assert found["ce_loss_recovered_zero"] == 0
    assert abs(found["ce_loss_increase"]) > 1e-2
    assert found["fvu"] >= 1 and found["explained_variance_pooled"] == pytest.approx(0)


def test_every_sae_has_its_own_rows_and_on_all_positions_losses_only_of_its_own_corpus(
    llama: Any, contexts: pa.Table, paths: list[Path]
) -> None:
    saes = {
        ("a", 0): IDENTITY,
        ("a", 1): ZERO,
        ("b", 0): SAE.untrained(d_in=16, d_sae=32, k=4, seed=0),
    }
    asked: Any = ("a", contexts, paths, WITHOUT_START, HOOK, 10_000)
    table = reconstruction(llama, saes, *asked)
    assert table.columns == ["corpus", "seed", "positions", "metric", "value"]
    groups = table.group_by("corpus", "seed", "positions").agg(pl.col("metric"))
    assert len(groups) == 6
    for corpus, _, positions, metrics in groups.iter_rows():
        assert "explained_variance" in metrics
        assert ("ce_loss_increase" in metrics) == (corpus == "a" or positions == "kept")
    for (corpus, seed), sae in saes.items():
        mine = table.filter((pl.col("corpus") == corpus) & (pl.col("seed") == seed))
        assert mine.equals(reconstruction(llama, {(corpus, seed): sae}, *asked))


def test_summaries_and_cards_ask_for_metrics_by_the_names_that_are_measured(
    llama: Any, contexts: pa.Table, paths: list[Path]
) -> None:
    """One that was renamed here alone would be left out there without a word."""
    measured = set(evaluate(ZERO, llama, contexts, paths, "kept"))
    assert {*RECONSTRUCTION_METRICS, *REBUILT_METRICS, *METRICS} <= measured


def test_activations_of_other_contexts_are_refused(
    llama: Any, contexts: pa.Table, paths: list[Path]
) -> None:
    with pytest.raises(ValueError, match="does not hold the activations of these contexts"):
        evaluate(IDENTITY, llama, contexts.slice(1), paths, "kept")


@pytest.mark.parametrize(("asked", "used"), [(1, 4), (4, 4), (5, 15), (10_000, 43)])
def test_losses_are_on_as_many_whole_contexts_as_hold_the_tokens_asked_for(
    llama: Any, contexts: pa.Table, paths: list[Path], asked: int, used: int
) -> None:
    found = evaluate(IDENTITY, llama, contexts, paths, "all", ce_tokens=asked)
    assert found["ce_tokens"] == used
    assert found["tokens"] == 50  # the other metrics are on every token


def added(x: Tensor, x_hat: Tensor, context: np.ndarray, cuts: list[int]) -> dict[str, float]:
    sums = ReconstructionSums(x.shape[1], x.shape[1])
    edges = [0, *sorted(cuts), len(x)]
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        if a < b:
            sums.add(x[a:b], x[a:b].relu(), x_hat[a:b], context[a:b])
    return sums.metrics()


@given(st.lists(st.integers(0, 40), max_size=6), st.integers(0, 10))
def test_streamed_metrics_equal_those_of_one_shot_in_torch(cuts: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 5, generator=generator) * torch.tensor([1.0, 2, 3, 50, 0.1]) + 7
    x_hat = x + torch.randn(40, 5, generator=generator)
    context = np.sort(np.random.default_rng(seed).integers(0, 6, 40))
    found = added(x, x_hat, context, cuts)
    error, centred = (x - x_hat).double(), (x - x.double().mean(0)).double()
    assert found["tokens"] == 40
    assert found["mse"] == pytest.approx(float(error.square().mean()))
    assert found["fvu"] == pytest.approx(float(error.square().sum() / centred.square().sum()))
    assert found["explained_variance"] == 1 - found["fvu"]
    pooled = [
        1 - float(error[context == c].var() / x[context == c].double().var())
        for c in np.unique(context)
    ]
    assert found["explained_variance_pooled"] == pytest.approx(np.mean(pooled))
    assert found["l0"] == pytest.approx(float((x > 0).double().sum(1).mean()))


def test_two_tokens_by_hand() -> None:
    x = torch.tensor([[1.0, 0.0], [3.0, 0.0]])
    x_hat = torch.tensor([[1.0, 1.0], [3.0, 0.0]])
    sums = ReconstructionSums(2, 4)
    sums.add(x, torch.tensor([[1.0, 0, 0, 0], [2.0, 0.5, 0, 0]]), x_hat, np.array([0, 0]))
    found = sums.metrics()
    assert found["l0"] == 1.5 and found["dead_fraction"] == 0.5
    assert found["mse"] == 0.25  # one squared error of 1 in four elements
    assert found["fvu"] == 0.5  # deviations from the mean (2, 0): 1 + 1
    # all elements at once: var(1, 0, 3, 0) = 1.5 and var(0, -1, 0, 0) = 0.1875, divided by n
    assert found["explained_variance_pooled"] == pytest.approx(1 - 0.1875 / 1.5)


@pytest.mark.parametrize("policy", [WITHOUT_START, EVERY_POSITION])
def test_metrics_of_shards_equal_those_of_all_kept_activations_at_once(
    paths: list[Path], policy: Positions
) -> None:
    sae = SAE.untrained(d_in=16, d_sae=32, k=4, seed=0)
    shards = Shards(paths, policy)
    x = everything(paths, policy)
    context = shards.document[shards.kept]  # here every document is one context
    sums = ReconstructionSums(16, 32)
    latents = sae.encode(x)
    sums.add(x, latents, sae.decode(latents), context)
    assert len(x) == (43 if policy is WITHOUT_START else 50)
    assert reconstruction_metrics(sae, shards) == pytest.approx(sums.metrics())
