"""A trained SAE in the forms of the field's other tools.

Each form is the same function on raw activations. Where a tool cannot express it (sparsify has no
threshold, hence no trained BatchTopK), its form is left out rather than changed.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from faithful_sae.cards import hub_id
from faithful_sae.checksums import file_digest
from faithful_sae.hook_names import hook_names
from faithful_sae.provenance import write_plain_json
from faithful_sae.sae import CONFIG, SAE, WEIGHTS
from faithful_sae.sae_card import Exported, sae_card
from faithful_sae.vocabulary import VOCABULARY

SPARSIFY_WEIGHTS = "sae.safetensors"
DICTIONARY, DICTIONARY_CONFIG = "ae.pt", "config.json"  # of dictionary_learning


def export_sae(
    saes: Sequence[Path],
    destination: Path,
    tables: Mapping[str, pl.DataFrame],
    *,
    facts: dict[str, Any],
    corpus: dict[str, Any],
    context_length: int,
    vocabulary: str,
    **about: Any,
) -> None:
    """Write a repository of one model's SAEs that differ in their hook alone, one folder for each.

    saes: folders that `SAE.save` wrote; tables: their reconstruction, similarity and fake_features;
    facts: those of `describe_model`; corpus: the config's entry of the training text; vocabulary:
    `vocabulary_sha256` of the model's tokenizer; about: what else `sae_card` says.
    A folder, named as sparsify names the module whose output the hook is, holds

    - cfg.json, sae_weights.safetensors: SAELens, and with it SAEBench
    - cfg.json, sae.safetensors: sparsify (TopK alone)
    - config.json, ae.pt: dictionary_learning
    """
    from safetensors.torch import load_file

    exported = []
    for source in saes:
        sae, settings = SAE.load(source), json.loads((source / CONFIG).read_text())
        settings["metadata"] |= sae_lens_metadata(facts, corpus, context_length)
        settings["metadata"][VOCABULARY] = vocabulary
        folder = destination / hook_names(settings["metadata"]["hook"]).module
        folder.mkdir(parents=True)
        if sae.threshold is None:
            settings |= sparsify_config(sae)
            _save(sparsify_tensors(sae), folder / SPARSIFY_WEIGHTS)
        write_plain_json(settings, folder / CONFIG)
        # Anew, since the seal in our own file is on the cfg.json beside it.
        _save(load_file(source / WEIGHTS), folder / WEIGHTS)
        torch.save(dictionary_tensors(sae), folder / DICTIONARY)
        write_plain_json(dictionary_config(sae, settings["metadata"]), folder / DICTIONARY_CONFIG)
        digests = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        exported.append(Exported(folder.name, sae, settings["metadata"], digests))
    card = sae_card(exported, tables, facts=facts, corpus=corpus, **about)
    (destination / "README.md").write_text(card)


def sae_lens_metadata(
    facts: Mapping[str, Any], corpus: Mapping[str, Any], context_length: int
) -> dict[str, Any]:
    """What SAELens and SAEBench look up under `metadata`, beside what training wrote there.

    The names of model and text are ids where these come from the hub, since they load them by name.
    """
    names = {"model_name": hub_id(facts), "dataset_path": corpus.get("hub")}
    return {key: name for key, name in names.items() if name} | {
        "context_size": context_length,
        # Of the tokenizer's own BOS: the model's start token may be another.
        "prepend_bos": facts["entry"]["start_token"] is None,
        "exclude_special_tokens": False,
        "hook_head_index": None,
        "model_from_pretrained_kwargs": {},
    }


def sparsify_config(sae: SAE) -> dict[str, Any]:
    """What sparsify's SparseCoderConfig reads, beside `k` and `d_in`."""
    return {
        "activation": "topk",
        "num_latents": sae.d_sae,
        "normalize_decoder": True,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
    }


def sparsify_tensors(sae: SAE) -> dict[str, Tensor]:
    """The parameters of sparsify's SparseCoder."""
    return {
        "encoder.weight": sae.W_enc.T,
        "encoder.bias": sae.b_enc,
        "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }


def dictionary_tensors(sae: SAE) -> dict[str, Tensor]:
    """The state of dictionary_learning's AutoEncoderTopK or BatchTopKSAE; -1 is no threshold."""
    threshold = torch.tensor(-1.0) if sae.threshold is None else sae.threshold
    return {
        "encoder.weight": sae.W_enc.T.contiguous(),
        "encoder.bias": sae.b_enc,
        "decoder.weight": sae.W_dec.T.contiguous(),
        "b_dec": sae.b_dec,
        "k": torch.tensor(sae.k, dtype=torch.int32),
        "threshold": threshold.clone(),  # a view would be stored with all that it looks into
    }


def dictionary_config(sae: SAE, metadata: Mapping[str, Any]) -> dict[str, Any]:
    """What dictionary_learning's `load_dictionary` reads, and its tools look up."""
    kind = "AutoEncoderTopK" if sae.threshold is None else "BatchTopKSAE"
    training, block = metadata["training"], hook_names(metadata["hook"]).hidden_states
    return {
        "trainer": {
            "trainer_class": "TopKTrainer" if sae.threshold is None else "BatchTopKTrainer",
            "dict_class": kind,
            "k": sae.k,
            "activation_dim": sae.d_in,
            "dict_size": sae.d_sae,
            # It counts outputs of blocks.
            "layer": block - 1 if block else None,
            "submodule_name": f"resid_post_layer_{block - 1}" if block else "embed_tokens",
            "lm_name": metadata["model_name"],
            "lr": training["lr"],
            "steps": training["training_tokens"] // training["batch_size"],
            "seed": metadata["seed"],
        },
        "buffer": {"ctx_len": metadata["context_size"]},
    }


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
