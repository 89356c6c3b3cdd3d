"""Exported corpora against the samples they are made of, and their cards."""

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from exports import CONFIG, CORPUS, FACTS, REVISION, write_shards

from faithful_sae.contexts import Sample, digest, is_heldout
from faithful_sae.corpus import build_corpus, read_samples, sampled_documents
from faithful_sae.corpus_card import COLUMNS, MEANINGS, corpus_card
from faithful_sae.corpus_statistics import corpus_statistics
from faithful_sae.export_corpus import DOCUMENTS, document_table, export_corpus
from faithful_sae.models import load_model

LENGTH, HELDOUT = 32, 0.4


@pytest.fixture(scope="module")
def model(tiny_folder):
    return load_model(tiny_folder)


@pytest.fixture(scope="module")
def exported(tmp_path_factory, model, tokenizer):
    return export(tmp_path_factory.mktemp("corpus"), model, tokenizer)


def export(folder, model, tokenizer, shards=1, facts=FACTS, reader=None):
    statistics = pl.DataFrame({"metric": ["nll", "train_tokens"], "value": [3.25, 40_000.0]})
    paths = write_shards(folder, shards)
    export_corpus(
        paths,
        folder / "faithful",
        model,
        tokenizer,
        reader or tokenizer,
        statistics,
        facts=facts,
        revision=REVISION,
        entry=CORPUS,
        heldout_fraction=HELDOUT,
        context_length=LENGTH,
        corpus="faithful",
        reader_name="tiny",
        config=CONFIG,
    )
    return folder


