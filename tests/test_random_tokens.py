"""Random inputs keep of the text what they should, and nothing else."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from faithful_sae.contexts import CONTEXTS, Context, context_table
from faithful_sae.random_inputs import RANDOM_INPUTS, SHUFFLED, UNIFORM, UNIGRAM
from faithful_sae.random_tokens import random_tokens, unigram_distribution

START, VOCABULARY = 3, 20


def text(*contexts: list[int]) -> pa.Table:
    rows = [np.array([START, *tokens], np.int32) for tokens in contexts]
    return context_table([Context(b"", n, 0, row, False) for n, row in enumerate(rows)])


# Two corpora: one of a single token, one of contexts with nothing in common.
TEXTS = [text([7] * 5, [7] * 5), text([0, 1, 2, 4, 5], [6, 8, 8, 8, 9])]


def made(random_input: str, heldout: list[pa.Table], tokens: int) -> list[list[int]]:
    """The contexts of a random input without their start tokens."""
    table = random_tokens(
        random_input,
        heldout,
        vocab_size=VOCABULARY,
        start_token=START,
        context_length=8,
        tokens=tokens,
    )
    assert table.schema == CONTEXTS
    assert table["document"].to_pylist() == list(range(len(table)))
    rows = table["tokens"].to_pylist()
    assert all(row[0] == START and 2 <= len(row) <= 8 for row in rows)
    return [row[1:] for row in rows]


def flat(contexts: list[list[int]]) -> list[int]:
    return [token for context in contexts for token in context]


def assert_drawn_from(tokens: list[int], probability: np.ndarray) -> None:
    """Counts within four standard deviations of what the distribution leads one to expect."""
    counts = np.bincount(tokens, minlength=len(probability))
    spread = np.sqrt(len(tokens) * probability * (1 - probability))
    assert (np.abs(counts - len(tokens) * probability) <= 4 * spread).all()


@pytest.mark.parametrize("random_input", RANDOM_INPUTS)
@pytest.mark.parametrize("tokens", [1, 7, 41])
def test_each_has_the_tokens_asked_for_and_is_the_same_again(random_input, tokens):
    contexts = made(random_input, TEXTS, tokens)
    assert len(flat(contexts)) == tokens
    assert made(random_input, TEXTS, tokens) == contexts


def test_another_name_is_an_error():
    with pytest.raises(ValueError, match="'reversed-tokens' is no random input"):
        made("reversed-tokens", TEXTS, 5)


def test_uniform_ids_cover_the_vocabulary_evenly_whatever_the_text():
    contexts = made(UNIFORM, [], 20_003)
    assert {len(context) for context in contexts[:-1]} == {7}
    assert contexts == made(UNIFORM, TEXTS, 20_003)
    assert_drawn_from(flat(contexts), np.full(VOCABULARY, 1 / VOCABULARY))


def test_the_unigram_distribution_by_hand_weighs_corpora_equally_and_has_no_start_token():
    long = text(*[[7] * 5] * 100)
    packed = text([0, START, 1], [0, START, 4])
    probability = unigram_distribution([long, packed], VOCABULARY, START)
    expected = {7: 1 / 2, 0: 1 / 4, 1: 1 / 8, 4: 1 / 8}
    assert probability == pytest.approx([expected.get(i, 0) for i in range(VOCABULARY)])


def test_unigram_ids_of_a_text_of_one_token_are_that_token_and_else_follow_the_distribution():
    assert set(flat(made(UNIGRAM, TEXTS[:1], 30))) == {7}
    drawn = flat(made(UNIGRAM, TEXTS, 20_003))
    assert_drawn_from(drawn, unigram_distribution(TEXTS, VOCABULARY, START))


def test_unigram_ids_do_not_remember_the_id_before():
    # In this text 0 always follows 1; drawn one by one, it does half of the time.
    drawn = flat(made(UNIGRAM, [text([0, 1] * 3)], 10_000))
    after_one = [b for a, b in zip(drawn, drawn[1:], strict=False) if a == 1]
    assert abs(np.mean(after_one) - 0.5) < 4 * 0.5 / np.sqrt(len(after_one))


def test_shuffling_keeps_the_tokens_of_every_context_and_moves_them():
    corpus = text(*(list(range(4, 4 + n)) for n in (7, 5, 6)))
    shuffled = made(SHUFFLED, [corpus], 18)
    kept = [row[1:] for row in corpus["tokens"].to_pylist()]
    assert [sorted(context) for context in shuffled] == kept
    assert shuffled != kept


def test_shuffled_corpora_have_equal_shares_and_short_ones_start_over_permuted_anew():
    short = [4, 5, 6, 7, 8, 9]
    contexts = made(SHUFFLED, [text(short), text([10] * 7, [11] * 7, [12] * 7, [13] * 7)], 41)
    counts = Counter(token < 10 for token in flat(contexts))
    assert (counts[True], counts[False]) == (20, 21)
    first, second, third, cut = contexts[:4]
    assert sorted(first) == sorted(second) == sorted(third) == short
    assert first != second and len(cut) == 2 and set(cut) < set(short)
    assert [len(context) for context in contexts[4:]] == [7, 7, 7]
    assert {token for context in contexts[4:] for token in context} == {10, 11, 12}
