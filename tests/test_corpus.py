"""Documents become contexts: split by content, cut without mixing, to the exact budget."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.contexts import (
    Document,
    cut_contexts,
    digest,
    is_heldout,
    uniform_tokens,
)
from faithful_sae.corpus import (
    Corpus,
    build_corpus,
    documents_to_sample,
    read_samples,
    sampled_documents,
    text_documents,
    write_corpus,
    write_samples,
    written_documents,
)
from faithful_sae.sampling import Sample
from faithful_sae.tasks import build_task

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


# Cutting


@given(
    st.lists(st.lists(st.integers(1, 9), max_size=40), max_size=5),
    st.integers(2, 12),
    st.booleans(),
)
def test_contexts_put_together_give_back_the_documents(
    documents: list[list[int]], context_length: int, ended: bool
) -> None:
    given_ = [
        (n, Document(np.array(tokens, np.int32), bytes([n]), ended))
        for n, tokens in enumerate(documents)
    ]
    contexts = list(cut_contexts(given_, START, context_length))
    for number, tokens in enumerate(documents):
        mine = [c for c in contexts if c.document == number]
        assert [t for c in mine for t in c.tokens[1:].tolist()] == tokens
        assert [c.start for c in mine] == list(range(0, len(tokens), context_length - 1))
        assert [c.ended for c in mine] == [False] * (len(mine) - 1) + [ended] * bool(mine)
    assert all(c.tokens[0] == START and 2 <= len(c.tokens) <= context_length for c in contexts)
    assert len({c.key for c in contexts}) == len(contexts)


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


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5, 1.0])
def test_the_heldout_share_is_the_fraction_asked_for(fraction: float) -> None:
    n = 4000
    heldout = sum(is_heldout(digest(str(i).encode()), fraction) for i in range(n))
    assert abs(heldout - n * fraction) <= 4 * np.sqrt(n * fraction * (1 - fraction))


def test_a_larger_fraction_only_adds_documents_to_the_heldout_ones() -> None:
    digests = [digest(str(i).encode()) for i in range(500)]
    small, large = ({d for d in digests if is_heldout(d, f)} for f in (0.2, 0.4))
    assert small < large


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
    first_tokens = corpus.counts.pop("first_tokens")
    assert corpus.counts == {"documents": 69, "duplicates": 9, "ended": 30, "tokens": 1200}
    assert first_tokens == Counter(int(document.tokens[0]) for document in documents)


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


def test_packing_fills_contexts_and_separates_documents_by_a_start_token() -> None:
    documents = numbered(60, length=5)
    settings = {"train_tokens": 210, "heldout_tokens": 70}  # whole contexts of 7
    corpus = build(documents, pack=True, **settings)
    lengths = {d.tokens[0]: len(d.tokens) for d in documents}
    for table in (corpus.train, corpus.heldout):
        partial = [row for row in rows(table) if len(row) != 8]
        assert len(partial) <= 2  # the stream's last context, and the one that the budget cuts
        for row in rows(table):
            assert row[0] == START
            changes = [(a, b) for a, b in zip(row[1:], row[2:], strict=False) if a != b]
            assert all(START in pair for pair in changes)
        counted = Counter(t for row in rows(table) for t in row[1:] if t != START)
        assert all(counted[t] <= lengths[t] for t in counted)


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


# Tasks and random tokens


def task(examples: list[tuple[str, str]], tokenizer: Any, **changes: Any) -> Any:
    asked: dict[str, Any] = {
        "start_token": START,
        "context_length": 8,
        "n_examples": len(set(examples)),
        "heldout_fraction": 0.3,
    }
    return build_task("mine", examples, tokenizer, **asked | changes)


EXAMPLES = [(f"text {i}", "odd" if i % 2 else "even") for i in range(300)]


def test_a_task_keeps_each_example_once_with_its_own_label(tokenizer: Any) -> None:
    table = task(EXAMPLES + EXAMPLES[:50], tokenizer, context_length=20)
    found = {tokenizer.decode(row["tokens"][1:]): row["label"] for row in table.to_pylist()}
    assert found == dict(EXAMPLES) and len(table) == len(EXAMPLES)
    assert all(row[0] == START for row in rows(table))


def test_task_contexts_are_cut_at_the_context_length(tokenizer: Any) -> None:
    table = task(EXAMPLES, tokenizer, context_length=4)
    assert {tuple(row) for row in rows(table)} == {(START, *tokenizer.encode("tex"))}


def test_a_tasks_split_is_a_share_of_it_even_when_only_some_examples_are_taken(
    tokenizer: Any,
) -> None:
    for n in (300, 100):  # the first 100 in order of a hash, which must not decide the split
        split = Counter(task(EXAMPLES, tokenizer, n_examples=n)["split"].to_pylist())
        assert set(split) == {"train", "heldout"}
        assert abs(split["heldout"] - 0.3 * n) <= 4 * np.sqrt(n * 0.3 * 0.7)


def test_a_task_depends_on_its_examples_alone_not_on_their_order(tokenizer: Any) -> None:
    assert task(EXAMPLES, tokenizer).equals(task(EXAMPLES[::-1], tokenizer))


def test_duplicates_do_not_count_as_examples_of_a_task(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"^tasks\.mine: 3 different .* 4 are asked .*examples"):
        task(EXAMPLES[:3] * 2, tokenizer, n_examples=4)


def test_uniform_tokens_cover_the_vocabulary_evenly_in_exact_number() -> None:
    table = uniform_tokens(20, start_token=3, context_length=8, tokens=20_003)
    assert all(row[0] == 3 for row in rows(table))
    assert [len(row) for row in rows(table)][:-1] == [8] * (len(table) - 1)
    counts = Counter(t for row in rows(table) for t in row[1:])
    assert sum(counts.values()) == 20_003 and set(counts) == set(range(20))
    spread = 4 * np.sqrt(20_003 * 0.05 * 0.95)
    assert all(abs(n - 20_003 / 20) < spread for n in counts.values())


# Files


def test_samples_come_back_from_shards_in_number_order(tmp_path: Path) -> None:
    paths = [tmp_path / "b.parquet", tmp_path / "a.parquet"]
    write_samples(SAMPLES[2:], paths[0])
    write_samples(SAMPLES[:2], paths[1])
    assert read_samples(paths) == SAMPLES
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "b.parquet"]


def test_a_sampling_that_fails_leaves_no_file(tmp_path: Path) -> None:
    def failing() -> Any:
        yield SAMPLES[0]
        raise RuntimeError("the model failed")

    with pytest.raises(RuntimeError):
        write_samples(failing(), tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())


def test_a_corpus_comes_back_from_its_files(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    corpus = build(numbered(60))
    paths = [tmp_path / name for name in ("train.parquet", "heldout.parquet", "counts.json")]
    write_corpus(corpus, *paths)
    assert pq.read_table(paths[0]).equals(corpus.train)
    assert pq.read_table(paths[1]).equals(corpus.heldout)
    assert json.loads(paths[2].read_text()) == corpus.counts
