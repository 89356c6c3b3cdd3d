"""Models are prepared from safetensors or GGUF alone, and described by their configuration."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FAMILIES, family_config
from safetensors.torch import load_file

from faithful_sae.config import check_model
from faithful_sae.entries import ConfigError, model_entry
from faithful_sae.models import blocks, encode, load_model, load_tokenizer
from faithful_sae.prepare import describe_model, randomize

SMALL_SAE = {"topk": {"expansion": 2, "k": 4}}


def describe(folder: Path, **changes: Any) -> dict[str, Any]:
    asked: dict[str, Any] = {"start_token": None, "end_tokens": None}
    return describe_model("tiny", folder, **asked | changes)


def check(folder: Path, **changes: Any) -> None:
    """Check a study, as far as it is about models, on what is described of one."""
    asked: dict[str, Any] = {"hooks": ["resid_pre.1"], "saes": SMALL_SAE, "context_length": 8}
    asked |= changes
    config = {
        "models": {"tiny": {"hooks": asked["hooks"]}, "other": {"hooks": ["resid_pre.99"]}},
        "saes": {
            name: {"source": "trained", "models": None} | sae for name, sae in asked["saes"].items()
        },
        "corpus_size": {"context_length": asked["context_length"]},
    }
    check_model(config, describe(folder) | {"entry": model_entry(config, "tiny")})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_described_by_its_configuration_alone(family: str, tmp_path: Path) -> None:
    family_config(family).save_pretrained(tmp_path)
    facts = describe(tmp_path)
    assert {name: facts[name] for name in ("d_in", "blocks", "vocab_size", "context_length")} == {
        "d_in": 16,
        "blocks": 3,
        "vocab_size": 61,
        "context_length": 64,
    }
    assert (facts["start_token"], facts["end_tokens"]) == (0, [1])


def test_numbers_that_a_published_config_leaves_to_its_family_are_found(tmp_path: Path) -> None:
    # Gemma 3's published multimodal configs state neither vocabulary nor context length.
    nested = {"model_type": "gemma3_text", "hidden_size": 16, "num_hidden_layers": 3}
    config = {"model_type": "gemma3", "text_config": nested, "vision_config": {"hidden_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    facts = describe(tmp_path)
    assert facts["d_in"] == 16 and facts["blocks"] == 3
    assert facts["vocab_size"] > 0 and facts["context_length"] > 0


def test_end_tokens_beside_a_nested_config_come_before_its_familys(tmp_path: Path) -> None:
    nested = {"model_type": "gemma3_text", "hidden_size": 16, "num_hidden_layers": 3}
    config = {"model_type": "gemma3", "eos_token_id": [1, 106], "text_config": nested}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert describe(tmp_path)["end_tokens"] == [1, 106]


def test_several_end_tokens_are_kept_and_tokens_of_the_study_come_first(tmp_path: Path) -> None:
    config = family_config("llama")
    config.eos_token_id = [1, 7]
    config.save_pretrained(tmp_path)
    assert describe(tmp_path)["end_tokens"] == [1, 7]
    asked = describe(tmp_path, start_token=3, end_tokens=[])
    assert (asked["start_token"], asked["end_tokens"]) == (3, [])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start_token": 258}, r"models\.tiny\.start_token: token 258 .*vocabulary of 258"),
        ({"start_token": -1}, r"models\.tiny\.start_token: token -1 "),
        ({"end_tokens": [1, 300]}, r"models\.tiny\.end_tokens: token 300 "),
    ],
)
def test_tokens_outside_the_vocabulary_are_refused_by_key(
    architecture: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        describe(architecture, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hooks": ["resid_pre.3"]}, r"^models\.tiny\.hooks: resid_pre\.3 .*resid_pre\.2"),
        (
            {"saes": SMALL_SAE | {"wide": {"expansion": 2, "k": 65}}},
            r"^saes\.wide\.k: 65 .*d_sae = 64 .*lower k or raise expansion",
        ),
    ],
)
def test_a_study_that_does_not_fit_the_model_is_refused_by_key_and_remedy(
    architecture: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check(architecture, **changes)


def test_the_deepest_hook_and_the_largest_k_are_allowed(architecture: Path) -> None:
    check(
        architecture,
        hooks=["resid_pre.0", "resid_pre.2"],
        saes={"all": {"expansion": 2, "k": 64}},
    )


def test_saes_need_not_fit_a_model_that_has_none(architecture: Path) -> None:
    check(architecture, hooks=[], saes={"wide": {"expansion": 2, "k": 65}})


@pytest.mark.parametrize("family", FAMILIES)
def test_contexts_longer_than_the_model_reads_are_refused_by_key_and_remedy(
    family: str, tmp_path: Path
) -> None:
    family_config(family).save_pretrained(tmp_path)
    check(tmp_path, context_length=64)
    for hooks in ([], ["resid_pre.1"]):  # a model without hooks still reads and writes text
        with pytest.raises(ConfigError) as error:
            check(tmp_path, hooks=hooks, context_length=65)
        message = str(error.value)
        assert message.startswith("corpus_size.context_length: 65 ") and "lower it" in message
        assert "tiny" in message and "64" in message and "\n" not in message


def test_a_model_without_a_longest_context_reads_any(tmp_path: Path) -> None:
    from transformers import BloomConfig

    BloomConfig(vocab_size=61, hidden_size=16, n_layer=3, n_head=2).save_pretrained(tmp_path)
    assert describe(tmp_path)["context_length"] is None
    check(tmp_path, context_length=1_000_000)


def test_a_model_without_start_token_needs_one_from_the_study(tmp_path: Path) -> None:
    config = family_config("llama")
    config.bos_token_id = None
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"models\.tiny: .*set models\.tiny\.start_token"):
        describe(tmp_path)
    assert describe(tmp_path, start_token=0)["start_token"] == 0


def test_random_weights_depend_on_the_seed_alone(architecture: Path, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("again", 1), ("b", 2)):
        torch.rand(3)  # whatever was drawn before
        randomize(architecture, tmp_path / name, seed)
        weights.append(load_file(tmp_path / name / "model.safetensors"))
    first, again, other = weights
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert {n: t.shape for n, t in first.items()} == {n: t.shape for n, t in other.items()}
    drawn = [name for name in first if "norm" not in name]
    assert drawn and not any(torch.equal(first[name], other[name]) for name in drawn)


def test_a_random_model_keeps_architecture_and_tokenizer(
    architecture: Path, tiny_folder: Path
) -> None:
    assert describe(tiny_folder) == describe(architecture)
    text = "an é and a 世"
    kept, original = load_tokenizer(tiny_folder), load_tokenizer(architecture)
    assert encode(kept, [text]) == encode(original, [text])


def test_a_loaded_model_is_frozen_float32_and_in_evaluation_mode(tiny_folder: Path) -> None:
    model = load_model(tiny_folder)
    assert not model.training
    assert all(p.dtype == torch.float32 and not p.requires_grad for p in model.parameters())


class Exploit:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(self.evidence),)

    def __init__(self, evidence: Path) -> None:
        self.evidence = str(evidence)


def test_pickled_weights_are_refused_and_never_opened(architecture: Path, tmp_path: Path) -> None:
    folder, evidence = tmp_path / "model", tmp_path / "unpickled"
    folder.mkdir()
    (folder / "config.json").write_text((architecture / "config.json").read_text())
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Exploit(evidence)))
    with pytest.raises(OSError, match="safetensors"):
        load_model(folder)
    assert not evidence.exists()


@pytest.mark.parametrize("place", ["part.bin", "../part.safetensors", "/part.safetensors"])
@pytest.mark.parametrize("index", ["model", "other"])
def test_an_index_of_safetensors_names_no_pickle_and_no_file_elsewhere(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, index: str, place: str
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    (folder / "SHA256SUMS").unlink()  # whoever plants a pickle can seal it too
    weights = load_file(folder / "model.safetensors")
    torch.save(weights, folder / "part.bin")
    (folder / "model.safetensors").rename(tmp_path / "part.safetensors")
    content = json.dumps({"metadata": {}, "weight_map": dict.fromkeys(weights, place)})
    (folder / f"{index}.safetensors.index.json").write_text(content)
    config = json.loads((folder / "config.json").read_text())
    config |= {"transformers_weights": f"{index}.safetensors.index.json"}
    (folder / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(ValueError, match=re.escape(f"names {place}, which is no safetensors file")):
        load_model(folder)


def test_a_config_names_no_pickle_as_its_weights(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the names that are no safetensors transformers lets this one pass."""
    shutil.copytree(tiny_folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "SHA256SUMS").unlink()
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "adapter_model.bin")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"transformers_weights": "adapter_model.bin"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("a pickle was opened"))
    with pytest.raises(ValueError, match="config.json names adapter_model.bin"):
        load_model(tmp_path)


