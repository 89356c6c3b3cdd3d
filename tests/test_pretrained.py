"""Pretrained SAEs in a study: what a config may say of them, how they stand in tables."""

import re
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import polars as pl
import pytest
import torch
import yaml

from faithful_sae.config import load_config
from faithful_sae.entries import ConfigError, audited_model, corpora_of, trained
from faithful_sae.figures.stability import shared_features
from faithful_sae.headline import headline
from faithful_sae.heldout import Heldout
from faithful_sae.sae import SAE
from faithful_sae.similarity import similarity_of_pretrained
from faithful_sae.summary import SUMMARY_SCHEMA

ROOT = Path(__file__).parents[1]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIG = yaml.safe_load(
    """
study: audit
models:
  one: {source: hub, hub: a/b, revision: "COMMIT", hooks: [resid_pre.3]}
  writer: {source: hub, hub: a/c, revision: "COMMIT"}
corpora:
  own: {source: faithful}
  code: {source: stdlib}
corpus_size: {train_tokens: 10, heldout_tokens: 5}
saes:
  ours: {k: 4, training_tokens: 10_000, corpora: [own]}
  theirs: {source: pretrained, hub: a/saes, revision: "COMMIT", hook: resid_pre.3}
seeds: [1, 2]
""".replace("COMMIT", "0" * 40)
)


def load(changes: dict | None = None, root: Path = ROOT, **theirs) -> dict:
    config = deepcopy(CONFIG) | (changes or {})
    config["saes"]["theirs"].update(theirs)
    return load_config(config, SCHEMA, root)


def test_an_entry_without_a_source_is_trained_and_a_pretrained_one_has_no_training():
    config = load()
    assert config["saes"]["ours"]["source"] == "trained" and list(trained(config)) == ["ours"]
    assert not {"k", "lr", "corpora"} & config["saes"]["theirs"].keys()
    assert config["saes"]["theirs"]["folder"] == "."


def test_a_pretrained_sae_reads_the_only_studied_model_and_all_of_its_corpora():
    config = load()
    assert audited_model(config, "theirs") == "one"
    assert corpora_of(config, "one", "theirs") == ["own", "code"]
    assert corpora_of(config, "one", "ours") == ["own"]


SECOND = {"models": CONFIG["models"] | {"two": CONFIG["models"]["one"]}}
WRONG = [
    ({"k": 3}, r"saes.theirs.k: unknown key; valid here: source, path, hub, revision, .*hook\.$"),
    ({"revision": "main"}, r"saes.theirs.revision: 'main' must be a full commit"),
    ({"revision": None}, r"saes.theirs: name either the `path` of a folder or `hub` and"),
    ({"hub": None}, r"saes.theirs: name either"),
    ({"path": "x"}, r"saes.theirs: name either"),
    ({"hub": None, "path": "nowhere"}, r"saes.theirs.path: nowhere holds no cfg.json \(in /"),
    (
        {"hook": "resid_pre.4"},
        r"saes.theirs.hook: resid_pre.4 is not among models.one.hooks \(resi",
    ),
    ({"hook": "resid_post.3"}, r"saes.theirs.hook: 'resid_post.3' must be resid_pre.L"),
    ({"model": "oen"}, r"saes.theirs.model: 'oen' is not under models; did you mean one\?"),
    ({"model": "writer"}, r"saes.theirs.hook: resid_pre.3 is not among models.writer.hooks \(none"),
    ({"source": "pretraind"}, r"saes.theirs.source: 'pretraind' is unknown; did you mean pretrain"),
]


@pytest.mark.parametrize(("entry", "said"), WRONG, ids=[str(entry) for entry, _ in WRONG])
def test_a_mistake_in_an_entry_names_its_key_and_the_remedy(entry, said):
    with pytest.raises(ConfigError) as error:
        load(**entry)
    assert re.match(said, str(error.value)), str(error.value)


def test_of_several_studied_models_the_entry_names_one():
    with pytest.raises(ConfigError, match=r"saes.theirs.model: this study has 2 models with hooks"):
        load(SECOND)
    assert audited_model(load(SECOND, model="two"), "theirs") == "two"


