"""How well an SAE rebuilds activations, and what the model loses when it reads the rebuilt ones."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from torch import Tensor

from faithful_sae.activations import batches_by_length, hidden_states, resumed_at
from faithful_sae.contexts import context_tokens
from faithful_sae.likelihood import next_token_losses
from faithful_sae.progress import Progress
from faithful_sae.sae import SAE
from faithful_sae.shards import EVERY_POSITION, Positions, Shards

Key = tuple[str, int]  # train corpus and seed of an SAE


class ReconstructionSums:
    """Sums over all tokens of a corpus, divided once at the end.

    With x the activations, e = x - x_hat and sums over tokens and dimensions:

    - l0: active latents per token
    - mse: sum e^2 / (tokens * d_in), the paper's L2
    - fvu: sum e^2 / sum (x - mean)^2, the mean taken per dimension over all tokens
    - explained_variance: 1 - fvu
    - explained_variance_pooled: the paper's, 1 - var(e) / var(x) with each variance over all
      elements of one context at once, averaged over contexts; a few large dimensions carry it
    - dead_fraction: share of latents that never fire on these tokens
    """

    def __init__(self, d_in: int, d_sae: int) -> None:
        self.tokens = self.active = 0
        self.error = 0.0
        self.x = torch.zeros(d_in, dtype=torch.float64)
        self.x_squared = torch.zeros(d_in, dtype=torch.float64)
        self.fired = torch.zeros(d_sae, dtype=torch.bool)
        self.contexts: dict[int, Tensor] = {}  # n, sum x, sum x^2, sum e, sum e^2 over elements

    def add(self, x: Tensor, latents: Tensor, x_hat: Tensor, context: np.ndarray) -> None:
        """x, x_hat: [n, d_in]; latents: [n, d_sae]; context: [n] number of each token's context."""
        x, error = x.double(), (x - x_hat).double()
        self.tokens += len(x)
        self.active += int((latents > 0).sum())
        self.error += float(error.square().sum())
        self.x += x.sum(0)
        self.x_squared += x.square().sum(0)
        self.fired |= (latents > 0).any(0)
        per_token = torch.stack(
            [torch.full((len(x),), float(x.shape[1])).double()]
            + [t for v in (x, error) for t in (v.sum(1), v.square().sum(1))],
            dim=1,
        )
        numbers, where = np.unique(context, return_inverse=True)
        sums = torch.zeros(len(numbers), 5, dtype=torch.float64)
        sums.index_add_(0, torch.from_numpy(where), per_token)
        for number, row in zip(numbers.tolist(), sums, strict=True):
            self.contexts[number] = self.contexts.get(number, 0) + row

    def metrics(self) -> dict[str, float]:
        """The metrics of the class's docstring, and the number of tokens."""
        deviation = float((self.x_squared - self.x.square() / self.tokens).sum())
        n, x, x2, e, e2 = torch.stack(list(self.contexts.values())).T
        pooled = 1 - (e2 - e.square() / n) / (x2 - x.square() / n)
        fvu = self.error / deviation
        return {
            "tokens": self.tokens,
            "l0": self.active / self.tokens,
            "mse": self.error / (self.tokens * len(self.x)),
            "fvu": fvu,
            "explained_variance": 1 - fvu,
            "explained_variance_pooled": float(pooled.mean()),
            "dead_fraction": 1 - float(self.fired.double().mean()),
        }


def reconstruction_metrics(sae: SAE, shards: Shards) -> dict[str, float]:
    """ReconstructionSums.metrics of one SAE on the tokens that the shards keep."""
    sums = ReconstructionSums(sae.d_in, sae.d_sae)
    context = np.cumsum(shards.position == 0)
    for rows, x in shards.blocks():
        latents = sae.encode(x)
        sums.add(x, latents, sae.decode(latents), context[rows])
    return sums.metrics()


class LossSums:
    """Cross-entropy per context under one treatment of the activations, nats."""

    def __init__(self) -> None:
        self.loss: list[float] = []  # per context, summed over its predicted tokens
        self.tokens: list[int] = []

    def mean(self) -> float:
        return sum(self.loss) / sum(self.tokens)

    def increase(self, clean: "LossSums") -> tuple[float, float]:
        """Mean increase over `clean` in nats per token, and its standard error.

        Contexts are the unit of the error (a ratio estimate), since tokens of one are dependent.
        """
        n = np.array(self.tokens, float)
        d = np.array(self.loss) - np.array(clean.loss)
        mean = d.sum() / n.sum()
        if len(n) < 2:
            return float(mean), float("nan")
        error = np.sqrt(((d - mean * n) ** 2).sum() * len(n) / (len(n) - 1)) / n.sum()
        return float(mean), float(error)


