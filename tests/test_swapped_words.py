"""Swapped sentences differ from real ones in two places, and only reading tells them apart."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from faithful_sae.swapped_words import sentences_of, swapped_words
from faithful_sae.tasks import build_task

LETTERS = st.text("abcdeé", min_size=1, max_size=4)
TOKENS = st.one_of(
    st.builds(lambda word, mark: word + mark, LETTERS, st.sampled_from(["", "", ",", ";"])),
    st.builds(str.capitalize, LETTERS),
    st.sampled_from(["it's", "well-known", "4:00pm", "22", "$5m", "U.S.", "-", "a.m."]),
)
SENTENCES = st.lists(TOKENS, min_size=5, max_size=29).map(lambda t: f"The {' '.join(t)} end.")


def numbered(n: int) -> list[str]:
    """Different sentences; capitals and commas at many places."""
    rng = np.random.default_rng(0)
    words = [f"{a}{b}{c}" for a in "bdfg" for b in "aeiou" for c in "klmn"]
    made = set()
    while len(made) < n:
        drawn = [str(word) for word in rng.choice(words, rng.integers(6, 15))]
        drawn[0] = drawn[0].capitalize()
        drawn[3] = drawn[3].capitalize() if rng.random() < 0.3 else drawn[3] + ","
        made.add(" ".join(drawn) + ".")
    return sorted(made)


def shape(sentence: str) -> list[tuple[bool, bool, str]]:
    """Of each place: is there a capital, a digit, and which marks follow the word?"""
    return [
        (any(c.isupper() for c in token), any(c.isdigit() for c in token), token[len(word) :])
        for token, word in zip(sentence.split(" "), words(sentence), strict=True)
    ]


def words(sentence: str) -> list[str]:
    return [token.rstrip(",;.!?") for token in sentence.split(" ")]


@given(SENTENCES)
def test_a_swap_keeps_the_words_and_changes_exactly_two_places(sentence: str) -> None:
    for text, label in swapped_words([sentence]):
        before, after = words(sentence), words(text)
        differing = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        assert Counter(before) == Counter(after)
        assert len(differing) == (2 if label == "swapped" else 0)
        assert 0 not in differing
        assert all(before[i].islower() and before[i][0].isalpha() for i in differing)


@pytest.mark.parametrize(
    "sentence",
    [
        "The cat, which sat there, is Bob's well-known friend.",
        "At 4:00pm the U.S. team, in $5m cars, left its home.",
    ],
)
def test_capitals_digits_and_marks_keep_their_places(sentence: str) -> None:
    texts = {text for i in range(40) for text, _ in swapped_words([f"{sentence[:-1]}{'o' * i}."])}
    assert all(shape(text) == shape(sentence) for text in texts)
    assert len({tuple(words(text)[:4]) for text in texts}) > 1


def test_each_sentence_is_used_once_whatever_its_document_or_repeats() -> None:
    sentences = numbered(400)
    whole = dict(swapped_words([" ".join(sentences[:250]), "\n".join(sentences[200:])]))
    assert len(whole) == 400
    assert whole == dict(example for s in sentences for example in swapped_words([s]))
    real = {text for text, label in whole.items() if label == "real"}
    assert real < set(sentences) and not (whole.keys() - real) & set(sentences)
    # None is there both as it was and swapped.
    others = [s for s in sentences if s not in real]
    assert sorted(map(sorted, map(words, whole.keys() - real))) == sorted(
        map(sorted, map(words, others))
    )


def test_classes_are_balanced_in_all_and_in_the_examples_that_a_task_takes(tokenizer: Any) -> None:
    examples = list(swapped_words(numbered(2000)))
    taken = build_task("made", examples, tokenizer, start_token=0, context_length=8, n_examples=500)
    for labels in ([label for _, label in examples], taken["label"].to_pylist()):
        assert abs(labels.count("real") - len(labels) / 2) < 4 * np.sqrt(len(labels) / 4)


def test_the_two_words_are_anywhere() -> None:
    places: Counter[int] = Counter()
    for sentence in (f"The one two three four five six seven {'x' * (i + 1)}." for i in range(600)):
        for text, label in swapped_words([sentence]):
            if label == "swapped":
                pairs = zip(words(sentence), words(text), strict=True)
                places.update(i for i, (a, b) in enumerate(pairs) if a != b)
    swaps = sum(places.values()) / 2
    for place in range(1, 9):  # each of eight words is one of the two in a quarter of the swaps
        assert abs(places[place] - swaps / 4) < 4 * np.sqrt(swaps * 3 / 16)


def test_a_swap_into_another_sentence_of_the_text_is_left_out() -> None:
    for i in range(50):  # whichever of a pair is to be swapped
        first, second = f"The big dog{i} saw a cat.", f"The big cat saw a dog{i}."
        texts = [text for text, _ in swapped_words([f"{first} {second}"])]
        assert len(texts) == len(set(texts))
    sentence = next(s for s in numbered(50) if dict(swapped_words([s])).keys() != {s})
    (swapped,) = dict(swapped_words([sentence]))
    assert dict(swapped_words([sentence, swapped])).get(swapped) != "swapped"


def test_sentences_are_prose_of_six_to_thirty_words_and_stops_of_short_words_end_none() -> None:
    document = (
        "Too short to count. Mr. Smith of the U.S. said it was fine today. "
        'He said "yes" to all of them today. and this one begins with a small letter here.\n'
        "A heading without an end that is long enough\n"
        f"The {'very ' * 28}end. The {'very ' * 29}end. What does the last one say here?"
    )
    assert list(sentences_of(document)) == [
        "Mr. Smith of the U.S. said it was fine today.",
        f"The {'very ' * 28}end.",
        "What does the last one say here?",
    ]


def test_a_sentence_without_two_different_small_words_is_no_example() -> None:
    assert (
        list(swapped_words(["The the the the the the the the.", "A Bad Cat Did Eat My Hat."])) == []
    )
