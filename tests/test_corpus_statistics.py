"""A corpus's statistics against counting by hand, slow references, and the model's own samples."""

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
import torch

from faithful_sae.contexts import Context, context_table
from faithful_sae.corpus_statistics import (
    SETTLED,
    corpus_statistics,
    distinct_4grams,
    first_tokens,
    retokenization_mismatch,
    surprise,
    token_statistics,
)
from faithful_sae.sampling import sample_documents

# As they come back from the file: JSON has no integer keys.
COUNTS: dict[str, Any] = {
    "documents": 10,
    "duplicates": 2,
    "ended": 6,
    "tokens": 50,
    "first_tokens": {"5": 6, "8": 2},
}


def table(*contexts: list[int], document: int = 0, starts: list[int] | None = None) -> pa.Table:
    return context_table(
        [
            Context(b"", document + i, start, np.array(c, np.int32), False)
            for i, (c, start) in enumerate(
                zip(contexts, starts or [0] * len(contexts), strict=True)
            )
        ]
    )


@pytest.fixture(scope="module")
def own_samples(llama: Any) -> list[np.ndarray]:
    """Documents that the model wrote at temperature 1, some of which it ended."""
    samples = sample_documents(
        llama,
        range(0, 512),
        start_token=0,
        end_tokens=[1, 7],
        context_length=16,
        temperature=1.0,
        top_p=1.0,
        repetition_penalty=1.0,
        seed=0,
        block=128,
    )
    return [np.array([0, *s.tokens], np.int32) for s in samples]


# Surprise


def test_a_models_own_samples_have_no_surprise_gap(
    llama: Any, own_samples: list[np.ndarray]
) -> None:
    found = surprise(llama, own_samples)
    assert abs(found["surprise_gap"]) < 4 * found["surprise_gap_stderr"]
    assert found["surprise_gap_stderr"] < 0.1  # small enough for the test to mean something
    assert found["entropy"] < 0.9 * np.log(61)  # the model is far from uniform


@pytest.mark.parametrize("kind", ["uniform", "shuffled"])
def test_text_that_the_model_would_not_write_has_a_positive_surprise_gap(
    llama: Any, own_samples: list[np.ndarray], kind: str
) -> None:
    generator = np.random.default_rng(0)
    others = [
        np.r_[0, generator.integers(0, 61, len(c) - 1)]
        if kind == "uniform"
        else np.r_[0, generator.permutation(c[1:])]
        for c in own_samples
    ]
    found = surprise(llama, others)
    assert found["surprise_gap"] > 4 * found["surprise_gap_stderr"]


def test_surprise_equals_a_slow_loop_over_tokens(
    llama: Any, random_contexts: list[np.ndarray]
) -> None:
    nll, entropy, sizes = [], [], []
    for context in random_contexts:
        logits = llama(input_ids=torch.from_numpy(context).long()[None]).logits[0].double()
        log_p = logits.log_softmax(-1)
        n = len(context) - 1
        nll.append(-sum(float(log_p[i, context[i + 1]]) for i in range(n)))
        entropy.append(-sum(float((log_p[i].exp() * log_p[i]).sum()) for i in range(n)))
        sizes.append(n)
    total = sum(sizes)
    found = surprise(llama, random_contexts)
    assert found["likelihood_tokens"] == total
    assert found["nll"] == pytest.approx(sum(nll) / total, rel=1e-5)
    assert found["entropy"] == pytest.approx(sum(entropy) / total, rel=1e-5)
    assert found["surprise_gap"] == pytest.approx((sum(nll) - sum(entropy)) / total, rel=1e-5)


def test_the_standard_error_of_equally_long_contexts_is_that_of_their_means(
    llama: Any, random_contexts: list[np.ndarray]
) -> None:
    contexts = [np.resize(c, 6) for c in random_contexts]
    alone = [surprise(llama, [c])["nll"] for c in contexts]
    found = surprise(llama, contexts)
    expected = np.std(alone, ddof=1) / np.sqrt(len(alone))
    assert found["nll_stderr"] == pytest.approx(expected, rel=1e-4)
    assert np.isnan(surprise(llama, contexts[:1])["nll_stderr"])


# First tokens


