"""Labelled texts become contexts: each once, with its own label."""

from itertools import permutations
from typing import Any

import pytest

from faithful_sae.tasks import build_task

START = 0
EXAMPLES = [(f"text {i}", "odd" if i % 2 else "even") for i in range(300)]


def task(examples: list[tuple[str, str]], tokenizer: Any, **changes: Any) -> Any:
    asked: dict[str, Any] = {
        "start_token": START,
        "context_length": 8,
        "n_examples": len(set(examples)),
    }
    return build_task("mine", examples, tokenizer, **asked | changes)


def test_a_task_keeps_each_example_once_with_its_own_label(tokenizer: Any) -> None:
    table = task(EXAMPLES + EXAMPLES[:50], tokenizer, context_length=20)
    found = {tokenizer.decode(row["tokens"][1:]): row["label"] for row in table.to_pylist()}
    assert found == dict(EXAMPLES) and len(table) == len(EXAMPLES)
    assert all(row[0] == START for row in table["tokens"].to_pylist())


def test_task_contexts_are_cut_at_the_context_length(tokenizer: Any) -> None:
    table = task(EXAMPLES, tokenizer, context_length=4)
    assert {tuple(row) for row in table["tokens"].to_pylist()} == {
        (START, *tokenizer.encode("tex"))
    }


def test_a_task_depends_on_its_examples_alone_not_on_their_order(tokenizer: Any) -> None:
    assert task(EXAMPLES, tokenizer).equals(task(EXAMPLES[::-1], tokenizer))


def test_duplicates_do_not_count_as_examples_of_a_task(tokenizer: Any) -> None:
    with pytest.raises(ValueError, match=r"^tasks\.mine: 3 different .* 4 are asked .*examples"):
        task(EXAMPLES[:3] * 2, tokenizer, n_examples=4)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_one_text_under_two_labels_is_refused_by_task_text_and_labels(
    tokenizer: Any, order: tuple[int, ...]
) -> None:
    clash = [("so\nso", "good"), ("so\nso", "bad"), ("so\nso", "good")]
    with pytest.raises(ValueError) as error:
        task(EXAMPLES + [clash[i] for i in order], tokenizer)
    message = str(error.value)
    assert message.startswith("tasks.mine: ") and "correct" in message
    assert repr("so\nso") in message and "'good'" in message and "'bad'" in message
    assert "\n" not in message


def test_a_clash_of_labels_is_refused_even_if_few_examples_are_taken(tokenizer: Any) -> None:
    for text, _ in EXAMPLES[::50]:  # whatever its place in the order of the hash
        with pytest.raises(ValueError, match=rf"^tasks\.mine: '{text}' "):
            task([*EXAMPLES, (text, "none")], tokenizer, n_examples=5)


def test_a_long_text_with_two_labels_is_named_by_its_beginning(tokenizer: Any) -> None:
    with pytest.raises(ValueError) as error:
        task([("begin " + "x" * 10_000, label) for label in "ab"], tokenizer)
    assert "'begin xxx" in str(error.value) and len(str(error.value)) < 300


def test_texts_that_differ_after_the_cut_stay_two_examples_with_two_labels(tokenizer: Any) -> None:
    table = task([("same beginning, a", "a"), ("same beginning, b", "b")], tokenizer)
    first, second = table["tokens"].to_pylist()
    assert first == second and sorted(table["label"].to_pylist()) == ["a", "b"]