def rows(folder, kind, split) -> list[dict]:
    files = sorted((folder / "faithful/data" / kind).glob(f"{split}-*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files]).to_pylist()


def test_every_sampled_document_is_there_once_as_it_was_sampled(exported, tokenizer):
    found = rows(exported, "documents", "train") + rows(exported, "documents", "heldout")
    by_id = {row["doc_id"]: row for row in found}
    samples = list(read_samples([exported / "shard0.parquet"]))
    assert len(found) == len(by_id) == len(samples) == 12
    for sample in samples:
        row = by_id[sample.document]
        assert row["input_ids"] == [0, *sample.tokens] and row["n_tokens"] == len(row["input_ids"])
        assert row["finish_reason"] == ("eos" if sample.ended else "length")
        assert row["seed"] == 7 and row["text"] == tokenizer.decode(sample.tokens)
        assert len(row["logprob"]) == len(sample.tokens)


def test_documents_are_held_out_as_in_the_study(exported):
    samples = list(read_samples([exported / "shard0.parquet"]))
    budget = {"train_tokens": 20, "heldout_tokens": 20, "heldout_fraction": HELDOUT}
    corpus = build_corpus(
        "x",
        sampled_documents(samples),
        start_token=0,
        context_length=LENGTH,
        pack=False,
        **budget,
    )
    for split in ("train", "heldout"):
        exported_ids = {row["doc_id"] for row in rows(exported, "documents", split)}
        studied = set(getattr(corpus, split)["document"].to_pylist())
        assert studied and studied <= exported_ids


def test_log_probabilities_are_those_of_one_document_at_a_time(exported, model):
    for row in rows(exported, "documents", "heldout"):
        ids = torch.tensor([row["input_ids"]])
        log_p = model(ids).logits[0].double().log_softmax(-1)
        expected = [float(log_p[i, token]) for i, token in enumerate(row["input_ids"][1:])]
        assert row["logprob"] == pytest.approx(expected, abs=1e-4)


def test_tokenized_rows_are_full_contexts_of_the_same_tokens(exported):
    for split in ("train", "heldout"):
        documents = rows(exported, "documents", split)
        contexts = [row["input_ids"] for row in rows(exported, "tokenized", split)]
        assert contexts and {len(ids) for ids in contexts} == {LENGTH}
        assert {ids[0] for ids in contexts} == {0}
        written = sorted(t for row in documents for t in row["input_ids"] if t)
        packed = [t for ids in contexts for t in ids if t]
        assert len(written) - LENGTH < len(packed) <= len(written)


def test_shards_change_nothing_but_the_files(exported, tmp_path, model, tokenizer):
    export(tmp_path, model, tokenizer, shards=3)
    for split in ("train", "heldout"):
        assert len(list((tmp_path / "faithful/data/documents").glob(f"{split}-*-of-00003*"))) == 3
        one, three = (rows(folder, "documents", split) for folder in (exported, tmp_path))
        for a, b in zip(one, three, strict=True):
            assert a.pop("logprob") == pytest.approx(b.pop("logprob"), abs=1e-4)
            assert a == b


def test_the_card_says_how_it_was_made_and_what_it_holds(exported):
    card = (exported / "faithful/README.md").read_text()
    _, head, body = card.split("---\n", 2)
    front = yaml.safe_load(head)
    assert front["size_categories"] == ["n<1K"] and front["base_model"] == "someone/tiny"
    kinds = {config["config_name"]: config for config in front["configs"]}
    assert kinds["documents"]["default"] and not kinds["tokenized"]["default"]
    for kind, config in kinds.items():
        assert [part["split"] for part in config["data_files"]] == ["train", "heldout"]
        for part in config["data_files"]:
            assert part["path"].startswith(f"data/{kind}/{part['split']}-")
            assert len(list((exported / "faithful").glob(part["path"]))) == 1
    for setting in (
        f"| model | source hub, hub someone/tiny, revision {REVISION} |",
        "| prompt | token 0 alone |",
        "| end tokens | 1 |",
        "| temperature | 0.75 |",
        "| top_p | 0.5 |",
        "| top_k | none |",
        "| repetition_penalty | 1.25 |",
        f"| longest document | {LENGTH} tokens, the start token included |",
        "| seed | 7 |",
        "| `nll` | 3.25 |",
        "| `train_tokens` | 40,000 |",
    ):
        assert setting in body
    n = {split: len(rows(exported, "documents", split)) for split in ("train", "heldout")}
    assert f"| `documents/train` | {n['train']} |" in body and sum(n.values()) == 12
    assert set(COLUMNS) == set(DOCUMENTS.names)
    for line in body.splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 4), line


@pytest.mark.parametrize(
    ("documents", "size"),
    [(999, "n<1K"), (1_000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M")]
    + [(9_999_999, "1M<n<10M"), (10_000_000, "n>10M")],
)
def test_the_size_on_the_card_is_that_of_the_documents(documents, size):
    rows = {"documents/train": documents - 9, "documents/heldout": 9, "tokenized/train": 10**9}
    card = corpus_card(
        rows,
        pl.DataFrame({"metric": ["nll"], "value": [3.25]}),
        facts=FACTS,
        revision=REVISION,
        entry=CORPUS,
        context_length=LENGTH,
        corpus="faithful",
        reader_name="tiny",
        config=CONFIG,
    )
    assert yaml.safe_load(card.split("---\n")[1])["size_categories"] == [size]


def test_every_diagnostic_has_a_meaning(model, tokenizer, exported):
    documents = sampled_documents(read_samples([exported / "shard0.parquet"]))
    corpus = build_corpus(
        "x",
        documents,
        start_token=0,
        context_length=LENGTH,
        train_tokens=50,
        heldout_tokens=50,
        heldout_fraction=HELDOUT,
        pack=False,
    )
    statistics, _ = corpus_statistics(
        model,
        tokenizer,
        corpus.counts,
        corpus.train,
        corpus.heldout,
        start_token=0,
        tokens=50,
    )
    measured = {name for name in statistics["metric"] if not name.endswith("_stderr")}
    assert measured == set(MEANINGS)


class OtherVocabulary:
    """A tokenizer that reads every character as token 250."""

    def get_vocab(self):
        return {"x": 250}

    def __call__(self, texts, **_how):
        return {"input_ids": [[250] * len(text) for text in texts]}


def test_what_another_model_reads_keeps_the_ids_of_who_wrote_it(tmp_path, model, tokenizer):
    """The studied model splits by the text that it reads; the data set is as it was written."""
    export(tmp_path, model, tokenizer, reader=OtherVocabulary())
    for split, wanted in (("train", False), ("heldout", True)):
        documents = rows(tmp_path, "documents", split)
        held_out = [is_heldout(digest(row["text"].encode()), HELDOUT) for row in documents]
        assert documents and set(held_out) == {wanted}
        ids = [row["input_ids"] for row in documents + rows(tmp_path, "tokenized", split)]
        assert max(map(max, ids)) < 100  # the samples' range


def test_the_text_has_no_special_tokens(model, tokenizer):
    written = tokenizer.encode("who , me ?", add_special_tokens=False)
    sample = Sample(3, [written[0], 0, *written[1:], 1], True)
    (row,) = document_table([sample], model, tokenizer, start_token=0, seed=0).to_pylist()
    assert row["text"] == "who , me ?" and row["input_ids"] == [0, *sample.tokens]


def test_sae_lens_json_is_of_models_on_the_hub_alone(exported, tmp_path, model, tokenizer):
    settings = yaml.safe_load((exported / "faithful/sae_lens.json").read_text())
    assert settings["tokenizer_name"] == "someone/tiny" and settings["context_size"] == LENGTH
    local = FACTS | {"entry": {"source": "path", "path": "somewhere"}}
    export(tmp_path, model, tokenizer, facts=local)
    assert not (tmp_path / "faithful/sae_lens.json").exists()
