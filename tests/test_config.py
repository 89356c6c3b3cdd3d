"""A study's config that is valid: every study is, and its defaults are filled in."""

import json
from copy import deepcopy

import pytest
import yaml
from configs import KNOWN, MINIMAL, changed, load
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT

STUDIES = [
    ROOT / "config.yaml",
    ROOT / "tests/tiny/config.yaml",
    *sorted((ROOT / "workflow/studies").glob("*.yaml")),
]


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


def test_a_model_of_known_features_has_defaults_of_its_own():
    model = load(KNOWN)["models"]["known"]
    assert model["hooks"] == ["resid_pre.0"] and model["zipf"] == 1.0 and "start_token" not in model
    assert load(load(KNOWN)) == load(KNOWN)


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


@pytest.mark.parametrize(
    ("key", "given", "taken"),
    [
        ("saes/small/lr", 1, 1.0),
        ("positions", {"max_norm": 4}, {"skip_first": 1, "max_norm": 4.0}),
        ("evaluations", {"similarity": {"thresholds": [0, 0.7]}}, [0.0, 0.7]),
    ],
)
def test_a_whole_number_may_be_written_where_any_number_is_asked(key, given, taken):
    """Which Snakemake would take for two params, and train anew."""
    found = load(changed(key, given))
    for part in key.split("/"):
        found = found[part]
    if key == "evaluations":
        found = found["similarity"]["thresholds"]
    assert repr(found) == repr(taken)


def test_keys_in_another_order_and_defaults_written_out_are_the_same_config():
    """To Snakemake, which compares params as text: an order of its own would train anew."""
    names = ("models", "corpora", "saes", "archives", "tasks")  # entries keep the order given

    def turned(value, named=False):
        if not isinstance(value, dict):
            return value
        keys = list(value) if named else list(reversed(value))
        return {key: turned(value[key], not named and key in names) for key in keys}

    filled = load(MINIMAL)
    assert json.dumps(load(turned(filled))) == json.dumps(filled)
    assert json.dumps(load(turned(MINIMAL))) == json.dumps(filled)
    other = changed("corpora", {"b": {"source": "stdlib"}, "a": {"source": "stdlib"}})
    assert list(load(other)["corpora"]) == ["b", "a"]


def test_local_paths_may_be_relative_absolute_or_hold_brackets(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a[1].txt").write_text("text")
    absolute = str(tmp_path / "texts")
    for path in ("texts", "texts/a[1].txt", absolute):
        load(changed("corpora/local", {"source": "path", "path": path}), tmp_path)
