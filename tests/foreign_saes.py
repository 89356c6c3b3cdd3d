"""Folders as SAELens 6 and sparsify 1.3 write them, made without either."""

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from faithful_sae.sae import SAE


def write_folder(
    folder: Path, file: str, tensors: dict[str, Tensor], config: dict[str, Any]
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / file)
    (folder / "cfg.json").write_text(json.dumps(config))
    return folder


def saelens(sae: SAE, hook: str = "blocks.1.hook_resid_pre") -> tuple[str, dict, dict]:
    """File name, tensors and cfg.json of a TopK SAE."""
    tensors = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config = {
        "architecture": "topk",
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "k": sae.k,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": hook, "model_name": "tiny"},
    }
    return "sae_weights.safetensors", tensors, config


def sparsify(sae: SAE) -> tuple[str, dict, dict]:
    """File name, tensors and cfg.json of a TopK SAE; the folder's name says its hook."""
    tensors = {"encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc}
    tensors |= {"W_dec": sae.W_dec, "b_dec": sae.b_dec}
    config = {
        "activation": "topk",
        "expansion_factor": sae.d_sae // sae.d_in,
        "normalize_decoder": True,
        "num_latents": 0,
        "k": sae.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": sae.d_in,
    }
    return "sae.safetensors", tensors, config