@torch.inference_mode()
def loss_metrics(
    model: Any,
    saes: Mapping[Key, SAE],
    contexts: list[np.ndarray],
    kept: list[np.ndarray],
    mean: Tensor,
    hook: str,
) -> dict[Key, dict[str, float]]:
    """What the model's next-token loss becomes when it reads x_hat instead of x at the hook.

    At the positions in `kept` (one mask per context) the activation is replaced and the model run
    on from there. Per SAE, with losses in nats per token:

    - ce_loss: of the untouched model; ce_tokens: predicted tokens
    - ce_loss_increase: loss with x_hat - ce_loss (the paper's CE difference), and its stderr
    - ce_loss_recovered_zero, _mean: 1 - increase / increase when x is replaced by zero, or by the
      corpus's `mean` [d_in], at the same positions; nan where that changes no loss

    The untouched model is also run from its own activations at the hook, so identity is exactly 0.
    """
    clean, zero, mean_ablated = LossSums(), LossSums(), LossSums()
    spliced = {key: LossSums() for key in saes}
    progress = Progress("reconstruction", len(contexts), "contexts")
    for numbers, tokens in batches_by_length(contexts, model.device):
        hidden = hidden_states(model, tokens, hook)
        lengths = [len(contexts[i]) for i in numbers]
        replace = torch.zeros(tokens.shape, dtype=torch.bool)
        for row, number in enumerate(numbers):
            replace[row, : lengths[row]] = torch.from_numpy(kept[number])
        replace = replace.to(model.device)

        def run(
            sums: LossSums,
            new: Tensor | None,
            hidden: Tensor = hidden,
            tokens: Tensor = tokens,
            replace: Tensor = replace,
            lengths: list[int] = lengths,
        ) -> None:
            read = hidden.clone()
            if new is not None:
                read[replace] = new
            with resumed_at(model, hook, read):
                losses = next_token_losses(model, tokens)
            for row, length in enumerate(lengths):
                sums.loss.append(float(losses[row, : length - 1].sum(dtype=torch.float64)))
                sums.tokens.append(length - 1)

        x = hidden[replace]
        run(clean, None)
        run(zero, torch.zeros_like(x))
        run(mean_ablated, mean.to(x).expand_as(x))
        for key, sae in saes.items():
            run(spliced[key], sae.to(x.device)(x))
        progress.advance(len(numbers))

    worst = {"zero": zero.increase(clean)[0], "mean": mean_ablated.increase(clean)[0]}
    results = {}
    for key, sums in spliced.items():
        increase, error = sums.increase(clean)
        results[key] = {
            "ce_tokens": float(sum(clean.tokens)),
            "ce_loss": clean.mean(),
            "ce_loss_increase": increase,
            "ce_loss_increase_stderr": error,
        } | {
            f"ce_loss_recovered_{how}": 1 - increase / loss if loss else math.nan
            for how, loss in worst.items()
        }
    return results


def reconstruction(
    model: Any,
    saes: Mapping[Key, SAE],
    eval_corpus: str,
    contexts: pa.Table,
    paths: list[Path],
    positions: Positions,
    hook: str,
    ce_tokens: int,
) -> pl.DataFrame:
    """Every SAE on one corpus's held-out contexts, under the positions policy and on all positions.

    On all positions only SAEs of the corpus itself have metrics of the loss: a pass of the model
    for every SAE on every corpus is most of what a study of many corpora costs, and what the policy
    leaves out shows on an SAE's own text.

    saes: by (train corpus, seed); paths: the contexts' activation shards, in order.
    Returns columns corpus, seed, positions ("kept" or "all"), metric, value.
    """
    tokens = context_tokens(contexts)
    ends = np.cumsum([len(t) for t in tokens])
    sample = 1 + int(np.searchsorted(np.cumsum([len(t) - 1 for t in tokens]), ce_tokens))
    sample = min(sample, len(tokens))
    rows: list[dict[str, Any]] = []
    for name, policy in (("kept", positions), ("all", EVERY_POSITION)):
        shards = Shards(paths, policy)
        if len(shards.kept) != ends[-1]:
            raise ValueError(f"{paths[0]} does not hold the activations of these contexts.")
        kept = np.split(shards.kept, ends[:-1])[:sample]
        mean = sum((x.sum(0, dtype=torch.float64) for x in shards.batches()), torch.zeros(1))
        read = {k: sae for k, sae in saes.items() if name == "kept" or k[0] == eval_corpus}
        losses = loss_metrics(model, read, tokens[:sample], kept, mean / len(shards), hook)
        for (corpus, seed), sae in saes.items():
            metrics = reconstruction_metrics(sae, shards) | losses.get((corpus, seed), {})
            rows += [
                {"corpus": corpus, "seed": seed, "positions": name, "metric": m, "value": float(v)}
                for m, v in metrics.items()
            ]
    return pl.DataFrame(rows)
