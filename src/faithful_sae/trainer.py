"""One SAE in training: loss, gradients, optimiser and dead latents, step by step."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim.adam import adam

from faithful_sae import sparse
from faithful_sae.linear import linear
from faithful_sae.sae import SAE

ADAM_BETAS = (0.9, 0.99)
ADAM_EPSILON = 1e-8
AUXILIARY_LATENTS = 512  # dead latents that may explain the residual of one token
AUXILIARY_WEIGHT = 1 / 32
SELECT = {"topk": sparse.top_k, "batch_topk": sparse.batch_top_k}
THRESHOLD_DECAY = 0.99  # of the running mean of BatchTopK's smallest kept value


@dataclass(frozen=True, kw_only=True)
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
    """Of one batch: summed squared error, auxiliary loss per token, active pairs, dead latents.

    Scalars on the device of the SAE; reading one waits for the device.
    """

    squared_error: Tensor
    auxiliary_loss: Tensor
    active: Tensor
    dead: int


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
        self.gradient_means = [torch.zeros_like(p) for p in self.parameters]
        self.square_means = [torch.zeros_like(p) for p in self.parameters]
        self.steps = [torch.zeros((), device=p.device) for p in self.parameters]
        self.tokens_since_fired = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.b_dec.device)
        self.threshold: Tensor | None = None

    @torch.no_grad()
    def step(self, x: Tensor) -> StepResult:
        """One optimiser step on a batch x [n, d_in] of scaled activations."""
        result = self.backward(x)
        self._adam()
        W_dec = self.sae.W_dec
        W_dec.div_(W_dec.norm(dim=1, keepdim=True))
        return result

    @torch.no_grad()
    def backward(self, x: Tensor) -> StepResult:
        """Fill the gradients of the mean loss over x [n, d_in]; count what fired.

        The decoder's gradient is left without its component along each decoder row.
        """
        sae, n = self.sae, len(x)
        centred = x - sae.b_dec
        active = SELECT[self.config.architecture](centred, self.W_enc_rows, sae.b_enc, sae.k)
        # Here, because the host waits for this number: a GPU then has the rest of the step queued.
        dead = self._count_fired(active, n)
        residual = sparse.decode(active, sae.W_dec).add_(sae.b_dec).sub_(x)
        d_x_hat = residual * (2 / n)
        d_values = sparse.pair_products(active, d_x_hat, sae.W_dec)
        d_values *= active.values > 0

        pattern = sparse.transpose(active, sae.d_sae)
        pattern.times(active.values, d_x_hat, out=_grad(sae.W_dec))
        pattern.times(d_values, centred, out=_grad(self.W_enc_rows))
        d_pre = torch.zeros_like(sae.b_enc).index_add_(0, active.latents, d_values)
        torch.sum(d_x_hat, 0, out=_grad(sae.b_dec)).addmv_(self.W_enc_rows.T, d_pre, alpha=-1)
        if self.config.encoder_bias:
            _grad(sae.b_enc).copy_(d_pre)
        # <gradient, row> of each decoder row, from the products of pairs that are already there.
        along = torch.zeros_like(d_pre).index_add_(0, active.latents, active.values * d_values)

        auxiliary = self._auxiliary_backward(centred, residual, dead, along)
        _grad(sae.W_dec).addcmul_(along.unsqueeze(1), sae.W_dec, value=-1)
        if self.config.architecture == "batch_topk":
            self._update_threshold(active.values)
        return StepResult(
            sum_of_squares(residual), auxiliary, (active.values > 0).sum(dtype=x.dtype), len(dead)
        )

    def _count_fired(self, active: sparse.Active, n: int) -> Tensor:
        """Count n more tokens, and return the latents silent for more than `dead_after`."""
        activity = active.values.new_zeros(self.sae.d_sae)
        activity.index_add_(0, active.latents, active.values)
        self.tokens_since_fired.add_(n).masked_fill_(activity > 0, 0)
        return (self.tokens_since_fired > self.config.dead_after).nonzero().squeeze(1)

    def _auxiliary_backward(
        self, centred: Tensor, residual: Tensor, dead: Tensor, along: Tensor
    ) -> Tensor:
        """Add the gradients of AUXILIARY_WEIGHT * |error - dead latents' decoding|^2 per token.

        The error and the centred input are constants here, so b_dec receives nothing. Works on the
        dead columns only; adds to `along` what the decoder's gradient gains along its rows.
        """
        if not len(dead):
            return residual.new_zeros(())
        n, encoder, decoder = len(centred), self.W_enc_rows[dead], self.sae.W_dec[dead]
        latents = linear(centred, encoder, self.sae.b_enc[dead]).relu_()
        if len(dead) > AUXILIARY_LATENTS:
            cut = latents.topk(AUXILIARY_LATENTS, dim=1, sorted=False).values.amin(1, keepdim=True)
            latents.masked_fill_(latents < cut, 0)
        error = linear(latents, decoder.T).add_(residual)
        loss = sum_of_squares(error) / n
        error *= 2 * AUXILIARY_WEIGHT / n
        d_latents = linear(error, decoder).mul_(latents.sign())
        _grad(self.sae.W_dec).index_add_(0, dead, linear(latents.T, error.T))
        _grad(self.W_enc_rows).index_add_(0, dead, linear(d_latents.T, centred.T))
        if self.config.encoder_bias:
            _grad(self.sae.b_enc).index_add_(0, dead, d_latents.sum(0))
        along.index_add_(0, dead, latents.mul_(d_latents).sum(0))
        return loss

    def _adam(self) -> None:
        """One step of Adam; its class would import torch.compile, 1.5 s of every training job."""
        adam(
            self.parameters,
            [_grad(parameter) for parameter in self.parameters],
            self.gradient_means,
            self.square_means,
            max_exp_avg_sqs=[],
            state_steps=self.steps,
            lr=self.config.lr,
            beta1=ADAM_BETAS[0],
            beta2=ADAM_BETAS[1],
            eps=ADAM_EPSILON,
            weight_decay=0.0,
            amsgrad=False,
            maximize=False,
            fused=True,
        )

    def _update_threshold(self, values: Tensor) -> None:
        smallest = values[values > 0].min()
        if self.threshold is None:
            self.threshold = smallest
        else:
            self.threshold.lerp_(smallest, 1 - THRESHOLD_DECAY)

    def state(self) -> dict[str, Tensor]:
        """Everything that the next steps depend on, by name; not copied."""
        tensors = {"tokens_since_fired": self.tokens_since_fired}
        if self.threshold is not None:
            tensors["threshold"] = self.threshold
        for name in ("parameters", "gradient_means", "square_means", "steps"):
            for number, tensor in enumerate(getattr(self, name)):
                tensors[f"{name}.{number}"] = tensor
        return tensors

    @torch.no_grad()
    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, in the same memory: rounding can depend on where."""
        if "threshold" in state:
            self.threshold = torch.empty_like(self.sae.b_dec[0])
        for name, tensor in self.state().items():
            tensor.copy_(state[name])

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


def _grad(parameter: Tensor) -> Tensor:
    gradient = parameter.grad
    assert gradient is not None
    return gradient


def sum_of_squares(x: Tensor) -> Tensor:
    """The squared Frobenius norm of x [n, d], a scalar; unlike x.square().sum() it copies no x.

    By rows: the norm of millions of values at once is added up without pairing and loses 1e-4.
    """
    norms: Tensor = torch.linalg.vector_norm(x, dim=1)
    return norms.square().sum()
