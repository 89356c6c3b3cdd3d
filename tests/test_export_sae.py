"""Exported SAEs without the tools that open them: names, forms and cards."""

import hashlib
import json
import re

import pytest
import torch
import yaml
from exports import ABOUT, CONFIG, REVISION, SEED, K, save_sae, tables
from repository import ROOT
from safetensors.torch import load_file

from faithful_sae import cards
from faithful_sae.checksums import file_digest
from faithful_sae.export_sae import export_sae
from faithful_sae.hook_names import hook_names
from faithful_sae.provenance import git_commit, write_plain_json
from faithful_sae.sae import SAE
from faithful_sae.sae_card import TESTED

X = 3 * torch.randn(50, 6, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A repository of one TopK SAE."""
    folder = tmp_path_factory.mktemp("export")
    save_sae(folder / "sae")
    export_sae([folder / "sae"], folder / "out", tables(), **ABOUT)
    return folder


@pytest.mark.parametrize(
    ("hook", "names"),
    [
        ("resid_pre.0", ("blocks.0.hook_resid_pre", 0, "embed_tokens")),
        ("resid_pre.1", ("blocks.1.hook_resid_pre", 1, "layers.0")),
        ("resid_pre.20", ("blocks.20.hook_resid_pre", 20, "layers.19")),
    ],
)
def test_a_hook_in_three_notations(hook, names):
    assert hook_names(hook) == names


@pytest.mark.parametrize("hook", ["resid_pre.0", "resid_pre.1", "resid_pre.2"])
def test_the_module_named_puts_out_the_hidden_states_named(llama, hook):
    seen = []
    names = hook_names(hook)
    module = llama.get_decoder().get_submodule(names.module)
    handle = module.register_forward_hook(lambda _m, _a, output: seen.append(output))
    tokens = torch.tensor([[0, 5, 9, 2]])
    expected = llama(tokens, output_hidden_states=True).hidden_states[names.hidden_states]
    handle.remove()
    output = seen[0][0] if isinstance(seen[0], tuple) else seen[0]
    assert torch.equal(output, expected)


def test_every_form_holds_the_same_function(exported):
    sae, folder = SAE.load(exported / "sae"), exported / "out/layers.7"
    again = SAE.load(folder)
    assert torch.equal(again.encode(X), sae.encode(X)) and torch.equal(again(X), sae(X))
    settings = json.loads((folder / "cfg.json").read_text())
    assert (settings["k"], settings["d_in"], settings["num_latents"]) == (K, 6, 20)
    sparsify = load_file(folder / "sae.safetensors")
    dictionary = torch.load(folder / "ae.pt", weights_only=True)
    for weights, W_dec in (
        (sparsify, sparsify["W_dec"]),
        (dictionary, dictionary["decoder.weight"].T),
    ):
        pre = (X - weights["b_dec"]) @ weights["encoder.weight"].T + weights["encoder.bias"]
        values, indices = pre.relu().topk(K)
        x_hat = (values[..., None] * W_dec[indices]).sum(1) + weights["b_dec"]
        assert torch.allclose(x_hat, sae(X), atol=1e-5)
    assert dictionary["k"] == K and dictionary["threshold"] == -1
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    assert (trainer["dict_class"], trainer["trainer_class"]) == ("AutoEncoderTopK", "TopKTrainer")
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    assert trainer["dict_class"] == "AutoEncoderTopK" and trainer["layer"] == 7
    assert trainer["submodule_name"] == "resid_post_layer_7" and trainer["steps"] == 64


def test_a_batch_topk_sae_keeps_its_threshold_and_has_no_form_that_would_drop_it(tmp_path):
    sae = save_sae(tmp_path / "sae", threshold=1.5)
    export_sae([tmp_path / "sae"], tmp_path / "out", tables(), **ABOUT)
    folder = tmp_path / "out/layers.7"
    assert not (folder / "sae.safetensors").exists()
    settings = json.loads((folder / "cfg.json").read_text())
    assert settings["architecture"] == "jumprelu" and "activation" not in settings
    assert torch.equal(SAE.load(folder).encode(X), sae.encode(X))
    assert torch.load(folder / "ae.pt", weights_only=True)["threshold"] == 1.5
    trainer = json.loads((folder / "config.json").read_text())["trainer"]
    assert (trainer["dict_class"], trainer["trainer_class"]) == ("BatchTopKSAE", "BatchTopKTrainer")
    card = (tmp_path / "out/README.md").read_text()
    assert "threshold 1.5" in card and "from sparsify" not in card and "from sae_lens" in card


def test_hooks_of_a_model_are_folders_of_one_repository(tmp_path):
    for hook in ("resid_pre.0", "resid_pre.2"):
        save_sae(tmp_path / hook, hook)
    both = {
        name: table.vstack(tables("resid_pre.2")[name])
        for name, table in tables("resid_pre.0").items()
    }
    export_sae(
        [tmp_path / "resid_pre.0", tmp_path / "resid_pre.2"], tmp_path / "out", both, **ABOUT
    )
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "README.md",
        "embed_tokens",
        "layers.1",
    }
    card = (tmp_path / "out/README.md").read_text()
    assert "`blocks.0.hook_resid_pre`" in card and "`blocks.2.hook_resid_pre`" in card
    config = json.loads((tmp_path / "out/embed_tokens/config.json").read_text())
    assert config["trainer"]["layer"] is None


def test_the_card_says_where_how_good_and_by_what(exported):
    card = (exported / "out/README.md").read_text()
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["library_name"] == "saelens" and front["base_model"] == "someone/tiny"
    for notation in ("`blocks.8.hook_resid_pre`", "`hidden_states[8]`", "`layers.7`"):
        assert notation in body
    assert f"d_in 6, d_sae 20, k {K}, seed {SEED}, 4,096 training tokens" in body
    assert "token 0;" in body and "5.0 times the median" in body
    # explained variance, without and with the start position, on its own text and on another
    for row in (
        "| faithful | as trained | 1 | - | - | - | - | 1.1 | - |",
        "| faithful | every position | 1.01 | - | - | - | - | 1.11 | - |",
        "| code | as trained | 1.001 | - | - | - | - | 1.101 | - |",
        "| code | every position | 1.011 | - | - | - | - | - | - |",
    ):
        assert row in body
    # SFR to the siblings 0 and 2, whichever of the pair comes first; FFR of this seed
    assert "| 0 | 0.5223 | 0.6334 |\n| 2 | 0.6323 | 0.7434 |" in body
    assert "covariance of the activations: 0.0625." in body
    assert "1.247 of the latents exceed 1.0 on more than 10 % of" in body
    for path in (exported / "out/layers.7").iterdir():
        assert f"| `{path.name}` | {hashlib.sha256(path.read_bytes()).hexdigest()} |" in body
    commit = git_commit(ROOT) or "unknown"
    assert f"commit `{commit}`" in body and f"`{cards.config_digest(CONFIG)}`" in body
    assert REVISION in body and str(exported) not in card
    assert re.findall(r"^# (\S+) (\S+)$", body, flags=re.M)[-4:] == list(TESTED.items())


def test_a_study_of_one_seed_says_that_there_is_no_sibling(tmp_path):
    save_sae(tmp_path / "sae")
    alone = tables(seeds=(SEED,))
    export_sae([tmp_path / "sae"], tmp_path / "out", alone, **ABOUT)
    assert "no sibling seed" in (tmp_path / "out/README.md").read_text()


def test_what_tools_look_up_is_there(exported):
    metadata = json.loads((exported / "out/layers.7/cfg.json").read_text())["metadata"]
    assert metadata["model_name"] == "someone/tiny"  # by which SAEBench loads the model
    assert metadata["context_size"] == 32 and metadata["prepend_bos"] is True
    assert "dataset_path" not in metadata  # the corpus is on no hub
    assert metadata["hook_name"] == "blocks.8.hook_resid_pre" and metadata["seed"] == SEED


def test_a_local_path_does_not_travel_with_a_card():
    facts = {"entry": {"source": "path", "path": "/home/me/secret/model", "hooks": ["x"]}}
    assert cards.origin(facts, "abc") == "source path, path model, revision abc"


def test_the_digest_of_a_config_is_that_of_the_file_that_a_study_leaves(tmp_path):
    write_plain_json(CONFIG, tmp_path / "config.json")
    assert cards.config_digest(CONFIG) == file_digest(tmp_path / "config.json")


def test_cards_name_the_versions_that_are_tested():
    files = sorted((ROOT / "benchmarks").glob("peers*.txt"))
    pins = [line.split("==") for f in files for line in f.read_text().split() if "==" in line]
    assert TESTED.items() <= dict(pins).items()
