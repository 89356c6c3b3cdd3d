"""Training finds what is there to be found, and reports what it did."""

from itertools import islice

import polars as pl
import pytest
import torch
from synthetic_shards import write_shards

from faithful_sae import train
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions, Shards
from faithful_sae.train import provenance, train_sae
from faithful_sae.trainer import SAEConfig, Trainer

ARCHITECTURES = ["topk", "batch_topk"]
POSITIONS = Positions(skip_first=1, max_norm=None)


def config_of(**changes) -> SAEConfig:
    defaults = {
        "architecture": "topk", "expansion": 2, "k": 2, "encoder_bias": False,
        "training_tokens": 3200, "batch_size": 64, "lr": 1e-2, "dead_after": 10_000,
    }  # fmt: skip
    return SAEConfig(**defaults | changes)


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """(shards, dictionary) of activations that are 2-sparse in 12 known unit directions of 8."""
    generator = torch.Generator().manual_seed(99)  # no seed that an SAE below starts from
    dictionary = torch.randn(12, 8, generator=generator)
    dictionary /= dictionary.norm(dim=1, keepdim=True)
    chosen = torch.rand(640, 12, generator=generator).topk(2, dim=1).indices
    strength = 1 + torch.rand(640, 2, generator=generator)
    codes = torch.zeros(640, 12).scatter(1, chosen, strength)
    x = 30 * (codes @ dictionary) + torch.arange(8.0)
    paths = write_shards(tmp_path_factory.mktemp("known"), x, [20] * 32, block_tokens=80)
    return Shards(paths, POSITIONS), dictionary


def kept(shards: Shards) -> torch.Tensor:
    return torch.cat(list(shards.batches()))


def fvu(sae: SAE, x: torch.Tensor) -> float:
    return ((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()).item()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_recovers_a_known_dictionary_that_the_initial_sae_does_not_hold(
    known, architecture
):
    shards, dictionary = known
    config = config_of(architecture=architecture, training_tokens=32_000)
    trained, table = train_sae(shards, config, seed=0)
    untrained, _ = train_sae(shards, config_of(training_tokens=0), seed=0)

    def missed(sae):
        return 1 - (dictionary @ sae.W_dec.T).max(1).values.mean()

    assert fvu(trained, kept(shards)) < 0.5 * fvu(untrained, kept(shards))
    assert missed(trained) < 0.6 * missed(untrained)
    assert table["fvu"][-1] < 0.5 * table["fvu"][0]
    assert torch.allclose(trained.W_dec.norm(dim=1), torch.ones(trained.d_sae))


def test_the_seed_changes_the_initial_weights_and_nothing_else(known, monkeypatch):
    shards, _ = known
    seen, initial = {}, {}
    step, init = Trainer.step, Trainer.__init__

    def recorded_init(self, sae, config):
        initial[seed] = (sae.W_dec.clone(), sae.b_dec.clone())
        init(self, sae, config)

    def recorded_step(self, x):
        seen.setdefault(seed, []).append(x.clone())
        return step(self, x)

    monkeypatch.setattr(Trainer, "__init__", recorded_init)
    monkeypatch.setattr(Trainer, "step", recorded_step)
    for seed in (0, 1):
        train_sae(shards, config_of(), seed)
    assert len(seen[0]) == len(seen[1]) == 50
    assert all(torch.equal(a, b) for a, b in zip(seen[0], seen[1], strict=True))
    assert not torch.equal(initial[0][0], initial[1][0])
    assert torch.equal(initial[0][1], initial[1][1])


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA adds up in no fixed order")
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("seeds", [(3, 3), (0, 1)])
def test_the_same_initial_weights_give_the_same_bits_whatever_the_seed(
    known, architecture, seeds, monkeypatch
):
    """Of dead latents and thresholds too, nothing else reads it."""
    shards, _ = known
    if seeds != (3, 3):
        untrained = SAE.untrained
        monkeypatch.setattr(SAE, "untrained", lambda **given: untrained(**given | {"seed": 7}))
    config = config_of(architecture=architecture, encoder_bias=True, dead_after=20)
    (a, table_a), (b, table_b) = (train_sae(shards, config, seed) for seed in seeds)
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(a, name), getattr(b, name))
    assert a.threshold is b.threshold is None or torch.equal(a.threshold, b.threshold)
    assert table_a.equals(table_b) and table_a["dead_fraction"].max() > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_scale_is_folded_into_what_is_returned(known, architecture, monkeypatch):
    """On raw activations it is the function that was trained on scaled ones, scaled back."""
    shards, _ = known
    scaled, scales = [], []
    trained, measure = Trainer.trained, train._mean_and_scale
    monkeypatch.setattr(Trainer, "trained", lambda self: scaled.append(trained(self)) or scaled[0])

    def measured(shards):
        scales.append(measure(shards)[1])
        return measure(shards)

    monkeypatch.setattr(train, "_mean_and_scale", measured)
    config = config_of(architecture=architecture, encoder_bias=True)
    sae, _ = train_sae(shards, config, seed=0)
    x, (inner,), (scale,) = kept(shards), scaled, scales
    assert (x * scale).square().mean().item() == pytest.approx(1.0, rel=1e-5)
    assert abs(scale - 1) > 0.5
    expected = inner(x * scale) / scale
    assert (sae(x) - expected).norm() <= 1e-5 * expected.norm()


