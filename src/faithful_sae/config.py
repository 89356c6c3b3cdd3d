"""Check a study's config against the schema and fill in the defaults.

The schema is the one home of names, types, ranges and defaults. What it cannot say is checked here:
by `load_config` that names refer to entries, by `check_model` what needs facts of the model.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

from faithful_sae.entries import (
    Config,
    ConfigError,
    audited_model,
    corpora_of,
    corpus_size_of,
    model_entry,
    saes_of,
    trained,
)
from faithful_sae.hook_names import hook_block
from faithful_sae.names import PRETRAINED
from faithful_sae.random_inputs import RANDOM_INPUTS
from faithful_sae.schema_errors import first_error, nearest

RESERVED = {
    **dict.fromkeys(RANDOM_INPUTS, "a random input of the fake-feature evaluation"),
    "between-corpora": "the folder of comparisons between corpora",
    "probing-baselines": "the folder of probes that depend on no corpus",
    PRETRAINED: "SAEs that were trained elsewhere",
}
LISTS = [  # section, key that lists names, where these are entries
    ("models", "corpora", "corpora"),
    ("saes", "corpora", "corpora"),
    ("saes", "models", "models"),
    ("corpora", "of", "corpora"),
]


def load_config(config: Config, schema: Config, root: Path) -> Config:
    """The config with every default filled in; `config` itself is left alone.

    schema: the parsed config.schema.yaml; root: folder that `path` entries are relative to.

    Raises ConfigError on the first problem.
    """
    # Snakemake may hand over dictionaries of its own making.
    filled: Config = _fill(deepcopy(config), schema, schema)
    error = first_error(filled, schema)
    if error is not None:
        raise ConfigError(error)
    filled = _as_in_schema(filled, schema, schema)
    _check_references(filled, root)
    entries = [*filled["models"].values(), *filled["corpora"].values()]
    if any(entry["source"] == "known_features" for entry in entries):
        _check_known_features(filled)
    return filled


def check_model(config: Config, facts: Config) -> None:
    """Check what only the model can tell; `facts` are those of `describe_model`, and `entry`.

    Facts of another entry than the config's (the model was exchanged since) say nothing.

    Raises ConfigError when a hook lies beyond the last block, an SAE's k exceeds its d_sae, or
    contexts are longer than the model reads.
    """
    name, d_in, blocks = facts["model"], facts["d_in"], facts["blocks"]
    if facts["entry"] != model_entry(config, name):
        return
    hooks = config["models"][name]["hooks"]
    for hook in hooks:
        if hook_block(hook) >= blocks:
            raise ConfigError(
                f"models.{name}.hooks: {hook} lies beyond the last block; the model has {blocks} "
                f"blocks, so the deepest hook is resid_pre.{blocks - 1}."
            )
    if hooks:
        _check_width(config, name, d_in)
    longest, asked = facts["context_length"], corpus_size_of(config, name)["context_length"]
    if longest is not None and asked > longest:
        raise ConfigError(
            f"corpus_size.context_length: {asked} tokens, but {name} reads at most {longest}; "
            f"lower it, or set models.{name}.context_length."
        )


def _check_width(config: Config, model: str, d_in: int) -> None:
    for sae in saes_of(config, model):
        settings = config["saes"][sae]
        d_sae = settings["expansion"] * d_in
        if settings["k"] > d_sae:
            raise ConfigError(
                f"saes.{sae}.k: {settings['k']} active latents exceed d_sae = {d_sae} (expansion "
                f"{settings['expansion']} x d_in {d_in} of {model}); lower k or raise expansion."
            )


def _fill(value: Any, schema: Config, whole: Config) -> Any:
    """`value` with the defaults of `schema`, in nested and in named entries too."""
    schema = _resolve(value, schema, whole)
    if not isinstance(value, dict):
        return value
    properties = schema.get("properties", {})
    for key, inner in properties.items():
        inner = _resolve(None, inner, whole)
        if key not in value and "default" in inner:
            value[key] = deepcopy(inner["default"])
    others = schema.get("additionalProperties")
    for key in value:
        inner = properties.get(key, others)
        if isinstance(inner, dict):
            value[key] = _fill(value[key], inner, whole)
    return value


def _as_in_schema(value: Any, schema: Config, whole: Config) -> Any:
    """A valid `value` with keys in the order of `schema`, and numbers of its type.

    Snakemake compares params as text, in which 1 is not 1.0 and another order is another value: it
    would train anew for either. Entries with names of the study's own keep their order.
    """
    schema = _resolve(value, schema, whole)
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        keys = dict.fromkeys([*(key for key in properties if key in value), *value])
        return {key: _as_in_schema(value[key], properties.get(key, others), whole) for key in keys}
    if isinstance(value, list) and "items" in schema:
        return [_as_in_schema(item, schema["items"], whole) for item in value]
    return float(value) if isinstance(value, int) and "number" in schema.get("type", ()) else value


def _resolve(value: Any, schema: Config, whole: Config) -> Config:
    """The schema that applies to `value`: references followed, the branch of `source` chosen."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        schema = whole["$defs"][name] | {k: v for k, v in schema.items() if k != "$ref"}
    if "oneOf" in schema and isinstance(value, dict):
        for branch in schema["oneOf"]:
            source = branch["properties"]["source"]  # its default makes a kind the usual one
            if source["const"] == value.get("source", source.get("default")):
                return dict(branch)
    return schema


