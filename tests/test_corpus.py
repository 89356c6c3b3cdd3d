"""Documents become contexts: split by content, cut without mixing, to the exact budget."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.contexts import Document, Sample, digest, is_heldout
from faithful_sae.corpus import (
    Corpus,
    build_corpus,
    load_corpus,
    read_samples,
    sampled_documents,
    text_documents,
    write_corpus,
    write_samples,
    written_documents,
)
from faithful_sae.entries import documents_to_sample
from faithful_sae.state import State

START = 0
SETTINGS: dict[str, Any] = {
    "start_token": START,
    "context_length": 8,
    "train_tokens": 300,
    "heldout_tokens": 100,
    "heldout_fraction": 0.3,
    "pack": False,
}


def numbered(n: int, length: int = 20) -> list[Document]:
    """Documents that repeat one token of their own, so that mixing them shows."""
    return [
        Document(np.full(length, i + 1, np.int32), digest(str(i).encode()), ended=i % 2 == 0)
        for i in range(n)
    ]


def build(documents: list[Document], **changes: Any) -> Corpus:
    return build_corpus("mine", documents, **SETTINGS | changes)


def rows(table: Any) -> list[list[int]]:
    found: list[list[int]] = table["tokens"].to_pylist()
    return found


def own_tokens(table: Any) -> set[int]:
    return {t for row in rows(table) for t in row[1:]}


def word_tokenizer(words: list[str]) -> Any:
    """Splits at spaces; ids are places in `words`."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(WordLevel({w: i for i, w in enumerate(words)}, unk_token=words[0]))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, unk_token=words[0], clean_up_tokenization_spaces=True
    )


# Splitting


def test_no_document_is_in_both_splits() -> None:
    corpus = build(numbered(60))
    assert not own_tokens(corpus.train) & own_tokens(corpus.heldout)
    assert not set(corpus.train["document"].to_pylist()) & set(
        corpus.heldout["document"].to_pylist()
    )


def test_the_split_depends_on_content_alone_whatever_order_or_company() -> None:
    documents = numbered(60)
    whole = build(documents)
    backwards = build(documents[::-1])
    for split, other in ((whole.train, backwards.train), (whole.heldout, backwards.heldout)):
        assert rows(split) == rows(other)
    for document in documents:
        wrong = whole.train if is_heldout(document.digest, 0.3) else whole.heldout
        assert document.tokens[0] not in own_tokens(wrong)


def test_the_split_precedes_tokenising(tokenizer: Any) -> None:
    texts = ["a b", "b a", "a a a", "b"]
    words = word_tokenizer(["?", "a", "b"])
    by_byte, by_word = (list(text_documents(texts, t)) for t in (tokenizer, words))
    assert [d.digest for d in by_byte] == [d.digest for d in by_word]
    assert by_byte[0].tokens.tolist() != by_word[0].tokens.tolist()


# Budgets, duplicates, errors


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(("train", "heldout"), [(1, 1), (7, 8), (300, 100), (301, 103)])
def test_every_split_has_exactly_the_tokens_asked_for(pack: bool, train: int, heldout: int) -> None:
    corpus = build(numbered(60), train_tokens=train, heldout_tokens=heldout, pack=pack)
    for table, asked in ((corpus.train, train), (corpus.heldout, heldout)):
        assert sum(len(row) - 1 for row in rows(table)) == asked
        assert all(2 <= len(row) <= 8 for row in rows(table))


def test_a_small_budget_draws_on_many_documents() -> None:
    corpus = build(numbered(60, length=70), train_tokens=140)  # two documents' worth
    assert len(own_tokens(corpus.train)) > 5


def test_duplicates_are_dropped_before_the_split_and_counted() -> None:
    documents = numbered(60)
    corpus = build(documents + documents[:7] + documents[:2])
    assert rows(corpus.train) == rows(build(documents).train)
    assert corpus.counts == {
        "documents": 69,
        "duplicates": 9,
        "ended": 30,
        "tokens": 1200,
        "first_tokens": {i + 1: 1 for i in range(60)},
    }


def test_repeats_never_fill_a_budget() -> None:
    """Every corpus has the tokens asked for from different documents, or is refused."""
    few = numbered(8, length=60)  # 480 tokens
    corpus = build(few * 50, train_tokens=200, heldout_tokens=50)
    drawn = Counter(t for row in rows(corpus.train) for t in row[1:])
    assert sum(drawn.values()) == 200 and max(drawn.values()) <= 60
    with pytest.raises(ValueError, match="train tokens in . documents"):
        build(few * 50, train_tokens=481)


