"""SAEs that others trained, made what an SAE of this workflow is: float32, unit decoder rows."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from faithful_sae.checksums import file_digest, verify
from faithful_sae.foreign import CONFIG, SPARSIFY, Pretrained, read_pretrained, weights_file
from faithful_sae.heldout import Heldout
from faithful_sae.hook_names import hook_block
from faithful_sae.sae import SAE
from faithful_sae.vocabulary import VOCABULARY

# Norms of decoder rows that differ by less are one norm: bfloat16 alone moves them by 1e-3.
NORM_TOLERANCE = 1e-2
UNIT_TOLERANCE = 1e-5  # rows this close to unit norm keep their bits
# What foreign files may say of an SAE's making that is kept word for word.
STATED = ["model_name", "tokenizer_name", VOCABULARY, "dataset_path", "context_size"]


def import_sae(
    folder: Path, hook: str, heldout: Heldout, origin: dict[str, Any]
) -> tuple[SAE, dict[str, Any]]:
    """The SAE of a SAELens or sparsify folder with unit decoder rows, and what cfg.json says of it.

    An SAE with a threshold that states no k gets the k that controls of equal sparsity need: its
    mean number of active latents on the held-out tokens.

    hook: where the study reads; origin: where the folder is from, kept in the provenance.
    Raises ValueError naming the file when it is damaged or states what cannot be read here, and
    when its d_in is not the model's.
    """
    verify(folder)
    found = read_pretrained(folder)
    d_in = heldout.corpora[0].d_in
    if found.W_dec.shape[1] != d_in:
        raise ValueError(
            f"{folder}: this SAE reads {found.W_dec.shape[1]} dimensions, but the activations of "
            f"{hook} have {d_in}; it belongs to another model."
        )
    norms = found.W_dec.norm(dim=1)
    sae = with_unit_rows(found, folder)
    if found.k is None:
        sae.k = max(1, round(mean_l0(sae, heldout.batches())))
    said = {
        "format": "sparsify" if weights_file(folder).name == SPARSIFY else "SAELens",
        "sha256": file_digest(weights_file(folder)),
        "architecture": found.architecture,
        "k": found.k,
        "hook": found.hook,
        "decoder_norms": [norms.min().item(), norms.max().item()],
        **{key: found.metadata[key] for key in STATED if key in found.metadata},
    }
    block = hook_block(hook)
    provenance = {
        "model_name": found.metadata.get("model_name"),
        "hook_name": f"blocks.{block}.hook_resid_pre",
        "hf_hook_name": f"hidden_states[{block}]",
        "pretrained": origin | said,
    }
    return sae, provenance


def stated(folder: Path) -> dict[str, Any]:
    """What the foreign files of an imported SAE said of it, from the cfg.json that was written."""
    said: dict[str, Any] = json.loads((folder / CONFIG).read_text())["metadata"]["pretrained"]
    return said


def mean_l0(sae: SAE, batches: Iterable[Tensor]) -> float:
    """Active latents per token, over activations [n, d_in]."""
    active = tokens = 0
    for x in batches:
        active += sum(int((sae.encode(part) > 0).sum()) for part in torch.split(x, 1024))
        tokens += len(x)
    return active / tokens


def with_unit_rows(found: Pretrained, folder: Path) -> SAE:
    """The same function with unit decoder rows: a row's norm goes into its latent.

    latent_i W_dec_i = (norm_i latent_i) (W_dec_i / norm_i), and norm_i ReLU(z) = ReLU(norm_i z).
    A threshold moves along. TopK compares latents, so that it stays the same only if all norms are
    equal, or if it compared them with their norms in the first place; else it is refused. A row of
    zeros writes nothing and stays; compared with its norm, its latent is never chosen.
    """
    norms = found.W_dec.norm(dim=1)
    written = norms[norms > 0]
    spread = (written.max() / written.min()).item()
    if found.threshold is None and not found.rescaled and spread > 1 + NORM_TOLERANCE:
        raise ValueError(
            f"{folder}: the norms of its decoder rows go from {written.min():.3g} to "
            f"{written.max():.3g} and TopK chooses latents without them, so no SAE with unit rows "
            "equals it; similarity and fake features would mean something else for it."
        )
    as_they_are = (norms == 0) | ((norms - 1).abs() < UNIT_TOLERANCE)
    scale = torch.where(as_they_are, 1, norms)
    into_latents = torch.where(norms == 0, 0, scale) if found.rescaled else scale
    return SAE(
        W_enc=(found.W_enc * into_latents).contiguous(),
        b_enc=found.b_enc * into_latents,
        W_dec=(found.W_dec / scale[:, None]).contiguous(),
        b_dec=found.b_dec,
        k=found.k or 1,
        threshold=None if found.threshold is None else found.threshold * scale,
    )