def test_the_name_that_stands_for_their_corpus_is_kept():
    with pytest.raises(
        ConfigError, match="corpora.pretrained: the name is kept for SAEs that were"
    ):
        load({"corpora": CONFIG["corpora"] | {"pretrained": {"source": "stdlib"}}})


def of_corpora(*batches) -> Heldout:
    return Heldout([SimpleNamespace(batches=lambda x=x: iter([x])) for x in batches])


def test_held_out_text_of_several_corpora_is_read_in_turn():
    a, b = torch.ones(2, 3), torch.zeros(1, 3)
    assert torch.equal(torch.cat(list(of_corpora(a, b).batches())), torch.cat([a, b]))


def test_pretrained_saes_of_different_widths_are_compared_by_the_narrower_one():
    wide = SAE.untrained(d_in=8, d_sae=32, k=4, seed=0)
    narrow = SAE(wide.W_enc[:, 4:12], wide.b_enc[4:12], wide.W_dec[4:12], wide.b_dec, k=4)
    other = SAE.untrained(d_in=8, d_sae=32, k=4, seed=1)
    text = of_corpora(*torch.randn(2, 40, 8, generator=torch.Generator().manual_seed(0)))
    table = similarity_of_pretrained(
        {"wide": wide, "narrow": narrow, "other": other}, text, [0.7]
    ).filter(pl.col("metric") == "shared_feature_ratio", pl.col("latents") == "all")
    found = {
        (sae, b, null): value
        for sae, b, null, value in table.select("sae", "corpus_b", "null", "value").rows()
    }
    assert len(found) == table.height == 3 * 2 * 2  # pairs, under both names, and permuted
    assert found["wide", "narrow", "none"] == found["narrow", "wide", "none"] == 1
    assert found["wide", "narrow", "permuted"] < 1
    assert found["wide", "other", "none"] == found["other", "wide", "none"] < 0.7


def test_the_summary_has_a_pretrained_sae_on_each_text_and_on_outside_texts_together():
    place = {"model": "m", "hook": "h", "sae": "theirs", "corpus": "pretrained", "seed": 0}
    rows = [
        place | {"eval_corpus": text, "positions": p, "metric": "explained_variance", "value": v}
        for text, p, v in (
            ("own", "kept", 0.8), ("wiki", "kept", 0.5), ("code", "kept", 0.3), ("code", "all", 9.0)
        )
    ]  # fmt: skip
    texts = {"own": [], "wiki": ["wiki"], "code": ["code"]}
    values = headline({"reconstruction": pl.DataFrame(rows)}, texts, 0.1, 1.0).by_seed
    assert dict(values.select("metric", "value").rows()) == {
        "explained_variance:on_own": 0.8,
        "explained_variance:on_wiki": 0.5,
        "explained_variance:on_code": 0.3,
        "explained_variance:foreign": pytest.approx(0.4),
    }


def test_the_figure_shows_the_similarity_to_other_saes_and_not_its_null_beside_it():
    place = {"model": "m", "hook": "h", "sae": "theirs", "corpus": "pretrained"}
    place |= {"seed": 0, "seed_b": 0, "latents": "all", "metric": "mean_matched_cosine"}
    table = pl.DataFrame(
        place | {"corpus_b": corpus_b, "null": null, "value": value, "threshold": None}
        for corpus_b, null, value in (
            ("pretrained", "covariance", 0.3), ("mine", "none", 0.8), ("mine", "permuted", 0.1)
        )
    ).with_columns(pl.col("threshold").cast(pl.Float64))  # fmt: skip
    summary = pl.DataFrame(schema=SUMMARY_SCHEMA)
    figure = shared_features(table, summary, ["own", "pretrained"])
    diamonds = [line for line in figure.subfigs[0].axes[1].lines if line.get_marker() == "D"]
    assert [line.get_ydata().tolist() for line in diamonds] == [[0.8]]
