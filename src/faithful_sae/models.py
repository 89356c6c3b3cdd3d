"""Causal language models: load a prepared one, and find its parts."""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from faithful_sae.checksums import verify
from faithful_sae.devices import claim_gpu
from faithful_sae.linear import use_linear


@cache
def device() -> torch.device:
    """The CUDA device that is this job's from now on, or the CPU, which the log then says."""
    claim_gpu()
    if torch.cuda.is_available():
        return torch.device("cuda")
    sys.stderr.write("torch finds no CUDA device: this job computes on the CPU\n")
    return torch.device("cpu")


def load_model(folder: Path) -> Any:
    """The model in evaluation mode, float32, on this job's device. Only safetensors are opened.

    Raises ValueError naming a file of the folder that is not what was sealed there, or that stands
    in the place of safetensors.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    verify(folder)
    _refuse_named_pickles(folder)
    logging.disable_progress_bar()  # it floods log files
    model = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,  # unset, transformers asks on standard input
    )
    return use_linear(model.eval().requires_grad_(False).to(device()))


def _refuse_named_pickles(folder: Path) -> None:
    """transformers opens whatever weights config.json or the index of a large model names."""
    config = folder / "config.json"
    weights = json.loads(config.read_bytes()).get("transformers_weights")
    named = [(config, weights.removesuffix(".index.json"))] if weights else []
    for index in folder.rglob("*.safetensors.index.json"):
        named += [(index, name) for name in json.loads(index.read_bytes())["weight_map"].values()]
    for file, name in named:
        if not name.endswith(".safetensors") or (file.parent / name).parent != file.parent:
            raise ValueError(
                f"{file} names {name}, which is no safetensors file beside it; others may be "
                "pickles, which can run any code when loaded: convert the model to safetensors."
            )


def load_tokenizer(folder: Path) -> Any:
    """The model's tokenizer. Callers add special tokens themselves, so that none is added twice."""
    from transformers import AutoTokenizer

    verify(folder, without=".safetensors")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def encode(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids of each text, without any special token."""
    if not texts:
        return []
    encoded: list[list[int]] = tokenizer(
        texts, add_special_tokens=False, return_attention_mask=False, verbose=False
    )["input_ids"]
    return encoded


def blocks(model: Any) -> nn.ModuleList:
    """The model's transformer blocks, whatever its family calls them."""
    depth = model.config.get_text_config().num_hidden_layers
    for module in model.get_decoder().modules():  # not those of a vision tower
        if isinstance(module, nn.ModuleList) and len(module) == depth:
            return module
    raise ValueError(f"{type(model).__name__} has no list of {depth} blocks to hook.")
