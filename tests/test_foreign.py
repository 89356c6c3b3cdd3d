"""SAELens' and sparsify's SAEs are read as what they are, and what they are not is refused.

The reference is what the libraries compute, written out from their sources.
"""

from types import SimpleNamespace

import pytest
import torch
from foreign_saes import saelens, sparsify, write_folder

from faithful_sae.foreign import read_pretrained
from faithful_sae.heldout import Heldout
from faithful_sae.pretrained import import_sae, stated, with_unit_rows
from faithful_sae.sae import SAE

K = 3


def some_sae(d_in=6, d_sae=12) -> SAE:
    generator = torch.Generator().manual_seed(0)
    sae = SAE.untrained(d_in=d_in, d_sae=d_sae, k=K, seed=0)
    sae.W_enc = torch.randn(d_in, d_sae, generator=generator)
    sae.b_enc = torch.randn(d_sae, generator=generator) / 2
    sae.b_dec = torch.randn(d_in, generator=generator)
    return sae


def activations(n=50, d_in=6):
    return 2 * torch.randn(n, d_in, generator=torch.Generator().manual_seed(1))


def imported(folder) -> SAE:
    return with_unit_rows(read_pretrained(folder), folder)


def saelens_forward(x, tensors, config):
    """SAELens 6: sae.py, topk_sae.py, jumprelu_sae.py, standard_sae.py."""
    W_enc, b_enc, W_dec, b_dec = (tensors[k] for k in ("W_enc", "b_enc", "W_dec", "b_dec"))
    before = (x - b_dec if config["apply_b_dec_to_input"] else x) @ W_enc + b_enc
    norms = W_dec.norm(dim=1) if config.get("rescale_acts_by_decoder_norm") else 1
    before = before * norms
    if config["architecture"] == "topk":
        values, indices = before.topk(config["k"], dim=1)
        latents = torch.zeros_like(before).scatter_(1, indices, values.relu())
    else:
        latents = before.relu() * (before > tensors.get("threshold", 0))
    return (latents / norms) @ W_dec + b_dec


NORMS = torch.linspace(0.5, 2, 12)[:, None]
VARIANTS = {
    "topk": ({}, {}, {}),
    "topk, b_dec not subtracted": ({}, {}, {"apply_b_dec_to_input": False}),
    "topk, all rows of one norm": ({"W_dec": 3.0}, {}, {}),
    "topk that compares with norms": (
        {"W_dec": NORMS}, {}, {"rescale_acts_by_decoder_norm": True}
    ),
    "relu": ({"W_dec": NORMS}, {}, {"architecture": "standard"}),
    "jumprelu": (
        {"W_dec": NORMS}, {"threshold": torch.linspace(0.1, 1, 12)}, {"architecture": "jumprelu"}
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_saelens_folder_gives_what_saelens_computes_with_unit_decoder_rows(tmp_path, name):
    times, more, changes = VARIANTS[name]
    file, tensors, config = saelens(some_sae())
    tensors = {key: tensor * times.get(key, 1) for key, tensor in tensors.items()} | more
    config |= changes
    sae = imported(write_folder(tmp_path, file, tensors, config))
    x = activations()
    assert torch.allclose(sae(x), saelens_forward(x, tensors, config), atol=1e-5)
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(12))
    active = (sae.encode(x) > 0).sum(1)
    assert 0 < active.float().mean() < 12  # or nothing would have been compared


def test_a_sparsify_folder_gives_what_sparsify_computes(tmp_path):
    file, tensors, config = sparsify(some_sae())
    sae = imported(write_folder(tmp_path / "layers.4", file, tensors, config))
    x = activations()
    before = (x - tensors["b_dec"]) @ tensors["encoder.weight"].T + tensors["encoder.bias"]
    values, indices = before.relu().topk(K, dim=1)
    latents = torch.zeros_like(before).scatter_(1, indices, values)
    assert torch.equal(sae.encode(x) > 0, latents > 0)
    expected = latents @ tensors["W_dec"] + tensors["b_dec"]
    assert torch.allclose(sae(x), expected, atol=1e-5)


def test_the_flat_config_of_older_versions_of_saelens_is_read(tmp_path):
    file, tensors, _ = saelens(some_sae())
    config = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "hook_point": "blocks.8.hook_resid_post",
        "normalize_activations": None,
    }
    found = read_pretrained(write_folder(tmp_path, file, tensors, config))
    assert (found.k, found.hook, found.architecture) == (K, "resid_pre.9", "topk")
    assert torch.equal(with_unit_rows(found, tmp_path).encode(x := activations()) > 0,
                       some_sae().encode(x) > 0)  # fmt: skip