def test_first_tokens_of_two_by_hand(fixed_logits: Any, tokenizer: Any) -> None:
    model = fixed_logits([0.75, 0.25])
    rows, found = first_tokens(model, tokenizer, 0, {0: 7, 1: 7})
    assert found["first_tokens"] == 14 and found["first_token_coverage"] == 1
    ln = np.log
    half = (0.75 * ln(0.75 / 0.625) + 0.25 * ln(0.25 / 0.375)) / 2
    other = (0.5 * ln(0.5 / 0.625) + 0.5 * ln(0.5 / 0.375)) / 2
    assert found["first_token_js"] == pytest.approx(half + other)
    kl_corpus_model = 0.5 * ln(0.5 / 0.75) + 0.5 * ln(0.5 / 0.25)
    assert found["first_token_kl_corpus_model"] == pytest.approx(kl_corpus_model)
    kl_model_corpus = 0.75 * ln(0.75 / 0.5) + 0.25 * ln(0.25 / 0.5)
    assert found["first_token_kl_model_corpus"] == pytest.approx(kl_model_corpus)
    assert found["first_token_kl_model_corpus_paper"] == pytest.approx(kl_model_corpus)
    assert rows["token"].to_list() == [0, 1]
    assert rows["text"].to_list() == [tokenizer.decode([0]), tokenizer.decode([1])]
    assert rows["model_probability"].to_list() == pytest.approx([0.75, 0.25])
    assert rows["corpus_frequency"].to_list() == [0.5, 0.5]


def test_first_tokens_like_the_models_have_no_divergence(fixed_logits: Any, tokenizer: Any) -> None:
    _, found = first_tokens(fixed_logits([0.75, 0.25]), tokenizer, 0, {1: 1, 0: 3})
    for name in ("js", "kl_corpus_model", "kl_model_corpus", "kl_model_corpus_paper"):
        assert found[f"first_token_{name}"] == pytest.approx(0, abs=1e-12)


def test_first_tokens_impossible_for_the_model_diverge_by_ln_2(
    fixed_logits: Any, tokenizer: Any
) -> None:
    _, found = first_tokens(fixed_logits([1.0, 0.0]), tokenizer, 0, {1: 5})
    assert found["first_token_js"] == pytest.approx(np.log(2))
    assert found["first_token_kl_corpus_model"] == np.inf


def test_a_corpus_that_lacks_a_token_of_the_model_is_infinitely_far_except_by_the_papers_floor(
    fixed_logits: Any, tokenizer: Any
) -> None:
    _, found = first_tokens(fixed_logits([0.5, 0.3, 0.2]), tokenizer, 0, {0: 4})
    assert found["first_token_kl_model_corpus"] == np.inf
    floored = 0.5 * np.log(0.5) + 0.3 * np.log(0.3 / 1e-10) + 0.2 * np.log(0.2 / 1e-10)
    assert found["first_token_kl_model_corpus_paper"] == pytest.approx(floored)
    assert found["first_token_kl_corpus_model"] == pytest.approx(np.log(2))
    assert 0 < found["first_token_js"] < np.log(2)
    assert found["first_token_coverage"] == pytest.approx(1 / 3)


def test_a_token_that_the_model_never_writes_need_not_be_in_the_corpus(
    fixed_logits: Any, tokenizer: Any
) -> None:
    _, found = first_tokens(fixed_logits([0.5, 0.5, 0.0]), tokenizer, 0, {0: 1, 1: 1})
    assert found["first_token_kl_model_corpus"] == pytest.approx(0, abs=1e-12)
    assert found["first_token_kl_model_corpus_paper"] == pytest.approx(0, abs=1e-12)


def test_more_documents_in_the_same_shares_change_nothing_but_their_number(
    llama: Any, tokenizer: Any
) -> None:
    few, found = first_tokens(llama, tokenizer, 0, {5: 1, 8: 3})
    many, again = first_tokens(llama, tokenizer, 0, {8: 300, 5: 100})
    assert few.equals(many)
    assert (found.pop("first_tokens"), again.pop("first_tokens")) == (4, 400)
    for name in ("first_token_js_expected", "first_token_kl_corpus_model_expected"):
        # What chance gives shrinks as documents are added.
        assert again.pop(name) < found.pop(name) / 5
    assert found == again


def test_a_models_own_first_tokens_diverge_as_much_as_chance_says(
    llama: Any, tokenizer: Any
) -> None:
    start = torch.tensor([[0]])
    p = llama(input_ids=start).logits[0, -1].double().softmax(-1).numpy()
    drawn = np.random.default_rng(1).multinomial(500, p)
    counts = {int(token): int(drawn[token]) for token in np.flatnonzero(drawn)}
    _, found = first_tokens(llama, tokenizer, 0, counts)
    for name in ("first_token_js", "first_token_kl_corpus_model"):
        assert abs(found[name] / found[f"{name}_expected"] - 1) < 0.15