@pytest.mark.parametrize("pack", [False, True])
def test_first_tokens_are_those_of_all_different_documents_whatever_the_budget(pack: bool) -> None:
    documents = [
        Document(np.r_[[i % 3 + 100], np.full(19, 50)].astype(np.int32), digest(bytes([i])))
        for i in range(70)
    ]
    given_ = [*documents, Document(np.empty(0, np.int32), digest(b"empty")), *documents[:9]]
    counts = build(given_, train_tokens=10, heldout_tokens=10, pack=pack).counts
    # Later contexts of a document begin with 50, which is nobody's first token.
    assert counts["first_tokens"] == {100: 24, 101: 23, 102: 23}
    assert list(counts["first_tokens"]) == [100, 101, 102]  # so that the file is the same again
    backwards = build(given_[::-1], train_tokens=10, heldout_tokens=10, pack=pack).counts
    assert list(backwards["first_tokens"].items()) == list(counts["first_tokens"].items())


@pytest.mark.parametrize(
    "documents", [[], [Document(np.empty(0, np.int32), b"0" * 16)]], ids=["none", "empty"]
)
def test_an_empty_corpus_is_refused_by_name(documents: list[Document]) -> None:
    with pytest.raises(ValueError, match=r"^corpora\.mine: the corpus is empty; check its source"):
        build(documents)


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_too_few_tokens_are_refused_by_name_found_and_remedy(split: str) -> None:
    with pytest.raises(ValueError) as error:
        build(numbered(60), **{f"{split}_tokens": 99_999})
    message = str(error.value)
    assert message.startswith("corpora.mine: ")
    assert f"corpus_size.{split}_tokens asks for 99,999" in message and "lower it" in message
    found = sum(20 for d in numbered(60) if is_heldout(d.digest, 0.3) == (split == "heldout"))
    assert f"{found:,} {split} tokens" in message and "\n" not in message


# Contexts


def test_no_context_mixes_documents_unless_packed() -> None:
    corpus = build(numbered(60))
    for table in (corpus.train, corpus.heldout):
        assert all(row[0] == START and len(set(row[1:])) == 1 for row in rows(table))


def test_contexts_say_where_in_which_document_they_begin_and_whether_it_ended_there() -> None:
    documents = [
        Document(np.arange(1, 21, dtype=np.int32) + 20 * i, digest(bytes([i])), ended=i % 2 == 0)
        for i in range(60)
    ]
    corpus = build(documents, train_tokens=300, heldout_tokens=100)
    for table in (corpus.train, corpus.heldout):
        *whole, last = table.to_pylist()
        for c in [*whole, last]:
            tokens = documents[c["document"]].tokens
            assert c["tokens"][1:] == tokens[c["start"] :][: len(c["tokens"]) - 1].tolist()
        for c in whole:
            reaches_end = c["start"] + len(c["tokens"]) - 1 == 20
            assert c["ended"] == (reaches_end and c["document"] % 2 == 0)


def test_a_context_that_the_budget_cuts_has_not_ended() -> None:
    documents = [
        Document(np.arange(1, 6, dtype=np.int32), digest(bytes([i])), ended=True) for i in range(60)
    ]
    corpus = build(documents, train_tokens=12, heldout_tokens=10)
    assert corpus.train["ended"].to_pylist() == [True, True, False]
    assert corpus.heldout["ended"].to_pylist() == [True, True]


def test_packed_contexts_are_of_their_split_and_say_whose_token_comes_first() -> None:
    documents = numbered(60, length=5)
    corpus = build(documents, pack=True, train_tokens=200, heldout_tokens=70)
    for heldout, table in ((False, corpus.train), (True, corpus.heldout)):
        for c in table.to_pylist():
            start, first, *others = c["tokens"]
            assert (start, first) == (START, c["document"] + 1)  # never two start tokens
            changes = [(a, b) for a, b in pairwise([first, *others]) if a != b]
            assert all(START in pair for pair in changes)
        for token in own_tokens(table) - {START}:
            assert is_heldout(documents[token - 1].digest, 0.3) == heldout
        # A context holds more than a document: most of them end one and begin another.
        assert sum(START in row[1:] for row in rows(table)) > len(table) / 2
    held = Counter(t for row in rows(corpus.train) for t in row[1:] if t != START)
    assert max(held.values()) <= 5  # no token of a document is there twice


def test_packed_contexts_never_end() -> None:
    corpus = build(numbered(60), pack=True)
    assert not any(corpus.train["ended"].to_pylist() + corpus.heldout["ended"].to_pylist())


def test_packing_does_not_depend_on_the_order_of_documents() -> None:
    documents = numbered(60)
    one, other = build(documents, pack=True), build(documents[::-1], pack=True)
    assert rows(one.train) == rows(other.train) and rows(one.heldout) == rows(other.heldout)


# Documents