def test_a_folder_of_both_libraries_is_one_sae(tmp_path):
    sae = some_sae()
    write_folder(tmp_path, *sparsify(sae))
    file, tensors, config = saelens(sae)
    write_folder(tmp_path, file, tensors, sparsify(sae)[2] | config)
    assert torch.equal(imported(tmp_path)(x := activations()), sae(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_floating_point_weights_become_float32(tmp_path, dtype):
    file, tensors, config = saelens(some_sae())
    tensors = {key: tensor.to(dtype) for key, tensor in tensors.items()}
    sae = imported(write_folder(tmp_path, file, tensors, config))
    assert {t.dtype for t in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)} == {torch.float32}
    assert torch.allclose(sae.W_dec.norm(dim=1), torch.ones(12), atol=1e-6)
    assert torch.allclose(sae.W_enc, some_sae().W_enc, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize(
    ("folder", "hook"),
    [
        ("layers.7", "resid_pre.8"), ("gpt_neox.layers.0", "resid_pre.1"), ("h.3", "resid_pre.4"),
        ("embed_tokens", "resid_pre.0"), ("seed0", None),
    ],
)  # fmt: skip
def test_a_sparsify_folder_is_named_after_the_module_whose_output_it_reads(tmp_path, folder, hook):
    assert read_pretrained(write_folder(tmp_path / folder, *sparsify(some_sae()))).hook == hook


def without(key):
    return lambda tensors, config: config.pop(key, tensors.pop(key, None))


def setting(**changes):
    return lambda tensors, config: config.update(changes)


def holding(**changes):
    return lambda tensors, config: tensors.update(changes)


def jumprelu_with(threshold):
    def change(tensors, config):
        config["architecture"], tensors["threshold"] = "jumprelu", threshold

    return change


REFUSED = [
    (saelens, without("k"), r"cfg.json states no k; SAELens would take 100 and sparsify 32"),
    (sparsify, without("k"), r"cfg.json states no k"),
    (sparsify, setting(k=0), r"states k = 0"),
    (sparsify, setting(k=13), r"states k = 13 of 12 latents"),
    (saelens, setting(architecture="gated"), r"architecture 'gated' cannot be audited; those read"),
    (saelens, setting(architecture="batchtopk"), r"'batchtopk' .* which BatchTopK SAEs are"),
    (saelens, setting(architecture="jumprelu"), r"lacks the tensor threshold"),
    (saelens, setting(architecture="transcoder"), r"'transcoder' cannot be audited"),
    (saelens, setting(normalize_activations="layer_norm"), r"normalize_activations 'layer_norm'"),
    (saelens, setting(reshape_activations="hook_z"), r"reshape_activations 'hook_z'"),
    (saelens, setting(activation_fn_str="tanh-relu"), r"activation_fn 'tanh-relu' cannot"),
    (saelens, setting(metadata={"hook_name": "blocks.1.hook_mlp_out"}), r"'blocks.1.hook_mlp_out'"),
    (saelens, setting(d_in=7), r"states d_in = 7, but the weights have 6"),
    (saelens, jumprelu_with(torch.ones(3)), r"threshold is of shape \[3\], but W_dec of \[12, 6\]"),
    (saelens, without("b_enc"), r"lacks the tensor b_enc"),
    (saelens, holding(W_skip=torch.ones(6, 6)), r"also holds the tensor W_skip"),
    (saelens, holding(b_enc=torch.ones(5)), r"b_enc is of shape \[5\], but W_dec of \[12, 6\]"),
    (saelens, holding(b_enc=torch.full((12,), torch.nan)), r"b_enc holds values that are not fin"),
    (saelens, holding(b_enc=torch.ones(12, dtype=torch.int8)), r"b_enc is of type torch.int8"),
    (saelens, holding(W_dec=some_sae().W_dec * NORMS), r"TopK chooses latents without them"),
    (sparsify, setting(activation="groupmax"), r"activation 'groupmax' cannot be audited"),
    (sparsify, setting(transcode=True), r"transcode True cannot be audited; the SAEs"),
    (sparsify, setting(signed=True), r"signed True cannot be audited"),
    (sparsify, setting(num_latents=24), r"states d_sae = 24, but the weights have 12"),
]  # fmt: skip


@pytest.mark.parametrize(("form", "change", "said"), REFUSED, ids=[said for *_, said in REFUSED])
def test_what_would_be_another_function_is_refused_with_its_reason(tmp_path, form, change, said):
    file, tensors, config = form(some_sae())
    change(tensors, config)
    with pytest.raises(ValueError, match=said) as error:
        imported(write_folder(tmp_path / "layers.1", file, tensors, config))
    assert str(tmp_path) in str(error.value)


def test_a_module_that_is_no_residual_stream_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'layers.5.mlp' cannot be audited"):
        read_pretrained(write_folder(tmp_path / "layers.5.mlp", *sparsify(some_sae())))


def test_a_pickle_is_never_opened(tmp_path):
    torch.save({"W_enc": torch.ones(2)}, tmp_path / "ae.pt")
    with pytest.raises(ValueError, match=r"holds neither .* but ae.pt; pickled weights are never"):
        read_pretrained(tmp_path)


@pytest.mark.parametrize("file", ["cfg.json", "sae_weights.safetensors"])
def test_a_damaged_file_is_named(tmp_path, file):
    write_folder(tmp_path, *saelens(some_sae()))
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:40])
    with pytest.raises(ValueError, match=file):
        read_pretrained(tmp_path)