def test_the_settled_gap_counts_late_positions_alone(llama: Any) -> None:
    rows = np.random.default_rng(0).integers(2, 60, (3, 50)).astype(np.int32)
    found = surprise(llama, list(rows))
    logits = llama(input_ids=torch.from_numpy(rows.astype(np.int64))).logits[:, :-1].double()
    log_p = logits.log_softmax(-1)
    nll = -log_p.gather(-1, torch.from_numpy(rows[:, 1:, None].astype(np.int64))).squeeze(-1)
    gap = nll + (log_p.exp() * log_p).sum(-1)  # column t is of the token at position t + 1
    assert found["surprise_gap_settled"] == pytest.approx(float(gap[:, SETTLED - 1 :].mean()), 1e-4)
    assert found["surprise_gap"] == pytest.approx(float(gap.mean()), 1e-4)


def test_the_table_of_first_tokens_holds_the_corpus_and_the_models_likeliest(
    fixed_logits: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faithful_sae.corpus_statistics.FIRST_TOKENS", 2)
    model = fixed_logits([0.4, 0.1, 0.3, 0.2])
    rows, _ = first_tokens(model, tokenizer, 0, {3: 1, 2: 1})
    assert rows["token"].to_list() == [0, 2, 3]


# Counting


def test_counts_and_rates_by_hand() -> None:
    train = table([0, 5, 6], [0, 5, 6], [0, 7])
    heldout = table([0, 5], [0, 8, 8], document=2)
    found = token_statistics(COUNTS, train, heldout)
    assert np.isnan(found.pop("distinct_4grams"))  # no context has four tokens
    assert found == {
        "documents": 10,
        "duplicates": 2,
        "duplicate_rate": 0.2,
        "end_rate": 0.75,  # 6 of 8 different documents
        "train_contexts": 3,
        "train_documents": 3,
        "train_tokens": 5,
        "heldout_contexts": 2,
        "heldout_documents": 2,
        "heldout_tokens": 3,
        "unique_contexts": 0.8,
        "unique_tokens": 4,
    }


def test_distinct_4grams_are_those_within_training_contexts_without_the_start_token() -> None:
    train = table([0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4], [0, 9, 1, 2, 3], [0, 4, 5, 6])
    # 1234 twice, 2345 and 9123 once; none across contexts, none with the start token.
    assert token_statistics(COUNTS, train, table([0, 5]))["distinct_4grams"] == 3 / 4


@pytest.mark.parametrize(("repeats", "share"), [(1, 1.0), (4, 0.25)])
def test_text_that_never_repeats_has_distinct_4grams_alone(repeats: int, share: float) -> None:
    contexts = [np.r_[0, np.arange(70_000) + 1].astype(np.int32)] * repeats
    assert distinct_4grams(contexts) == pytest.approx(share)


def merging_tokenizer() -> Any:
    """Three tokens, of which the third is the first two in a row."""
    from tokenizers import Tokenizer
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    from tokenizers.decoders import Fuse

    inner.decoder = Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=inner)


def test_retokenization_mismatch_is_the_share_of_contexts_that_change() -> None:
    merging = merging_tokenizer()
    changed, kept = [9, 0, 1], [9, 2]  # "ab" in two tokens, and in the one that encoding gives
    assert retokenization_mismatch(merging, table(changed, kept, kept, [9, 1, 0])) == 0.25
    assert retokenization_mismatch(merging, table(kept)) == 0


# All together


@pytest.mark.parametrize(("tokens", "used"), [(1, 2), (2, 2), (3, 5), (5, 5), (99, 6)])
def test_likelihoods_are_on_as_many_whole_contexts_as_hold_the_tokens_asked_for(
    llama: Any, tokenizer: Any, tokens: int, used: int
) -> None:
    heldout = table([0, 5, 6], [0, 5, 6, 7], [0, 8])
    statistics, first = corpus_statistics(
        llama, tokenizer, COUNTS, table([0, 5]), heldout, start_token=0, tokens=tokens
    )
    values = dict(statistics.iter_rows())
    assert values["likelihood_tokens"] == used
    assert values["first_tokens"] == 8  # all documents of the counts, not those of the tables
    shares = dict(first.select("token", "corpus_frequency").iter_rows())
    assert {t: q for t, q in shares.items() if q} == {5: 0.75, 8: 0.25}
    assert statistics.schema == {"metric": pl.String, "value": pl.Float64}
    assert statistics["metric"].is_unique().all()
    assert first.columns == ["token", "text", "model_probability", "corpus_frequency"]