def _check_references(config: Config, root: Path) -> None:
    """Names that refer to other entries, and names that would share a folder or a file."""
    pins: dict[str, str] = {}
    for name, archive in config["archives"].items():
        if pins.setdefault(archive["file"], archive["sha256"]) != archive["sha256"]:
            raise ConfigError(
                f"archives.{name}.sha256: another entry has the same file with another sha256; "
                "one file has one, so correct it."
            )
    for section in ("models", "corpora", "tasks"):
        for name, entry in config[section].items():
            for kind in ("archive", "model"):
                known = config[f"{kind}s"]
                if kind in entry and entry[kind] not in known:
                    raise ConfigError(
                        f"{section}.{name}.{kind}: {entry[kind]!r} is not under {kind}s"
                        f"{nearest(entry[kind], list(known))}"
                    )
            if entry["source"] == "path" and not (root / entry["path"]).exists():
                where = "" if Path(entry["path"]).is_absolute() else f" in {root.absolute()}"
                raise ConfigError(f"{section}.{name}.path: {entry['path']} does not exist{where}.")
            if section == "models" and entry["source"] == "path":
                folder = root / entry["path"]
                if not (folder / "config.json").exists():
                    found = "is a file" if folder.is_file() else "holds no config.json"
                    raise ConfigError(
                        f"models.{name}.path: {entry['path']} {found}; name a folder "
                        "that transformers opens (config, safetensors, tokenizer)."
                    )
    for name, model in config["models"].items():
        if model["source"] == "random_like":
            base = config["models"][model["model"]]
            if base["source"] == "random_like":
                raise ConfigError(
                    f"models.{name}.model: {model['model']} is itself random; name the model "
                    "whose architecture it has."
                )
    for name, sae in config["saes"].items():
        if sae["source"] == "pretrained":
            _check_pretrained(config, name, root)
    for section, key, kind in LISTS:
        for name, entry in config[section].items():
            for named in entry.get(key) or ():
                if named not in config[kind]:
                    raise ConfigError(
                        f"{section}.{name}.{key}: {named!r} is not under {kind}"
                        f"{nearest(named, list(config[kind]))}"
                    )
                if key == "of" and config["corpora"][named]["source"] == "mixture":
                    raise ConfigError(
                        f"corpora.{name}.of: {named} is itself a mixture; name what it is made of."
                    )
    for section in ("corpora", "tasks"):
        for name in RESERVED.keys() & config[section].keys():
            raise ConfigError(
                f"{section}.{name}: the name is kept for {RESERVED[name]}; choose another."
            )
    for name in config["tasks"].keys() & config["corpora"].keys():
        raise ConfigError(f"tasks.{name}: a corpus has this name too; choose another.")
    for name, sae in trained(config).items():
        if 0 < sae["training_tokens"] < sae["batch_size"]:
            raise ConfigError(
                f"saes.{name}.training_tokens: {sae['training_tokens']} do not fill one batch of "
                f"{sae['batch_size']}; raise them, lower batch_size, or set 0 for no training."
            )
    if not any(model["hooks"] for model in config["models"].values()):
        raise ConfigError("models: no model has hooks, so there is nothing to study.")
    for name, model in config["models"].items():
        if model["hooks"] and not any(corpora_of(config, name, sae) for sae in config["saes"]):
            raise ConfigError(
                f"models.{name}.corpora: no SAE is studied on any of them; add one of the corpora "
                f"that an entry of saes names, or {name} to the models of one."
            )


def _check_pretrained(config: Config, name: str, root: Path) -> None:
    """A pretrained SAE is at one place, on the hub or here, and reads a hook of the study."""
    sae = config["saes"][name]
    if (sae["path"] is None) == (sae["hub"] is None) or (sae["hub"] and not sae["revision"]):
        raise ConfigError(
            f"saes.{name}: name either the `path` of a folder or `hub` and `revision` of a "
            "repository (with `folder`, where the SAE is not at its top)."
        )
    if sae["path"] is not None and not (root / sae["path"] / sae["folder"] / "cfg.json").exists():
        raise ConfigError(
            f"saes.{name}.path: {sae['path']} holds no cfg.json (in {root.absolute()})."
        )
    if sae["model"] is not None and sae["model"] not in config["models"]:
        known = list(config["models"])
        raise ConfigError(
            f"saes.{name}.model: {sae['model']!r} is not under models{nearest(sae['model'], known)}"
        )
    model = audited_model(config, name)
    hooks = config["models"][model]["hooks"]
    if sae["hook"] not in hooks:
        raise ConfigError(
            f"saes.{name}.hook: {sae['hook']} is not among models.{model}.hooks "
            f"({', '.join(hooks) or 'none'}); add it there, or name the hook it was trained at."
        )


def _check_known_features(config: Config) -> None:
    """A study of known features has neither a language model nor text, but a faithful corpus."""
    for section in ("models", "corpora"):
        for name, entry in config[section].items():
            if entry["source"] != "known_features":
                raise ConfigError(
                    f"{section}.{name}.source: {entry['source']!r} is about a language model, but "
                    "this study is about known features; give each kind a study of its own."
                )
    for name in config["saes"].keys() - trained(config).keys():
        raise ConfigError(
            f"saes.{name}.source: a pretrained SAE reads a language model; remove it."
        )
    if config["tasks"]:
        raise ConfigError("tasks: a model of known features reads no text; remove them.")
    if all(corpus["shift"] for corpus in config["corpora"].values()):
        raise ConfigError("corpora: none has shift 0, the model's own distribution; add one.")
    for name, model in config["models"].items():
        _check_width(config, name, model["d_in"])
