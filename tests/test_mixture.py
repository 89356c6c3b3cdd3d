"""A mixture holds equal shares of its corpora, to the token, and nothing crosses its splits."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from faithful_sae.contexts import Document, digest
from faithful_sae.corpus import Corpus, build_corpus
from faithful_sae.mixture import mix_corpora

BUDGET = {"train_tokens": 300, "heldout_tokens": 100}


def corpus(name: int, documents: int = 60, length: int = 20) -> Corpus:
    """A corpus whose tokens say of which corpus (thousands) and document they are."""
    return build_corpus(
        str(name),
        [
            Document(np.full(length, 1000 * name + i, np.int32), digest(b"%d %d" % (name, i)))
            for i in range(documents)
        ],
        start_token=0,
        context_length=8,
        heldout_fraction=0.3,
        pack=False,
        **BUDGET,
    )


CORPORA = [corpus(1), corpus(2, documents=200, length=9), corpus(3, documents=90, length=7)]


def splits(mixed: Corpus) -> list[list[dict[str, Any]]]:
    return [mixed.train.to_pylist(), mixed.heldout.to_pylist()]


def tokens(rows: list[dict[str, Any]]) -> list[int]:
    return [token for row in rows for token in row["tokens"][1:]]


@pytest.mark.parametrize(("train", "heldout"), [(300, 100), (299, 98), (7, 2)])
@pytest.mark.parametrize("n", [2, 3])
def test_shares_are_equal_to_a_token_and_add_up_exactly(n: int, train: int, heldout: int) -> None:
    mixed = mix_corpora(CORPORA[:n], train_tokens=train, heldout_tokens=heldout)
    for rows, asked in zip(splits(mixed), (train, heldout), strict=True):
        shares = Counter(token // 1000 for token in tokens(rows))
        assert sum(shares.values()) == asked
        assert max(shares.values()) - min(shares[name] for name in range(1, n + 1)) <= 1


def test_every_context_is_one_of_its_corpus_in_the_same_split() -> None:
    mixed = mix_corpora(CORPORA, **BUDGET)
    for rows, name in zip(splits(mixed), ("train", "heldout"), strict=True):
        found = [set(map(tuple, getattr(c, name)["tokens"].to_pylist())) for c in CORPORA]
        cut = 0
        for row in rows:
            of = found[row["tokens"][1] // 1000 - 1]
            whole = tuple(row["tokens"]) in of
            assert whole or any(c[: len(row["tokens"])] == tuple(row["tokens"]) for c in of)
            cut += not whole
        assert cut <= len(CORPORA)  # the last context of each
    train, heldout = (set(tokens(rows)) for rows in splits(mixed))
    assert not train & heldout


def test_a_number_means_one_document_of_one_corpus() -> None:
    mixed = mix_corpora(CORPORA, **BUDGET)
    pairs = {(row["document"], row["tokens"][1]) for rows in splits(mixed) for row in rows}
    assert len(pairs) == len({document for document, _ in pairs}) == len({t for _, t in pairs})


def test_corpora_alternate_instead_of_following_one_another() -> None:
    mixed = mix_corpora(CORPORA, **BUDGET)
    for rows in splits(mixed):
        first = [row["tokens"][1] // 1000 for row in rows[: len(rows) // 3]]
        assert set(first) == {1, 2, 3}


def test_the_order_of_the_corpora_does_not_matter() -> None:
    tokens = {"train_tokens": 300, "heldout_tokens": 99}  # equal shares have no odd token
    one, other = (mix_corpora(c, **tokens) for c in (CORPORA, CORPORA[::-1]))
    for name in ("tokens", "start", "ended"):
        assert one.train[name].equals(other.train[name])
        assert one.heldout[name].equals(other.heldout[name])


def test_counts_are_added_up() -> None:
    counts = mix_corpora(CORPORA, **BUDGET).counts
    assert {k: v for k, v in counts.items() if k != "first_tokens"} == {
        "documents": 350,
        "duplicates": 0,
        "ended": 0,
        "tokens": 60 * 20 + 200 * 9 + 90 * 7,
    }
    assert sum(counts["first_tokens"].values()) == 350
    twice = mix_corpora([CORPORA[0], CORPORA[0]], **BUDGET).counts
    assert twice["first_tokens"] == {1000 + i: 2 for i in range(60)}
