"""Train one sparse autoencoder on activation shards."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from faithful_sae import sparse
from faithful_sae.models import device, hook_block
from faithful_sae.progress import Progress
from faithful_sae.sae import SAE
from faithful_sae.shards import Shards

DATA_SEED = 0  # every SAE sees the same batches in the same order, whatever its own seed
ADAM_BETAS = (0.9, 0.99)
AUXILIARY_LATENTS = 512  # dead latents that may explain the residual of one token
AUXILIARY_WEIGHT = 1 / 32
THRESHOLD_DECAY = 0.99  # of the running mean of BatchTopK's smallest kept value
LOG_POINTS = 100  # rows of the training table


@dataclass(frozen=True)
class SAEConfig:
    """One entry of `saes` in the config; its schema holds the defaults and the units."""

    architecture: str
    expansion: int
    k: int
    encoder_bias: bool
    training_tokens: int
    batch_size: int
    lr: float
    dead_after: int


class StepResult(NamedTuple):
    """Sums over one batch: squared error, auxiliary loss, active latents, dead latents."""

    squared_error: float
    auxiliary_loss: float
    active: int
    dead: int


def train_sae(shards: Shards, config: SAEConfig, seed: int) -> tuple[SAE, pl.DataFrame]:
    """Train an SAE on the tokens that the shards' positions policy keeps.

    Loss: squared error per token, plus 1/32 of the auxiliary loss in which the latents that were
    silent for `dead_after` tokens explain the residual (Gao et al. 2024, arXiv 2406.04093, A.2).
    Adam (0.9, 0.99) at a constant rate; the gradient along each decoder row is removed and the rows
    renormalised at every step. Inputs are scaled to unit mean square for training and the scale is
    folded into the weights, so that the returned SAE works on raw activations. b_dec starts at the
    mean of the data. `seed` chooses the initial weights and nothing else.

    Returns the SAE on the CPU and the training table (step, tokens, loss, fvu, auxiliary_loss, l0,
    dead_fraction: means since the row before, but dead_fraction as it stands). The table holds no
    times, so that equal runs give equal bytes; rates stand in the log.
    """
    d_sae = config.expansion * shards.d_in
    sae = SAE.untrained(d_in=shards.d_in, d_sae=d_sae, k=config.k, seed=seed)
    mean, scale = _mean_and_scale(shards)
    sae.b_dec = mean * scale
    trainer = Trainer(sae.to(device()), config)

    steps = config.training_tokens // config.batch_size
    progress = Progress("train_sae", steps * config.batch_size, "tokens")
    rows: list[dict[str, float]] = []
    sums = _Sums()
    batches = shards.shuffled(config.batch_size, DATA_SEED)
    for step, batch in enumerate(islice(batches, steps), start=1):
        x = batch.to(trainer.sae.b_dec.device) * scale
        sums.add(x, trainer.step(x))
        if step % math.ceil(steps / LOG_POINTS) == 0 or step == steps:
            rows.append({"step": step, "tokens": step * config.batch_size} | sums.row(d_sae))
            sums = _Sums()
        last = f"fvu {rows[-1]['fvu']:.4f}, dead {rows[-1]['dead_fraction']:.1%}" if rows else ""
        progress.advance(len(x), last)
    return _unscaled(trainer.trained(), scale), pl.DataFrame(rows, schema=TRAINING)


def provenance(
    shards: Shards, config: SAEConfig, coordinates: Mapping[str, str], positions: dict[str, Any]
) -> dict[str, Any]:
    """What an SAE's cfg.json says of its making; SAELens keeps these keys under `metadata`."""
    block = hook_block(coordinates["hook"])
    digest = hashlib.sha256()
    for path in shards.paths:
        digest.update(path.read_bytes())
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


