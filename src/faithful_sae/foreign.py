"""SAELens' and sparsify's folders: an SAE read as what it is, or refused.

Both libraries fill in what a cfg.json leaves out (a missing k becomes 100 or 32) and go on with a
function that nobody trained. Here whatever changes the function is read or refused with its
reason. Only safetensors are opened: loading a pickle runs code.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faithful_sae.checksums import damage

CONFIG = "cfg.json"
SAELENS, SPARSIFY = "sae_weights.safetensors", "sae.safetensors"
FLOATS = {torch.float32, torch.float64, torch.float16, torch.bfloat16}
# SAELens saves a BatchTopK SAE for use as the JumpReLU SAE that it is after training.
ARCHITECTURES = "topk, standard (ReLU) and jumprelu, which BatchTopK SAEs are saved as for use"


@dataclass
class Pretrained:
    """A foreign SAE in our notation, decoder rows of any norm.

    k: None where the format has none.  threshold: [d_sae], None for TopK.  rescaled: whether
    TopK chooses latents after they are multiplied by their rows' norms.  hook: what its files say,
    None if nothing.
    """

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor
    k: int | None
    threshold: Tensor | None
    rescaled: bool
    hook: str | None
    architecture: str
    metadata: dict[str, Any]


def read_pretrained(folder: Path) -> Pretrained:
    """The SAE as its files have it, in float32. ValueError naming the file where it is refused."""
    weights = weights_file(folder)
    config = _read_config(folder / CONFIG)
    tensors = _read_tensors(weights)
    read = _sparsify if weights.name == SPARSIFY else _saelens
    return read(config, tensors, weights)


def weights_file(folder: Path) -> Path:
    """The weights of a folder; SAELens' where it holds both, since its cfg.json says more."""
    for name in (SAELENS, SPARSIFY):
        if (folder / name).exists():
            return folder / name
    found = ", ".join(sorted(path.name for path in folder.iterdir())) or "nothing"
    raise ValueError(
        f"{folder} holds neither {SAELENS} (SAELens) nor {SPARSIFY} (sparsify), but {found}; "
        "pickled weights are never opened, save them as safetensors."
    )


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; without it the weights mean nothing.") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}); fetch it anew.") from error
    return config


def _read_tensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except SafetensorError as error:
        raise damage(path, str(error)) from error
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATS:
            raise ValueError(
                f"{path}: {name} is of type {tensor.dtype}, no floating-point weights."
            )
        tensors[name] = tensor.float()
        if not bool(tensors[name].isfinite().all()):
            raise ValueError(f"{path}: {name} holds values that are not finite.")
    return tensors