def test_text_documents_come_in_order_without_special_tokens(tokenizer: Any) -> None:
    texts = [str(i) * (i % 5) for i in range(600)]  # several rounds of the tokenizer
    documents = list(text_documents(iter(texts), tokenizer))
    assert [tokenizer.decode(d.tokens) for d in documents] == texts
    assert all(d.digest == digest(t.encode()) for d, t in zip(documents, texts, strict=True))


def test_a_context_of_text_has_one_start_token_unless_the_text_has_more(tokenizer: Any) -> None:
    texts = [f"number {i}" for i in range(100)]
    corpus = build(list(text_documents(texts, tokenizer)))
    assert all(row.count(START) == 1 for row in rows(corpus.train))
    assert START in next(text_documents(["a<start>b"], tokenizer)).tokens


SAMPLES = [Sample(0, [2, 1, 3], True), Sample(1, [1, 2], False), Sample(2, [2, 1, 3], False)]


def test_sampled_documents_keep_ids_and_ends() -> None:
    documents = list(sampled_documents(SAMPLES))
    assert [d.tokens.tolist() for d in documents] == [s.tokens for s in SAMPLES]
    assert [d.ended for d in documents] == [True, False, False]
    assert documents[0].digest == documents[2].digest != documents[1].digest


def test_a_model_with_the_writers_vocabulary_reads_its_ids() -> None:
    reader, writer = word_tokenizer(["?", "a", "b", "c"]), word_tokenizer(["?", "a", "b", "c"])
    documents = list(written_documents(SAMPLES, reader, writer))
    assert [d.tokens.tolist() for d in documents] == [s.tokens for s in SAMPLES]
    assert documents[0].ended


def test_a_model_with_another_vocabulary_reads_the_text() -> None:
    writer, reader = word_tokenizer(["?", "a", "b", "c"]), word_tokenizer(["?", "c", "b", "a"])
    documents = list(written_documents(SAMPLES, reader, writer))
    assert [d.tokens.tolist() for d in documents] == [[2, 3, 1], [3, 2], [2, 3, 1]]
    assert documents[0].digest == digest(b"b a c")


def test_written_text_is_carried_over_as_it_is_without_special_tokens(tokenizer: Any) -> None:
    writer = word_tokenizer(["?", "don", "'t", "."])
    (document,) = written_documents([Sample(0, [1, 2, 3, 0], True)], tokenizer, writer)
    assert tokenizer.decode(document.tokens) == "don 't ."


@given(
    st.one_of(st.none(), st.integers(1, 10_000)),
    st.integers(1, 300),
    st.integers(1, 100_000),
    st.integers(1, 100_000),
    st.floats(0.01, 0.99),
    st.integers(2, 100),
)
def test_documents_to_sample_are_the_fewest_whole_blocks_that_suffice(
    documents: int | None, block: int, train: int, heldout: int, fraction: float, length: int
) -> None:
    n = documents_to_sample(
        documents,
        block,
        train_tokens=train,
        heldout_tokens=heldout,
        heldout_fraction=fraction,
        context_length=length,
    )
    assert n % block == 0
    if documents is not None:
        assert documents <= n < documents + block
    else:
        tokens = n * (length - 1)
        assert tokens * (1 - fraction) >= train and tokens * fraction >= heldout * (1 - 1e-9)


# Files


def test_samples_come_back_from_one_shard_after_the_other(tmp_path: Path) -> None:
    paths = [tmp_path / "b.parquet", tmp_path / "a.parquet"]
    for path, numbers in zip(paths, (range(2), range(2, len(SAMPLES))), strict=True):
        state = State(tmp_path / "state", {}, [])
        write_samples(lambda r: [SAMPLES[i] for i in r], numbers, 1, path, state)
        state.remove()
    assert list(read_samples(paths)) == SAMPLES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_sampling_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing(documents: range) -> Any:
        yield SAMPLES[0]
        raise RuntimeError("the model failed")

    state = State(tmp_path / "state", {}, [])
    with pytest.raises(RuntimeError):
        write_samples(failing, range(2), 1, tmp_path / "a.parquet", state)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]
    assert [path.name for path in state.pieces()] == ["0.parquet"]


def test_a_corpus_comes_back_from_its_files(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    corpus = build(numbered(60))
    paths = [tmp_path / name for name in ("train.parquet", "heldout.parquet", "counts.json")]
    write_corpus(corpus, *paths)
    assert pq.read_table(paths[0]).equals(corpus.train)
    assert pq.read_table(paths[1]).equals(corpus.heldout)
    loaded = load_corpus(*paths)
    assert loaded.train.equals(corpus.train) and loaded.heldout.equals(corpus.heldout)
    assert loaded.counts == corpus.counts
