"""Train one sparse autoencoder on activation shards."""

import hashlib
import math
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from itertools import islice
from typing import Any

import polars as pl
import torch
from torch import Tensor

from faithful_sae.hook_names import hook_block
from faithful_sae.models import device
from faithful_sae.progress import Progress
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards
from faithful_sae.state import State
from faithful_sae.trainer import (
    AUXILIARY_WEIGHT,
    SAEConfig,
    StepResult,
    Trainer,
    sum_of_squares,
)

DATA_SEED = 0  # every SAE sees the same batches in the same order, whatever its own seed
LOG_POINTS = 100  # rows of the training table


def train_sae(
    shards: Shards, config: SAEConfig, seed: int, state: State | None = None
) -> tuple[SAE, pl.DataFrame]:
    """Train an SAE on the tokens that the shards' positions policy keeps.

    Loss: squared error per token, plus 1/32 of the auxiliary loss in which the latents that were
    silent for `dead_after` tokens explain the residual (Gao et al. 2024, arXiv 2406.04093, A.2).
    Adam (0.9, 0.99) at a constant rate; the gradient along each decoder row is removed and the rows
    renormalised at every step. Inputs are scaled to unit mean square for training and the scale is
    folded into the weights, so that the returned SAE works on raw activations. b_dec starts at the
    mean of the data. `seed` chooses the initial weights and nothing else. With a `state`, training
    goes on from the checkpoint there, to the same bits on the CPU, and saves its own.

    Returns the SAE on the CPU and the training table (step, tokens, loss, fvu, auxiliary_loss, l0,
    dead_fraction: means since the row before, but dead_fraction as it stands). The table holds no
    times, so that equal runs give equal bytes on the CPU (a GPU adds up in no fixed order); rates
    stand in the log.
    """
    d_sae = config.expansion * shards.d_in
    sae = SAE.untrained(d_in=shards.d_in, d_sae=d_sae, k=config.k, seed=seed)
    checkpoint = state.load() if state else None
    mean, scale = _mean_and_scale(shards)
    sae.b_dec = mean * scale
    trainer = Trainer(sae.to(device()), config)
    rows: list[dict[str, float]] = []
    sums, done = _Sums(), 0
    if checkpoint:
        tensors, facts = checkpoint
        trainer.restore(tensors)
        sums.sums.copy_(tensors["sums"])
        sums.tokens, sums.steps, sums.dead = facts["sums"]
        rows, done = facts["rows"], facts["done"]

    steps = config.training_tokens // config.batch_size
    progress = Progress(
        "train_sae", steps * config.batch_size, "tokens", before=done * config.batch_size
    )
    batches = shards.shuffled(config.batch_size, DATA_SEED, skip=done)
    with state.stoppable() if state else nullcontext():
        for step, batch in enumerate(islice(batches, steps - done), start=done + 1):
            x = batch.to(trainer.sae.b_dec.device) * scale
            sums.add(x, trainer.step(x))
            if step % math.ceil(steps / LOG_POINTS) == 0 or step == steps:
                rows.append({"step": step, "tokens": step * config.batch_size} | sums.row(d_sae))
                sums = _Sums()
            last = rows[-1] if rows else {"fvu": math.nan, "dead_fraction": math.nan}
            progress.advance(len(x), f"fvu {last['fvu']:.4f}, dead {last['dead_fraction']:.1%}")
            if state and state.due():
                counts = [sums.tokens, sums.steps, sums.dead]
                state.save(
                    trainer.state() | {"sums": sums.sums},
                    {"done": step, "rows": rows, "sums": counts},
                )
    return _unscaled(trainer.trained(), scale), pl.DataFrame(rows, schema=TRAINING)


def provenance(
    shards: Shards, config: SAEConfig, coordinates: Mapping[str, str], positions: dict[str, Any]
) -> dict[str, Any]:
    """What an SAE's cfg.json says of its making; SAELens keeps these keys under `metadata`."""
    block = hook_block(coordinates["hook"])
    digest = hashlib.sha256()
    for path in shards.paths:
        with open(path, "rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return {
        "model_name": shards.metadata["model"],
        "hook_name": f"blocks.{block}.hook_resid_pre",
        "hf_hook_name": f"hidden_states[{block}]",
        "start_token": int(shards.metadata["start_token"]),
        **coordinates,
        "seed": int(coordinates["seed"]),
        "positions": positions,
        "training": asdict(config),
        "activations_sha256": digest.hexdigest(),
    }


TRAINING = {
    "step": pl.Int64,
    "tokens": pl.Int64,
    "loss": pl.Float64,
    "fvu": pl.Float64,
    "auxiliary_loss": pl.Float64,
    "l0": pl.Float64,
    "dead_fraction": pl.Float64,
}


class _Sums:
    """Sums over the batches between two rows of the training table, kept on the device."""

    def __init__(self) -> None:
        self.tokens = self.steps = self.dead = 0
        self.sums = torch.zeros(4, dtype=torch.float64, device=device())

    def add(self, x: Tensor, result: StepResult) -> None:
        self.steps += 1
        self.tokens += len(x)
        deviation = sum_of_squares(x - x.mean(0))
        self.sums += torch.stack(
            [result.squared_error, deviation, result.auxiliary_loss, result.active]
        )
        self.dead = result.dead

    def row(self, d_sae: int) -> dict[str, float]:
        squared_error, deviation, auxiliary_loss, active = self.sums.tolist()
        return {
            "loss": squared_error / self.tokens + AUXILIARY_WEIGHT * auxiliary_loss / self.steps,
            "fvu": squared_error / deviation,
            "auxiliary_loss": auxiliary_loss / self.steps,
            "l0": active / self.tokens,
            "dead_fraction": self.dead / d_sae,
        }


def _mean_and_scale(shards: Shards) -> tuple[Tensor, float]:
    """The mean [d_in] of the kept activations, and the scale that gives them unit mean square."""
    total, squares = torch.zeros(shards.d_in, dtype=torch.float64), 0.0
    for x in shards.batches():
        total += x.sum(0, dtype=torch.float64)
        squares += x.double().square().sum().item()
    return (total / len(shards)).float(), math.sqrt(len(shards) * shards.d_in / squares)


def _unscaled(sae: SAE, scale: float) -> SAE:
    """The SAE on raw activations that equals `sae` on activations times `scale`.

    latents(scale x) / scale = activate((x - b_dec / scale) W_enc + b_enc / scale), and decoding is
    linear: only the biases and the threshold change.
    """
    threshold = None if sae.threshold is None else sae.threshold / scale
    return SAE(sae.W_enc, sae.b_enc / scale, sae.W_dec, sae.b_dec / scale, sae.k, threshold)
