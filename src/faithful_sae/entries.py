"""What the entries of a checked config say: what is studied where, and on how much text."""

import math
from typing import Any

Config = dict[str, Any]
SPARE = 0.2  # documents sampled beyond what full ones would need


class ConfigError(ValueError):
    """A config that cannot be run; the message is one sentence naming the key and the remedy."""


def model_entry(config: Config, name: str) -> Config:
    """The part of a model's entry that its facts depend on: all but where and how it is studied."""
    return _without(config["models"][name], "hooks", "corpora", "context_length")


def sae_entry(config: Config, name: str) -> Config:
    """The part of an SAE's entry that its training depends on: all but where it is studied."""
    return _without(config["saes"][name], "source", "corpora", "models")


def trained(config: Config) -> Config:
    """The entries of `saes` that this study trains."""
    return {name: sae for name, sae in config["saes"].items() if sae["source"] == "trained"}


def audited_model(config: Config, name: str) -> str:
    """The model that a pretrained SAE reads: the one its entry names, else the only one studied.

    Raises ConfigError when several models are studied and the entry names none.
    """
    studied = [model for model, entry in config["models"].items() if entry["hooks"]]
    model: str | None = config["saes"][name]["model"]
    if model is None and len(studied) != 1:
        raise ConfigError(
            f"saes.{name}.model: this study has {len(studied)} models with hooks "
            f"({', '.join(studied) or 'none'}); name the one that the SAE reads."
        )
    return model or studied[0]


def saes_of(config: Config, model: str) -> list[str]:
    """The SAEs that are trained on this model."""
    return [s for s, entry in trained(config).items() if model in (entry["models"] or [model])]


def corpora_of(config: Config, model: str, sae: str) -> list[str]:
    """The corpora that SAEs of this model are trained and evaluated on: all that both allow.

    A pretrained SAE is evaluated on all that its model is studied on.
    """
    entry = config["saes"][sae]
    if entry["source"] == "trained" and sae not in saes_of(config, model):
        return []
    lists = [config["models"][model]["corpora"], entry.get("corpora")]
    return [c for c in config["corpora"] if all(c in names for names in lists if names is not None)]


def corpus_size_of(config: Config, model: str) -> Config:
    """How much text this model reads: `corpus_size`, in contexts of the model's own length."""
    size: Config = dict(config["corpus_size"])
    own = config["models"][model].get("context_length")
    return size if own is None else size | {"context_length": own}


def documents_to_sample(
    documents: int | None,
    block: int,
    *,
    train_tokens: int,
    heldout_tokens: int,
    heldout_fraction: float,
    context_length: int,
) -> int:
    """How many documents a model must write, in whole blocks: `documents`, or an estimate.

    The estimate fills both splits and adds SPARE for documents that end early or repeat. A model
    that ends most of its documents early needs `documents` in the config.
    """
    if documents is None:
        tokens = max(train_tokens / (1 - heldout_fraction), heldout_tokens / heldout_fraction)
        documents = math.ceil((1 + SPARE) * tokens / (context_length - 1))
    return math.ceil(documents / block) * block


def _without(entry: Config, *keys: str) -> Config:
    return {key: value for key, value in entry.items() if key not in keys}
