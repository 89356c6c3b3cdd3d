"""Settings that differ from model to model of one study: context length, width, k."""

from copy import deepcopy
from pathlib import Path

import pytest
import yaml
from configs import MINIMAL, load

from faithful_sae.config import check_model
from faithful_sae.entries import (
    ConfigError,
    corpora_of,
    corpus_size_of,
    model_entry,
    sae_entry,
    saes_of,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def two() -> dict:
    """Two models of different width, an SAE for each and one for both."""
    config = deepcopy(MINIMAL)
    config["models"]["small"] = {
        **config["models"]["base"],
        "context_length": 32,
        "corpora": ["own", "films"],
    }
    config["saes"] |= {
        "wide": {"k": 4, "training_tokens": 10_000, "models": ["base"], "expansion": 9},
        "narrow": {"k": 20, "training_tokens": 10_000, "models": ["small"], "expansion": 2},
    }
    return load(config)


def facts(config: dict, name: str, d_in: int, longest: int) -> dict:
    entry = model_entry(config, name)
    return {"model": name, "d_in": d_in, "blocks": 9, "context_length": longest, "entry": entry}


def test_an_sae_is_studied_on_its_models_and_on_corpora_that_both_allow(two):
    assert saes_of(two, "base") == ["small", "wide"]
    assert saes_of(two, "small") == ["small", "narrow"]
    assert corpora_of(two, "base", "narrow") == []
    assert corpora_of(two, "small", "narrow") == corpora_of(two, "small", "small")
    assert corpora_of(two, "small", "narrow") == ["own", "films"]


def test_a_model_reads_contexts_of_its_own_length(two):
    assert corpus_size_of(two, "small") == two["corpus_size"] | {"context_length": 32}
    assert corpus_size_of(two, "base") == two["corpus_size"]
    check_model(two, facts(two, "small", d_in=16, longest=32))
    with pytest.raises(ConfigError, match=r"128 tokens, but base .* set models.base.context_leng"):
        check_model(two, facts(two, "base", d_in=16, longest=32))


def test_k_is_held_against_the_width_of_its_own_models_alone(two):
    check_model(two, facts(two, "base", d_in=8, longest=128))  # narrow: k 20 of 16, elsewhere
    with pytest.raises(ConfigError, match=r"saes.narrow.k: 20 active latents exceed d_sae = 16"):
        check_model(two, facts(two, "small", d_in=8, longest=128))


def test_where_a_model_or_sae_is_studied_is_no_part_of_what_its_results_depend_on(two):
    for entry in (model_entry(two, "small"), sae_entry(two, "narrow")):
        assert not {"models", "corpora", "context_length", "hooks"} & entry.keys()


def test_the_paper_has_seven_models_with_one_sae_each_of_the_widths_it_names():
    config = load(yaml.safe_load((ROOT / "workflow/studies/paper.yaml").read_text()))
    known = yaml.safe_load((ROOT / "workflow/plan/models.yaml").read_text())
    d_in = {"gpt2-small": known["openai-community/gpt2"]["n_embd"]}
    for name, model in config["models"].items():
        d_in.setdefault(name, known[model["hub"]].get("hidden_size"))
        assert saes_of(config, name) == [name]
    widths = {m: config["saes"][m]["expansion"] * d_in[m] for m in config["models"]}
    assert widths == {
        "gpt2-small": 12_288,
        "pythia-1-4b": 14_336,
        "pythia-2-8b": 15_360,
        "gemma-2-2b": 18_432,
        "llama-3-2-1b": 14_336,
        "llama-3-2-3b": 18_432,
        "llama-3-1-8b": 16_384,
    }
    # "Dead" is 5 batches without firing.
    assert all(sae["dead_after"] == 5 * sae["batch_size"] for sae in config["saes"].values())


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


def test_no_rule_of_language_models_passes_over_a_models_own_context_length():
    """`corpus_size/context_length` is of models without one; `context_length` asks the model."""
    past = [
        file.name
        for file in (ROOT / "workflow/rules").glob("*.smk")
        if 'dpath="corpus_size/context_length"' in file.read_text()
    ]
    assert past == ["ground_truth.smk"]  # known features have no context of their own