def test_no_training_tokens_give_the_untrained_sae_about_the_mean(known):
    shards, _ = known
    sae, table = train_sae(shards, config_of(training_tokens=0), seed=5)
    untrained = SAE.untrained(d_in=8, d_sae=16, k=2, seed=5)
    assert torch.equal(sae.W_enc, untrained.W_enc) and torch.equal(sae.W_dec, untrained.W_dec)
    assert torch.allclose(sae.b_dec, kept(shards).mean(0), rtol=1e-5)
    assert table.is_empty()
    assert table.schema == train_sae(shards, config_of(), seed=5)[1].schema


def test_the_training_table_has_at_most_100_rows_and_counts_every_token(known):
    shards, _ = known
    _, table = train_sae(shards, config_of(training_tokens=64 * 150 + 63), seed=0)
    assert table.columns == [
        "step", "tokens", "loss", "fvu", "auxiliary_loss", "l0", "dead_fraction"
    ]  # fmt: skip
    assert table["step"].to_list() == list(range(2, 151, 2))
    assert table["tokens"].to_list() == [64 * step for step in table["step"]]
    assert table.select(pl.all().is_finite().all()).row(0) == (True,) * 7
    assert (table["l0"] <= 2).all() and (table["l0"] > 1.5).all()


def test_the_training_table_reports_the_means_of_the_steps_between_its_rows(known, monkeypatch):
    """The first row of a run that logs every third step, computed from what the steps saw."""
    shards, _ = known
    monkeypatch.setattr(train, "LOG_POINTS", 2)
    mean, scale = train._mean_and_scale(shards)
    config = config_of(training_tokens=64 * 6, lr=1e-12, dead_after=64)
    sae, table = train_sae(shards, config, seed=0)
    batches = [x * scale for x in islice(shards.shuffled(64, train.DATA_SEED), 3)]
    untrained = SAE.untrained(d_in=8, d_sae=16, k=2, seed=0)  # lr is as good as zero
    untrained.b_dec = mean * scale
    error = sum((x - untrained(x)).square().sum().item() for x in batches)
    spread = sum((x - x.mean(0)).square().sum().item() for x in batches)
    fired = [(untrained.encode(x) > 0).any(0) for x in batches]
    row = table.row(0, named=True)
    assert table.height == 2 and (row["step"], row["tokens"]) == (3, 192)
    assert row["fvu"] == pytest.approx(error / spread, rel=1e-4)
    assert row["loss"] == pytest.approx(error / 192 + row["auxiliary_loss"] / 32, rel=1e-4)
    assert row["l0"] == pytest.approx(
        sum((untrained.encode(x) > 0).sum().item() for x in batches) / 192
    )
    silent = ~(fired[1] | fired[2])  # 128 silent tokens > 64
    assert row["dead_fraction"] == pytest.approx(silent.float().mean().item())


def test_latents_that_never_fire_are_counted_as_dead_and_explain_the_error(known):
    shards, _ = known
    config = config_of(expansion=32, k=1, dead_after=64, training_tokens=64 * 8, lr=1e-12)
    sae, table = train_sae(shards, config, seed=0)
    alive = (sae.encode(kept(shards)) > 0).any(0).float().mean().item()
    assert table["dead_fraction"][0] == 0.0
    assert table["dead_fraction"][-1] >= 1 - alive - 1e-9 > 0
    assert table["auxiliary_loss"][0] == 0.0 and table["auxiliary_loss"][-1] > 0


def test_the_batch_topk_threshold_keeps_about_k_latents_per_token(known):
    shards, _ = known
    config = config_of(architecture="batch_topk", training_tokens=32_000)
    sae, _ = train_sae(shards, config, seed=0)
    assert sae.threshold is not None
    l0 = (sae.encode(kept(shards)) > 0).sum(1).float().mean().item()
    assert l0 == pytest.approx(config.k, rel=0.15)


def test_provenance_states_what_made_the_sae_and_follows_the_data(known, tmp_path):
    shards, _ = known
    coordinates = {"model": "m", "corpus": "c", "hook": "resid_pre.3", "sae": "s", "seed": "4"}
    config = config_of()
    facts = provenance(shards, config, coordinates, {"skip_first": 1, "max_norm": None})
    assert facts["hook_name"] == "blocks.3.hook_resid_pre"
    assert facts["hf_hook_name"] == "hidden_states[3]"
    assert (facts["seed"], facts["corpus"], facts["model_name"]) == (4, "c", "synthetic")
    assert facts["training"]["lr"] == config.lr
    other = Shards(write_shards(tmp_path, kept(shards), [len(shards)]), POSITIONS)
    again = provenance(other, config, coordinates, {})
    assert again["activations_sha256"] != facts["activations_sha256"]