def _saelens(config: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> Pretrained:
    """SAELens 6, and the flat cfg.json of versions before it."""
    metadata = config | config.get("metadata", {})
    architecture = config.get("architecture", "standard")
    chosen = config.get("activation_fn_str", config.get("activation_fn", "relu"))
    arguments = config.get("activation_fn_kwargs") or {}
    if architecture == "standard" and chosen == "topk":
        architecture = "topk"
    elif chosen not in ("relu", "topk"):
        raise _refused(file, "activation_fn", chosen, "the activations read are relu and topk")
    for key, only in (("normalize_activations", "none"), ("reshape_activations", "none")):
        value = config.get(key) or only
        if value != only:
            raise _refused(
                file, key, value, "what it does to activations is not in the weights; fold it first"
            )
    k = config.get("k", arguments.get("k"))
    scale = tensors.pop("scaling_factor", None)
    if scale is not None and not bool((scale == 1).all()):
        raise _refused(file, "finetuning_scaling_factor", True, "fold it into the weights first")
    d_sae = len(tensors.get("W_dec", ()))
    if architecture == "topk":
        threshold, names = None, {"W_enc", "b_enc", "W_dec", "b_dec"}
        k = _require_k(k, file)
    elif architecture == "standard":
        threshold, names = torch.zeros(d_sae), {"W_enc", "b_enc", "W_dec", "b_dec"}
    elif architecture == "jumprelu":
        names = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
        threshold = tensors.get("threshold")
    else:
        raise _refused(file, "architecture", architecture, f"those read are {ARCHITECTURES}")
    _require_names(tensors, names, file)
    b_enc, b_dec = tensors["b_enc"], tensors["b_dec"]
    if not config.get("apply_b_dec_to_input", True):
        # Ours subtracts b_dec before it encodes: x W = (x - b_dec) W + b_dec W.
        b_enc = b_enc + b_dec @ tensors["W_enc"]
    sae = Pretrained(
        W_enc=tensors["W_enc"],
        b_enc=b_enc,
        W_dec=tensors["W_dec"],
        b_dec=b_dec,
        k=k,
        threshold=threshold,
        rescaled=bool(config.get("rescale_acts_by_decoder_norm", False)),
        hook=_saelens_hook(metadata.get("hook_name", metadata.get("hook_point")), file),
        architecture=architecture,
        metadata=metadata,
    )
    _require_shapes(sae, (config.get("d_in"), config.get("d_sae")), file)
    return sae


def _sparsify(config: dict[str, Any], tensors: dict[str, Tensor], file: Path) -> Pretrained:
    """sparsify 1.3 (EleutherAI): TopK, b_dec always subtracted before encoding."""
    function = {"activation": "topk", "transcode": False, "skip_connection": False, "signed": False}
    for key, only in function.items():
        if config.get(key, only) != only:
            raise _refused(file, key, config[key], f"the SAEs read have {only}")
    _require_names(tensors, {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}, file)
    sae = Pretrained(
        W_enc=tensors["encoder.weight"].T,
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        k=_require_k(config.get("k"), file),
        threshold=None,
        rescaled=False,
        hook=_sparsify_hook(file),
        architecture="topk",
        metadata=config.get("metadata", {}),
    )
    # num_latents 0 stands for d_in * expansion_factor, which the tensors say themselves.
    _require_shapes(sae, (config.get("d_in"), config.get("num_latents") or None), file)
    return sae


def _require_k(k: Any, file: Path) -> int:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        what = "states no k" if k is None else f"states k = {k!r}"
        raise ValueError(
            f"{file.parent / CONFIG} {what}; SAELens would take 100 and sparsify 32 without a "
            "word. Find the number it was trained with and write it there."
        )
    return k


def _require_names(tensors: dict[str, Tensor], names: set[str], file: Path) -> None:
    for name in sorted(names ^ tensors.keys()):
        what = "lacks" if name in names else "also holds"
        raise ValueError(
            f"{file} {what} the tensor {name}; an SAE of this kind has {', '.join(sorted(names))}."
        )


def _require_shapes(sae: Pretrained, said: tuple[int | None, int | None], file: Path) -> None:
    d_sae, d_in = sae.W_dec.shape
    expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "b_dec": (d_in,)}
    if sae.threshold is not None:
        expected["threshold"] = (d_sae,)
    for name, shape in expected.items():
        if getattr(sae, name).shape != shape:
            raise ValueError(
                f"{file}: {name} is of shape {list(getattr(sae, name).shape)}, but W_dec of "
                f"{[d_sae, d_in]} needs {list(shape)}."
            )
    for key, given, size in zip(("d_in", "d_sae"), said, (d_in, d_sae), strict=True):
        if given not in (None, size):
            raise ValueError(
                f"{file.parent / CONFIG} states {key} = {given}, but the weights have {size}."
            )
    if sae.threshold is None and sae.k is not None and sae.k > d_sae:
        raise ValueError(f"{file.parent / CONFIG} states k = {sae.k} of {d_sae} latents.")


def _saelens_hook(name: str | None, file: Path) -> str | None:
    """resid_pre.L of TransformerLens' name; the output of block L is the input of block L + 1."""
    if name is None:
        return None
    match = re.fullmatch(r"blocks\.(\d+)\.hook_resid_(pre|post)", name)
    if not match:
        raise _refused(file, "hook_name", name, "the hooks read are those of the residual stream")
    return f"resid_pre.{int(match[1]) + (match[2] == 'post')}"


def _sparsify_hook(file: Path) -> str | None:
    """resid_pre.L of the folder's name, which is a module: its output is what was read."""
    name = file.parent.name
    if name == "embed_tokens":
        return "resid_pre.0"
    match = re.fullmatch(r"(?:.*\.)?(?:layers|h)\.(\d+)(\..+)?", name)
    if match and match[2]:
        raise _refused(file, "folder", name, "the hooks read are those of the residual stream")
    return f"resid_pre.{int(match[1]) + 1}" if match else None


def _refused(file: Path, key: str, value: Any, reason: str) -> ValueError:
    return ValueError(f"{file.parent / CONFIG}: {key} {value!r} cannot be audited; {reason}.")
