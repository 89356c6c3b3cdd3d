"""A model inside a wheel as GGUF becomes a model folder, and nothing else stays on the disk."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import make_model

from faithful_sae.models import encode, load_model, load_tokenizer
from faithful_sae.prepare import convert_gguf, describe_model


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows as GGUF stores query and key: the halves of each head's rotation interleaved."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(model: Any, path: Path) -> None:
    """A Llama model with a byte-level vocabulary as other tools write it."""
    import gguf

    config, writer = model.config, gguf.GGUFWriter(path, "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
    assert len(letters) + 3 == config.vocab_size
    writer.add_token_list(["<start>", "<end>", *letters, "YZ"])
    writer.add_token_types([3, 3] + [1] * (len(letters) + 1))
    writer.add_token_merges(["Y Z"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    names = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    writer.add_tensor("token_embd.weight", weights["model.embed_tokens.weight"])
    writer.add_tensor("output_norm.weight", weights["model.norm.weight"])
    writer.add_tensor("output.weight", weights["lm_head.weight"])
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    for layer in range(config.num_hidden_layers):
        for theirs, ours in names.items():
            weight = weights[f"model.layers.{layer}.{ours}.weight"]
            if theirs in heads:
                weight = permuted(weight, heads[theirs])
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel alone in its folder, with the model in it."""
    write_gguf(make_model("llama"), tmp_path / "model.gguf")
    wheel = tmp_path / "archives" / "a-1-py3-none-any.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(tmp_path / "model.gguf", "a/model.gguf")
    return wheel


def test_a_gguf_inside_a_wheel_becomes_the_same_model(wheel: Path, tmp_path: Path) -> None:
    model = make_model("llama")
    convert_gguf(wheel, "a/model.gguf", tmp_path / "model")
    converted = load_model(tmp_path / "model")
    tokens = torch.tensor([[0, 5, 60, 17, 2]])
    torch.testing.assert_close(converted(tokens).logits, model(tokens).logits)
    facts = describe_model("tiny", tmp_path / "model", start_token=None, end_tokens=None)
    assert facts["start_token"] == 0
    tokenizer = load_tokenizer(tmp_path / "model")
    assert encode(tokenizer, ["cabYZ"]) == [[4, 2, 3, 60]]
    assert not list((tmp_path / "model").rglob("*.gguf"))


DIES = """
import os
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM
from faithful_sae.prepare import convert_gguf

AutoModelForCausalLM.from_pretrained = lambda *_, **__: os._exit(9)  # by then it is taken out
convert_gguf(Path(sys.argv[1]), "a/model.gguf", Path(sys.argv[2]))
"""


def test_what_a_killed_conversion_left_goes_with_the_next(wheel: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    command = [sys.executable, "-c", DIES, wheel, tmp_path / "model"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(command, env=environment, check=False).returncode == 9
    left = {path for path in tmp_path.rglob("*") if path not in before}
    assert any(path.suffix == ".gguf" for path in left)
    convert_gguf(wheel, "a/model.gguf", tmp_path / "model")
    assert not any(path.exists() for path in left)
