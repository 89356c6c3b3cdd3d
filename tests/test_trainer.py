"""A training step agrees with a dense autograd reference."""

import pytest
import torch
from dense_sae import Gradients, loss_and_gradients, without_component_along

from faithful_sae import trainer as trainer_module
from faithful_sae.sae import SAE
from faithful_sae.trainer import SAEConfig, Trainer, sum_of_squares

D_IN, D_SAE, K, N = 6, 24, 3, 40
ARCHITECTURES = ["topk", "batch_topk"]


def config_of(**changes) -> SAEConfig:
    defaults = {
        "architecture": "topk", "expansion": 2, "k": 2, "encoder_bias": False,
        "training_tokens": 3200, "batch_size": 64, "lr": 1e-2, "dead_after": 10_000,
    }  # fmt: skip
    return SAEConfig(**defaults | changes)


def trainer_of(architecture="topk", *, bias=False, dead=(), seed=0) -> Trainer:
    """A float64 trainer with weights off their initial values, in which `dead` latents are dead."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    W_dec = normal(D_SAE, D_IN)
    W_enc, b_enc = normal(D_IN, D_SAE), normal(D_SAE) * 0.1 * bias
    W_enc[:, list(dead)] *= 1e-3  # too weak to be chosen, yet not silent
    b_enc[list(dead)] *= 1e-3
    sae = SAE(W_enc, b_enc, W_dec / W_dec.norm(dim=1, keepdim=True), normal(D_IN), K)
    trainer = Trainer(sae, config_of(architecture=architecture, k=K, encoder_bias=bias))
    trainer.tokens_since_fired[list(dead)] = trainer.config.dead_after
    return trainer


def batch_of(seed=1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(N, D_IN, generator=generator, dtype=torch.float64)


def gradients_of(trainer: Trainer) -> Gradients:
    b_enc = trainer.sae.b_enc.grad
    return Gradients(
        trainer.W_enc_rows.grad.T,
        torch.zeros(D_SAE, dtype=torch.float64) if b_enc is None else b_enc,
        trainer.sae.W_dec.grad,
        trainer.sae.b_dec.grad,
    )


def reference(trainer: Trainer, x: torch.Tensor, dead: torch.Tensor):
    """What `loss_and_gradients` returns, the decoder's gradient projected."""
    sae = trainer.sae
    *losses, gradients = loss_and_gradients(
        Gradients(trainer.W_enc_rows.T, sae.b_enc, sae.W_dec, sae.b_dec),
        x,
        architecture=trainer.config.architecture,
        k=sae.k,
        dead=dead,
        auxiliary_k=trainer_module.AUXILIARY_LATENTS,
        auxiliary_weight=1 / 32,
    )
    gradients.W_dec = without_component_along(sae.W_dec.detach(), gradients.W_dec)
    return *losses, gradients


def mask(numbers) -> torch.Tensor:
    dead = torch.zeros(D_SAE, dtype=torch.bool)
    dead[list(numbers)] = True
    return dead


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dead", [(), range(4), range(10)], ids=["no dead", "few", "many"])
def test_gradients_and_losses_are_those_of_dense_autograd(monkeypatch, architecture, bias, dead):
    """With 4 dead latents all of them explain the error; of 10, the 5 largest of each token."""
    monkeypatch.setattr(trainer_module, "AUXILIARY_LATENTS", 5)
    trainer, x = trainer_of(architecture, bias=bias, dead=dead), batch_of()
    squared_error, auxiliary, latents, expected = reference(trainer, x, mask(dead))
    result = trainer.backward(x)
    assert result.squared_error == pytest.approx(squared_error, rel=1e-6)
    assert result.auxiliary_loss == pytest.approx(auxiliary, rel=1e-6)
    assert (auxiliary > 0) == bool(dead)
    assert result.active == int((latents > 0).sum())
    assert result.dead == len(dead)
    found = gradients_of(trainer)
    for name in ("W_enc", "W_dec", "b_dec", *(["b_enc"] if bias else [])):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-6, atol=1e-9, msg=name
        )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_latents_chosen_at_zero_have_not_fired_and_get_no_gradient(architecture):
    """Where ReLU leaves fewer than k latents the choice is filled up with silent ones."""
    trainer, x = trainer_of(architecture, bias=True), batch_of()
    trainer.sae.b_enc.detach().sub_(8.0)
    _, _, latents, expected = reference(trainer, x, mask(()))
    assert 0 < (latents > 0).sum() < N * K / 2
    trainer.backward(x)
    fired = (latents > 0).any(0)
    assert torch.equal(trainer.tokens_since_fired == 0, fired) and not fired.all()
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        found = getattr(gradients_of(trainer), name)
        torch.testing.assert_close(found, getattr(expected, name), rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dead", [(), range(40)], ids=["no dead", "dead"])
def test_float32_gradients_are_within_1e_6_of_those_in_float64(architecture, dead):
    """At a width where every fast path is taken, and relative to each gradient's norm."""
    d_in, d_sae, n = 64, 512, 300
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=8, seed=0)
    sae.W_enc[:, list(dead)] *= 1e-3
    x = torch.randn(n, d_in, generator=torch.Generator().manual_seed(1))
    config = config_of(architecture=architecture, k=8, encoder_bias=True)
    *_, expected = loss_and_gradients(
        Gradients(*(t.double() for t in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec))),
        x.double(),
        architecture=architecture,
        k=8,
        dead=torch.arange(d_sae) < len(dead),
        auxiliary_k=trainer_module.AUXILIARY_LATENTS,
        auxiliary_weight=1 / 32,
    )
    expected.W_dec = without_component_along(sae.W_dec.double(), expected.W_dec)
    trainer = Trainer(sae, config)
    trainer.tokens_since_fired[list(dead)] = config.dead_after
    trainer.tokens_since_fired[len(dead) :] = -n  # others cannot be dead
    trainer.backward(x)
    found = gradients_of(trainer)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        wanted = getattr(expected, name)
        assert (getattr(found, name) - wanted).norm() < 1e-6 * wanted.norm(), name