class Trainer:
    """An SAE in training: its parameters, gradients, optimiser state and dead-latent counters."""

    def __init__(self, sae: SAE, config: SAEConfig) -> None:
        self.sae, self.config = sae, config
        self.W_enc_rows = sae.W_enc.T.contiguous()
        self.parameters = [self.W_enc_rows, sae.W_dec, sae.b_dec]
        if config.encoder_bias:
            self.parameters.append(sae.b_enc)
        for parameter in self.parameters:
            parameter.requires_grad_()
            parameter.grad = torch.zeros_like(parameter)
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=config.lr, betas=ADAM_BETAS, fused=True
        )
        self.tokens_since_fired = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.b_dec.device)
        self.threshold: Tensor | None = None

    @torch.no_grad()
    def step(self, x: Tensor) -> StepResult:
        """One optimiser step on a batch x [n, d_in] of scaled activations."""
        result = self.backward(x)
        W_dec = self.sae.W_dec
        gradient = _grad(W_dec)
        gradient.addcmul_((gradient * W_dec).sum(1, keepdim=True), W_dec, value=-1)
        self.optimizer.step()
        W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        return result

    @torch.no_grad()
    def backward(self, x: Tensor) -> StepResult:
        """Fill the gradients of the mean loss over x [n, d_in]; count what fired."""
        sae, n = self.sae, len(x)
        centred = x - sae.b_dec
        select = sparse.top_k if self.config.architecture == "topk" else sparse.batch_top_k
        active = select(centred, self.W_enc_rows, sae.b_enc, sae.k)
        with torch.enable_grad():  # for the values alone: O(k) per token
            active.values.requires_grad_()
            decoded = sparse.decode(active, sae.W_dec.detach())
        residual = decoded.detach() + sae.b_dec - x
        d_x_hat = residual * (2 / n)
        (d_values,) = torch.autograd.grad(decoded, active.values, d_x_hat)
        values = active.values.detach()
        d_values *= values > 0

        pattern = sparse.transpose(active, sae.d_sae)
        pattern.times(values, d_x_hat, out=_grad(sae.W_dec))
        pattern.times(d_values, centred, out=_grad(self.W_enc_rows))
        d_pre = torch.zeros_like(sae.b_enc).index_add_(0, active.latents, d_values)
        torch.sub(d_x_hat.sum(0), d_pre @ self.W_enc_rows, out=_grad(sae.b_dec))
        if self.config.encoder_bias:
            _grad(sae.b_enc).copy_(d_pre)

        self.tokens_since_fired += n
        self.tokens_since_fired[active.latents[values > 0]] = 0
        dead = (self.tokens_since_fired > self.config.dead_after).nonzero().squeeze(1)
        auxiliary = self._auxiliary_backward(centred, residual, dead) if len(dead) else 0.0
        if self.config.architecture == "batch_topk":
            self._update_threshold(values)
        return StepResult(
            residual.square().sum().item(), auxiliary, int((values > 0).sum()), len(dead)
        )

    def _auxiliary_backward(self, centred: Tensor, residual: Tensor, dead: Tensor) -> float:
        """Add the gradients of AUXILIARY_WEIGHT * |error - dead latents' decoding|^2 per token.

        The error and the centred input are constants here, so b_dec receives nothing. Works on the
        dead columns only.
        """
        with torch.enable_grad():
            encoder = self.W_enc_rows[dead].detach().requires_grad_()
            decoder = self.sae.W_dec[dead].detach().requires_grad_()
            b_enc = self.sae.b_enc[dead].detach().requires_grad_(self.config.encoder_bias)
            latents = torch.addmm(b_enc, centred, encoder.T).relu()
            if len(dead) > AUXILIARY_LATENTS:
                values, indices = latents.topk(AUXILIARY_LATENTS, dim=1, sorted=False)
                latents = torch.zeros_like(latents).scatter(1, indices, values)
            loss = (latents @ decoder + residual).square().sum() / len(centred)
            torch.autograd.backward(AUXILIARY_WEIGHT * loss)
        _grad(self.W_enc_rows).index_add_(0, dead, _grad(encoder))
        _grad(self.sae.W_dec).index_add_(0, dead, _grad(decoder))
        if self.config.encoder_bias:
            _grad(self.sae.b_enc).index_add_(0, dead, _grad(b_enc))
        return loss.item()

    def _update_threshold(self, values: Tensor) -> None:
        smallest = values[values > 0].min()
        if self.threshold is None:
            self.threshold = smallest
        else:
            self.threshold.lerp_(smallest, 1 - THRESHOLD_DECAY)

    def trained(self) -> SAE:
        """The SAE as it stands, on the CPU, with contiguous weights."""
        sae = self.sae
        return SAE(
            W_enc=self.W_enc_rows.detach().T.contiguous(),
            b_enc=sae.b_enc.detach(),
            W_dec=sae.W_dec.detach(),
            b_dec=sae.b_dec.detach(),
            k=sae.k,
            threshold=self.threshold,
        ).to(torch.device("cpu"))


class _Sums:
    """Sums over the batches between two rows of the training table."""

    def __init__(self) -> None:
        self.tokens = self.active = self.steps = self.dead = 0
        self.squared_error = self.deviation = self.auxiliary_loss = 0.0

    def add(self, x: Tensor, result: StepResult) -> None:
        self.steps += 1
        self.tokens += len(x)
        self.deviation += (x - x.mean(0)).square().sum().item()
        self.squared_error += result.squared_error
        self.auxiliary_loss += result.auxiliary_loss
        self.active += result.active
        self.dead = result.dead

    def row(self, d_sae: int) -> dict[str, float]:
        return {
            "loss": self.squared_error / self.tokens
            + AUXILIARY_WEIGHT * self.auxiliary_loss / self.steps,
            "fvu": self.squared_error / self.deviation,
            "auxiliary_loss": self.auxiliary_loss / self.steps,
            "l0": self.active / self.tokens,
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


def _grad(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    return gradient
