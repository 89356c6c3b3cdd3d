"""Which SAEs the page of features shows: what is asked for, or the first there is."""

from pathlib import Path

import pytest
import yaml

from faithful_sae.config import load_config
from faithful_sae.entries import ConfigError
from faithful_sae.shown import Shown, shown

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())


def tiny(**features) -> Shown:
    config = yaml.safe_load((ROOT / "tests/tiny/config.yaml").read_text())
    config["evaluations"]["features"] = features
    return shown(load_config(config, SCHEMA, ROOT / "tests/tiny"))


def test_the_first_of_everything_is_shown_of_every_corpus_and_paired_with_the_next_seed():
    assert tiny() == Shown("tiny", "resid_pre.1", "topk", ["faithful", "notes", "mixed"], 0, 1)


def test_what_is_asked_for_is_shown_and_the_last_seed_is_paired_with_the_first():
    asked = tiny(sae="batch-topk", corpora=["notes"], seed=1)
    assert asked == Shown("tiny", "resid_pre.1", "batch-topk", ["notes"], 1, 0)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("model", "architecture", "'architecture' is not among the models with hooks; valid here"),
        ("hook", "resid_pre.2", "'resid_pre.2' is not among the hooks of tiny; did you mean"),
        ("sae", "topc", "'topc' is not among the SAEs studied on tiny; did you mean topk?"),
        ("corpora", ["mixt"], "'mixt' is not among the corpora of topk on tiny; did you mean mixe"),
        ("seed", 7, "7 is not among the seeds; valid here: 0, 1."),
    ],
)
def test_what_the_study_does_not_have_is_named_with_its_key(key, value, said):
    with pytest.raises(ConfigError) as error:
        tiny(**{key: value})
    assert str(error.value).startswith(f"evaluations.features.{key}: {said}")


def test_an_sae_is_shown_of_the_corpora_that_it_is_studied_on():
    with pytest.raises(ConfigError, match="'faithful' is not among the corpora of untrained"):
        tiny(sae="untrained", corpora=["faithful"])