def test_the_auxiliary_loss_moves_dead_latents_and_not_the_decoder_bias():
    dead, x = range(4), batch_of()
    with_dead, without = trainer_of(dead=dead), trainer_of(dead=dead)
    without.tokens_since_fired.zero_()
    assert with_dead.backward(x).dead == 4 and without.backward(x).dead == 0
    assert torch.equal(with_dead.sae.b_dec.grad, without.sae.b_dec.grad)
    for a, b in [
        (with_dead.sae.W_dec, without.sae.W_dec),
        (with_dead.W_enc_rows, without.W_enc_rows),
    ]:
        assert torch.equal(a.grad[4:], b.grad[4:])
        assert (a.grad[:4] != b.grad[:4]).any(1).all()


def test_gradients_are_of_this_batch_alone():
    trainer, fresh = trainer_of(bias=True), trainer_of(bias=True)
    trainer.backward(batch_of(seed=1))
    trainer.backward(batch_of(seed=2))
    fresh.backward(batch_of(seed=2))
    for a, b in zip(trainer.parameters, fresh.parameters, strict=True):
        assert torch.equal(a.grad, b.grad)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_three_steps_are_those_of_projection_then_adam_then_renormalising(architecture):
    trainer = trainer_of(architecture, bias=True)
    W_enc, b_enc, W_dec, b_dec = weights = [
        t.detach().clone().requires_grad_()
        for t in (trainer.W_enc_rows.T, trainer.sae.b_enc, trainer.sae.W_dec, trainer.sae.b_dec)
    ]
    adam = torch.optim.Adam(weights, lr=trainer.config.lr, betas=(0.9, 0.99))
    for seed in range(3):
        x = batch_of(seed)
        *_, gradients = reference(trainer, x, mask(()))
        trainer.step(x)
        W_enc.grad, b_enc.grad = gradients.W_enc, gradients.b_enc
        W_dec.grad, b_dec.grad = gradients.W_dec, gradients.b_dec
        along = (trainer.sae.W_dec.grad * W_dec.detach()).sum(1)
        assert along.abs().max() < 1e-12 * gradients.W_dec.abs().max()
        adam.step()
        with torch.no_grad():
            W_dec /= W_dec.norm(dim=1, keepdim=True)
        ours = (trainer.W_enc_rows.T, trainer.sae.b_enc, trainer.sae.W_dec, trainer.sae.b_dec)
        for found, expected in zip(ours, weights, strict=True):
            torch.testing.assert_close(found.detach(), expected.detach(), rtol=1e-6, atol=1e-9)
    assert torch.allclose(trainer.sae.W_dec.norm(dim=1), torch.ones(D_SAE, dtype=torch.float64))


def test_without_encoder_bias_it_stays_zero():
    trainer = trainer_of(bias=False)
    trainer.step(batch_of())
    assert not trainer.sae.b_enc.any()


def test_a_latent_is_dead_after_dead_after_silent_tokens_and_alive_once_it_fires():
    """Two latents along the axes, k = 1: the first fires on (1, 0), the second on (0, 1)."""
    eye = torch.eye(2)
    sae = SAE(eye.clone(), torch.zeros(2), eye.clone(), torch.zeros(2), k=1)
    trainer = Trainer(sae, config_of(k=1, lr=1e-9, dead_after=6))
    first, second = torch.tensor([[1.0, 0.0]] * 3), torch.tensor([[0.0, 1.0]] * 3)
    dead = [trainer.step(x).dead for x in (first, first, first, second, second, second, second)]
    # Second: silent for 3, 6, 9 > 6 tokens, then fires. First: silent for 3, 6, 9, 12.
    assert dead == [0, 0, 1, 0, 0, 1, 1]


def test_sums_of_squares_are_exact_to_float32_however_large_the_batch():
    x = torch.randn(4096, 2048, generator=torch.Generator().manual_seed(0))
    assert sum_of_squares(x).item() == pytest.approx(x.double().square().sum().item(), rel=1e-6)