def heldout(x) -> Heldout:
    return Heldout([SimpleNamespace(d_in=x.shape[1], batches=lambda: iter([x]))])


def test_an_imported_sae_is_saved_with_what_its_files_said(tmp_path):
    file, tensors, config = saelens(some_sae())
    config["metadata"]["vocabulary_sha256"] = "ab"
    folder = write_folder(tmp_path / "theirs", file, tensors, config)
    x = activations()
    sae, provenance = import_sae(folder, "resid_pre.1", heldout(x), {"path": "theirs"})
    sae.save(tmp_path / "ours", provenance)
    assert torch.equal(SAE.load(tmp_path / "ours")(x), sae(x))
    said = stated(tmp_path / "ours")
    assert (said["k"], said["hook"], said["path"]) == (K, "resid_pre.1", "theirs")
    assert (said["format"], said["vocabulary_sha256"]) == ("SAELens", "ab")
    folder = write_folder(tmp_path / "layers.0", *sparsify(some_sae()))
    _, provenance = import_sae(folder, "resid_pre.1", heldout(x), {})
    assert provenance["pretrained"]["format"] == "sparsify"


def test_an_sae_without_a_k_gets_its_mean_l0_and_keeps_a_threshold_for_each_latent(tmp_path):
    file, tensors, config = saelens(some_sae())
    tensors["threshold"] = torch.linspace(0.1, 2, 12)
    del config["k"]
    folder = write_folder(tmp_path, file, tensors, config | {"architecture": "jumprelu"})
    x = activations()
    sae, provenance = import_sae(folder, "resid_pre.1", heldout(x), {})
    assert sae.k == round((sae.encode(x) > 0).sum(1).double().mean().item())
    assert provenance["pretrained"]["k"] is None
    sae.save(tmp_path / "ours", provenance)
    assert torch.equal(SAE.load(tmp_path / "ours").encode(x), sae.encode(x))


def test_an_sae_of_another_width_than_the_model_is_an_error(tmp_path):
    folder = write_folder(tmp_path, *saelens(some_sae()))
    with pytest.raises(ValueError, match="reads 6 dimensions, but the activations of resid_pre.1"):
        import_sae(folder, "resid_pre.1", heldout(activations(d_in=7)), {})


def test_a_row_of_zeros_writes_nothing_and_stays(tmp_path):
    sae = some_sae()
    sae.W_dec[4] = 0
    back = imported(write_folder(tmp_path, *saelens(sae)))
    assert torch.equal(back(x := activations()), sae(x)) and not back.W_dec[4].any()


def test_a_row_of_zeros_takes_no_place_where_topk_compares_norms(tmp_path):
    file, tensors, config = saelens(some_sae())
    config |= {"rescale_acts_by_decoder_norm": True}
    others = torch.arange(12) != 4
    fewer = {k: t[..., others] if k in ("W_enc", "b_enc") else t for k, t in tensors.items()}
    fewer["W_dec"] = tensors["W_dec"][others]
    tensors["W_dec"] = tensors["W_dec"] * others[:, None]
    x = activations()
    assert (
        imported(write_folder(tmp_path / "whole", *saelens(some_sae()))).encode(x)[:, 4] > 0
    ).any()
    latents = imported(write_folder(tmp_path / "zeros", file, tensors, config)).encode(x)
    left = imported(write_folder(tmp_path / "fewer", file, fewer, config | {"d_sae": 11})).encode(x)
    assert not latents[:, 4].any() and torch.equal(latents[:, others], left)
