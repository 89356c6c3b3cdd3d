"""The SAE function, and the folder that it is saved in."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from faithful_sae.sae import SAE, sae_folders

quick = settings(max_examples=25)


def random_sae(d_in=5, d_sae=12, k=3, seed=0, **changes) -> SAE:
    generator = torch.Generator().manual_seed(seed)
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=k, seed=seed)
    sae.W_enc = torch.randn(d_in, d_sae, generator=generator)
    sae.b_enc = torch.randn(d_sae, generator=generator) * 0.1
    sae.b_dec = torch.randn(d_in, generator=generator)
    for name, value in changes.items():
        setattr(sae, name, value)
    return sae


def random_x(n=20, d_in=5, seed=1) -> torch.Tensor:
    return torch.randn(n, d_in, generator=torch.Generator().manual_seed(seed)) * 3


@quick
@given(k=st.integers(1, 12), seed=st.integers(0, 999))
def test_encode_keeps_the_k_largest_positive_pre_activations(k, seed):
    sae, x = random_sae(k=k, seed=seed), random_x(seed=seed + 1)
    latents = sae.encode(x)
    for row, pre in zip(latents, (x - sae.b_dec) @ sae.W_enc + sae.b_enc, strict=True):
        largest = sorted(pre.tolist(), reverse=True)[:k]
        active = sorted(row[row != 0].tolist(), reverse=True)
        assert active == pytest.approx([v for v in largest if v > 0], rel=1e-4, abs=1e-5)
        places = row.nonzero().squeeze(1)
        assert torch.allclose(row[places], pre[places], rtol=1e-4, atol=1e-5)


def test_encode_gives_exactly_k_latents_where_enough_are_positive():
    sae = random_sae(b_enc=torch.full((12,), 100.0))
    assert (sae.encode(random_x()) > 0).sum(1).tolist() == [3] * 20


def test_encode_gives_fewer_latents_where_relu_leaves_fewer():
    sae = random_sae(b_enc=torch.tensor([100.0, 100.0, *[-100.0] * 10]))
    assert (sae.encode(random_x()) > 0).sum(1).tolist() == [2] * 20


def test_encode_and_decode_by_hand():
    sae = SAE(
        W_enc=torch.tensor([[1.0, 0.0, -1.0], [0.0, 2.0, 1.0]]),
        b_enc=torch.tensor([0.5, 0.0, 0.0]),
        W_dec=torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]]),
        b_dec=torch.tensor([1.0, -1.0]),
        k=1,
    )
    # x - b_dec = (2, 1): pre-activations 2.5, 2, -1. x - b_dec = (-1, 3): -0.5, 6, 4.
    x = torch.tensor([[3.0, 0.0], [0.0, 2.0]])
    assert sae.encode(x).tolist() == [[2.5, 0, 0], [0, 6, 0]]
    assert sae(x).tolist() == [[3.5, -1.0], [1.0, 5.0]]
    assert sae.decode(torch.tensor([[0.0, 0.0, 10.0]])).tolist() == [[7.0, 7.0]]
    sae.threshold = torch.tensor(4.0)  # k no longer matters, and equal does not fire
    assert sae.encode(x).tolist() == [[0, 0, 0], [0, 6, 0]]
    sae.threshold = torch.tensor(1.9)
    assert sae.encode(x).tolist() == [[2.5, 2, 0], [0, 6, 4]]


@pytest.mark.parametrize("threshold", [None, torch.tensor(0.7)])
def test_a_saved_sae_comes_back_bit_for_bit(tmp_path, threshold):
    sae = random_sae(threshold=threshold)
    sae.save(tmp_path / "new" / "folder", {})
    back = SAE.load(tmp_path / "new" / "folder")
    assert back.k == sae.k
    for name in ("W_enc", "b_enc", "W_dec", "b_dec"):
        assert torch.equal(getattr(back, name), getattr(sae, name))
    assert torch.equal(back.encode(random_x()), sae.encode(random_x()))
    assert (back.threshold is None) == (threshold is None)


def test_the_saved_folder_holds_what_saelens_requires_and_no_remains(tmp_path):
    sae = random_sae()
    sae.save(tmp_path, {"seed": 7, "training": {"lr": 0.1}})
    assert {f.name for f in tmp_path.iterdir()} == {"cfg.json", "sae_weights.safetensors"}
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "topk"
    assert (config["d_in"], config["d_sae"], config["k"]) == (5, 12, 3)
    assert config["dtype"] == "float32" and config["apply_b_dec_to_input"] is True
    assert config["normalize_activations"] == config["reshape_activations"] == "none"
    assert config["rescale_acts_by_decoder_norm"] is False
    assert config["metadata"]["seed"] == 7 and config["metadata"]["training"] == {"lr": 0.1}
    assert int(config["metadata"]["sae_lens_version"].split(".")[0]) >= 6
    shapes = {n: tuple(t.shape) for n, t in load_file(tmp_path / "sae_weights.safetensors").items()}
    assert shapes == {"W_enc": (5, 12), "b_enc": (12,), "W_dec": (12, 5), "b_dec": (5,)}


def test_an_sae_has_the_same_bytes_however_often_it_is_saved_and_of_any_shards(tmp_path):
    saved = set()
    for number in range(8):
        facts = {"seed": 7, "hook": "resid_pre.1", "activations_sha256": f"of {number} shards"}
        random_sae().save(tmp_path / str(number), facts)
        saved.add((tmp_path / str(number) / "sae_weights.safetensors").read_bytes())
    assert len(saved) == 1


def test_batch_topk_is_saved_as_jumprelu_with_one_threshold_for_all_latents(tmp_path):
    random_sae(threshold=torch.tensor(0.7)).save(tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["k"]) == ("jumprelu", 3)
    threshold = load_file(tmp_path / "sae_weights.safetensors")["threshold"]
    assert torch.equal(threshold, torch.full((12,), 0.7))


def test_a_failed_save_keeps_the_old_folder(tmp_path):
    random_sae().save(tmp_path, {})
    before = {f.name: f.read_bytes() for f in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        random_sae().save(tmp_path, {"not": object()})
    assert {f.name: f.read_bytes() for f in tmp_path.iterdir()} == before


@pytest.mark.parametrize("k", [None, "3"])
def test_a_folder_without_k_is_refused(tmp_path, k):
    random_sae().save(tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"k": k}))
    with pytest.raises(ValueError, match="cfg.json states no k"):
        SAE.load(tmp_path)


def test_an_untrained_sae_has_unit_rows_and_a_tied_encoder_without_biases():
    sae = SAE.untrained(d_in=7, d_sae=30, k=4, seed=0)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(30))
    assert torch.equal(sae.W_enc, sae.W_dec.T)
    assert not sae.b_enc.any() and not sae.b_dec.any()
    assert (sae.d_in, sae.d_sae, sae.k) == (7, 30, 4)
    # Of its own storage: training the encoder must not move the decoder.
    assert sae.W_enc.data_ptr() != sae.W_dec.data_ptr()


def test_the_seed_alone_decides_an_untrained_sae():
    def weights(seed):
        torch.manual_seed(int(torch.randint(1000, ())))  # the global state plays no part
        return SAE.untrained(d_in=7, d_sae=30, k=4, seed=seed).W_dec

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


def test_about_a_mean_an_untrained_sae_has_that_mean_and_the_directions_of_its_seed():
    mean = torch.tensor([1.0, -2.0, 3.0, 0.5])
    about, plain = (
        SAE.untrained_about(mean, d_sae=12, k=2, seed=7),
        SAE.untrained(d_in=4, d_sae=12, k=2, seed=7),
    )
    assert torch.equal(about.W_dec, plain.W_dec) and torch.equal(about.W_enc, plain.W_enc)
    assert torch.equal(about.b_dec, mean) and not about.b_enc.any() and about.k == 2


def test_about_a_mean_an_untrained_sae_takes_that_mean_for_nothing():
    mean = torch.tensor([1.0, -2.0, 3.0, 0.5])
    about = SAE.untrained_about(mean, d_sae=12, k=2, seed=7)
    assert not about.encode(mean[None]).any()
    assert torch.equal(about.decode(torch.zeros(1, 12)), mean[None])


def test_saes_are_read_in_the_order_of_their_files_whichever_of_them_come_together():
    weights, configs = (
        [f"{seed}/{name}" for seed in (2, 0, 1)] for name in ("sae_weights.safetensors", "cfg.json")
    )
    pairs = [path for pair in zip(weights, configs, strict=True) for path in pair]
    assert sae_folders(weights + configs) == sae_folders(pairs) == [Path("2"), Path("0"), Path("1")]