def test_a_model_in_several_safetensors_files_is_read(tiny_folder: Path, tmp_path: Path) -> None:
    whole = load_model(tiny_folder)
    whole.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    read = load_model(tmp_path).state_dict()
    assert all(torch.equal(read[name], value) for name, value in whole.state_dict().items())


def test_no_special_token_is_added_to_a_text(tokenizer: Any) -> None:
    assert encode(tokenizer, ["ab", ""])[1] == []
    assert not {0, 1} & set(encode(tokenizer, ["ab"])[0])
    assert encode(tokenizer, []) == []


def test_blocks_are_those_of_the_language_model(family_model: Any) -> None:
    found = blocks(family_model)
    calls = []
    handles = [
        block.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
        for i, block in enumerate(found)
    ]
    family_model(input_ids=torch.tensor([[0, 5]]))
    for handle in handles:
        handle.remove()
    assert calls == [0, 1, 2]


def test_facts_of_a_model_that_was_exchanged_since_refuse_nothing(tmp_path: Path) -> None:
    family_config("llama").save_pretrained(tmp_path)
    study = {"saes": {}, "corpus_size": {"context_length": 8}}
    old = study | {"models": {"tiny": {"path": "old", "hooks": ["resid_pre.99"]}}}
    new = study | {"models": {"tiny": {"path": "new", "hooks": ["resid_pre.99"]}}}
    facts = describe(tmp_path) | {"entry": model_entry(old, "tiny")}
    with pytest.raises(ConfigError):
        check_model(old, facts)
    check_model(new, facts)
