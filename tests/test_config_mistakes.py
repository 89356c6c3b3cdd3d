"""Every mistake in a config is one line that starts with its key and says what to do."""

import re
from copy import deepcopy

import pytest
from configs import DELETED, KNOWN, MINIMAL, SCHEMA, changed, load

from faithful_sae.config import load_config
from faithful_sae.entries import ConfigError, corpora_of


def refuse(config, message):
    """Loading it fails with one line: the key and what was found, then the remedy."""
    with pytest.raises(ConfigError) as error:
        load(config)
    assert re.match(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value) and re.search(r"[^?.][.?]$", str(error.value))


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
    # Either would stand twice in a table, which the summary refuses after all work is done.
    ("evaluations/similarity/thresholds", [0.7, 0.7], r"evaluations.similarity.thr.* non-unique"),
    ("evaluations/probing/k", [1, 1], r"evaluations.probing.k: \[1, 1\] has non-unique"),
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
    refuse(changed(path, value), message)


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
    refuse(changed(path, value, KNOWN), message)


def test_corpora_of_known_features_need_such_a_model():
    config = changed("corpora/far", {"source": "known_features", "shift": 1})
    with pytest.raises(ConfigError, match="models.base.source: 'hub' is about a language model"):
        load(config)


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


def test_one_file_has_one_sha256():
    same = MINIMAL["archives"]["wheel"]
    assert load(changed("archives/again", same))["archives"]["again"] == same
    refuse(changed("archives/again", same | {"sha256": "f" * 64}), r"archives.again.sha256: anothe")


def test_a_model_that_shares_no_corpus_with_any_sae_is_an_error():
    config = changed("saes/small/corpora", ["own"])
    config["models"]["base"]["corpora"] = ["films", "mixed"]
    with pytest.raises(ConfigError, match=r"^models.base.corpora: no SAE is studied on any of th"):
        load(config)
    config["saes"]["other"] = {"k": 4, "training_tokens": 0}
    assert corpora_of(load(config), "base", "small") == []
    assert corpora_of(load(config), "base", "other") == ["films", "mixed"]


def test_a_model_folder_without_a_model_is_named(tmp_path):
    (tmp_path / "mine").mkdir()
    config = changed("models/base", {"source": "path", "path": "mine", "hooks": ["resid_pre.1"]})
    with pytest.raises(ConfigError, match="models.base.path: mine holds no config.json"):
        load_config(config, SCHEMA, tmp_path)
    (tmp_path / "weights").touch()
    single = changed("models/base", {"source": "path", "path": "weights", "hooks": ["resid_pre.1"]})
    with pytest.raises(ConfigError, match="weights is a file; name a folder"):
        load_config(single, SCHEMA, tmp_path)
    (tmp_path / "mine/config.json").write_text("{}")
    load_config(config, SCHEMA, tmp_path)
