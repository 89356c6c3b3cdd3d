"""Sampling draws from the model's own distribution, and documents depend on their number alone."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor
from transformers import Lfm2Config, Lfm2ForCausalLM, RepetitionPenaltyLogitsProcessor

from faithful_sae.contexts import Sample
from faithful_sae.sampling import (
    _threshold,
    document_uniforms,
    draw,
    penalised,
    sample_documents,
)

SETTINGS: dict[str, Any] = {
    "start_token": 0,
    "end_tokens": [1, 7, 9, 30, 44],
    "context_length": 16,
    "temperature": 1.0,
    "top_p": 1.0,
    "repetition_penalty": 1.0,
    "seed": 5,
    "block": 8,
}
ALMOST_ONE = np.nextafter(1.0, 0.0)


def sampled(model: Any, documents: range, **changes: Any) -> list[Sample]:
    return list(sample_documents(model, documents, **SETTINGS | changes))


def slow_draw(probabilities: np.ndarray, u: float) -> int:
    """The first index at which the running sum exceeds u times the total."""
    cumulative = np.cumsum(np.asarray(probabilities, np.float64))
    return int(np.searchsorted(cumulative, u * cumulative[-1], side="right"))


def slow_document(model: Any, number: int, **changes: Any) -> Sample:
    """One document, token by token, without a cache or a batch."""
    asked = SETTINGS | changes
    uniforms = document_uniforms(asked["seed"], number, asked["context_length"])
    tokens = [asked["start_token"]]
    for u in uniforms[1:]:
        context = torch.tensor([tokens])
        logits = model(input_ids=context, use_cache=False).logits[:, -1]
        penalty = RepetitionPenaltyLogitsProcessor(asked["repetition_penalty"])
        logits = penalty(context, logits.double())[0] / asked["temperature"]
        tokens.append(slow_draw(logits.softmax(-1).numpy(), u))
        if tokens[-1] in asked["end_tokens"]:
            return Sample(number, tokens[1:], True)
    return Sample(number, tokens[1:], False)


def assert_drawn_from(tokens: Tensor, probabilities: Tensor) -> None:
    """Chi-square test, rare tokens pooled; deterministic, since every seed is fixed."""
    expected = (probabilities.double() / probabilities.double().sum()).numpy() * len(tokens)
    counts = np.bincount(tokens.numpy(), minlength=len(expected)).astype(float)
    assert not counts[expected == 0].any()
    rare = expected < 5
    counts = np.r_[counts[~rare], counts[rare].sum()]
    expected = np.r_[expected[~rare], expected[rare].sum()]
    some = expected > 0
    assert chisquare(counts[some], expected[some]).pvalue > 1e-3


def uniforms(n: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(0).random(n))


def test_documents_equal_those_written_one_by_one_without_cache(family_model: Any) -> None:
    documents = sampled(family_model, range(0, 16))
    assert documents == [slow_document(family_model, n) for n in range(16)]
    lengths = {len(d.tokens) for d in documents}
    assert len(lengths) > 3  # rows were dropped on the way, at several lengths
    assert {d.ended for d in documents} == {True, False}


def test_a_model_with_recurrent_states_writes_the_same_documents_without_dropping_rows() -> None:
    torch.manual_seed(0)
    config = Lfm2Config(
        vocab_size=50,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        layer_types=["conv", "full_attention", "conv"],
        num_hidden_layers=3,
    )
    model = Lfm2ForCausalLM(config).eval().requires_grad_(False)
    documents = sampled(model, range(0, 16))
    assert documents == [slow_document(model, n) for n in range(16)]
    assert {d.ended for d in documents} == {True, False}


def test_a_temperature_divides_the_logits(llama: Any) -> None:
    documents = sampled(llama, range(0, 8), temperature=0.5)
    assert documents == [slow_document(llama, n, temperature=0.5) for n in range(8)]
    assert documents != sampled(llama, range(0, 8))


@pytest.mark.parametrize("temperature", [1.0, 1.3])
def test_a_repetition_penalty_is_that_of_transformers_before_the_temperature(
    family_model: Any, temperature: float
) -> None:
    changes = {"repetition_penalty": 1.6, "temperature": temperature}
    documents = sampled(family_model, range(0, 16), **changes)
    assert documents == [slow_document(family_model, n, **changes) for n in range(16)]
    assert documents != sampled(family_model, range(0, 16), temperature=temperature)
    assert documents == [
        document
        for first in (0, 8)
        for document in sampled(family_model, range(first, first + 8), **changes)
    ]


def test_with_a_penalty_and_a_nucleus_documents_repeat_less_and_stay_in_it(llama: Any) -> None:
    changes = {"repetition_penalty": 1.6, "top_p": 0.7, "end_tokens": []}
    documents = sampled(llama, range(0, 16), **changes)
    for document in documents:
        context = [0]
        for token in document.tokens:
            ids = torch.tensor([context])
            logits = llama(input_ids=ids, use_cache=False).logits[:, -1]
            p = RepetitionPenaltyLogitsProcessor(1.6)(ids, logits)[0].softmax(-1)
            assert p[p > p[token]].sum() < 0.7 + 1e-6
            context.append(token)
    without = sampled(llama, range(0, 16), **changes | {"repetition_penalty": 1.0})
    different = [sum(len(set(d.tokens)) for d in written) for written in (documents, without)]
    assert different[0] > different[1]


def test_a_penalty_divides_what_is_positive_and_multiplies_what_is_negative_once() -> None:
    logits = torch.tensor([[3.0, -3.0, 0.0, 5.0], [1.0, 2.0, -4.0, 8.0]])
    context = torch.tensor([[0, 1, 0, 0], [2, 2, 2, 2]])
    expected = [[1.5, -6.0, 0.0, 5.0], [1.0, 2.0, -8.0, 8.0]]
    assert penalised(logits, context, 2.0).tolist() == expected


def test_documents_do_not_depend_on_shards(family_model: Any) -> None:
    together = sampled(family_model, range(0, 16))
    assert together == sampled(family_model, range(0, 8)) + sampled(family_model, range(8, 16))


def test_documents_depend_on_seed_and_number(llama: Any) -> None:
    documents = sampled(llama, range(0, 8))
    assert documents != [d._replace(document=d.document - 8) for d in sampled(llama, range(8, 16))]
    assert documents != sampled(llama, range(0, 8), seed=6)
    assert documents == sampled(llama, range(0, 8))


@pytest.mark.parametrize("documents", [range(0, 12), range(4, 12), range(3, 8)])
def test_partial_blocks_are_refused(llama: Any, documents: range) -> None:
    with pytest.raises(ValueError, match="whole blocks of 8"):
        sampled(llama, documents)


def test_documents_keep_their_end_token_and_stop_there(llama: Any) -> None:
    for document in sampled(llama, range(0, 64)):
        ends = [t in SETTINGS["end_tokens"] for t in document.tokens]
        assert not any(ends[:-1])
        assert ends[-1] == document.ended
        assert document.ended or len(document.tokens) == SETTINGS["context_length"] - 1


def test_without_end_tokens_every_document_is_full(llama: Any) -> None:
    documents = sampled(llama, range(0, 8), end_tokens=[])
    assert [(len(d.tokens), d.ended) for d in documents] == [(15, False)] * 8


def test_the_models_generation_config_is_ignored(llama: Any) -> None:
    documents = sampled(llama, range(0, 8))
    kept = llama.generation_config
    llama.generation_config = type(kept)(temperature=0.01, top_k=1, do_sample=True)
    try:
        assert sampled(llama, range(0, 8)) == documents
    finally:
        llama.generation_config = kept


def test_first_tokens_have_the_models_probabilities(llama: Any) -> None:
    documents = sampled(llama, range(0, 4096), context_length=2, block=1024)
    first = torch.tensor([d.tokens[0] for d in documents])
    p = llama(input_ids=torch.tensor([[0]])).logits[0, -1].softmax(-1)
    assert p.max() > 4 / len(p)  # a uniform draw would not pass
    assert_drawn_from(first, p)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_have_the_tempered_probabilities(temperature: float) -> None:
    logits = torch.randn(300, generator=torch.Generator().manual_seed(0)) * 2
    tokens = draw(logits.expand(20_000, -1), uniforms(20_000), temperature, 1.0)
    assert_drawn_from(tokens, (logits / temperature).softmax(-1))


@pytest.mark.parametrize("top_p", [0.3, 0.9])
@pytest.mark.parametrize("cached", [2**18, 7000])  # many rows at a time, and 70
def test_top_p_draws_from_the_renormalised_nucleus(
    top_p: float, cached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("faithful_sae.sampling.CACHED", cached)
    logits = torch.randn(100, generator=torch.Generator().manual_seed(1))
    p = logits.double().softmax(-1)
    order = p.argsort(descending=True)
    size = int((p[order].cumsum(0) < top_p).sum()) + 1  # smallest set of mass >= top_p
    assert size > 4
    nucleus = torch.zeros_like(p)
    nucleus[order[:size]] = p[order[:size]] / p[order[:size]].sum()
    tokens = draw(logits.expand(20_000, -1), uniforms(20_000), 1.0, top_p)
    assert set(tokens.tolist()) == set(order[:size].tolist())
    assert_drawn_from(tokens, nucleus)


def test_of_equally_likely_tokens_the_nucleus_holds_all_or_none() -> None:
    logits = torch.tensor([0.1, 0.2, 0.4, 0.1, 0.2]).log().expand(2000, -1)
    assert set(draw(logits, uniforms(2000), 1.0, 0.5).tolist()) == {1, 2, 4}
    assert set(draw(logits, uniforms(2000), 1.0, 0.39).tolist()) == {2}


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    vocabulary=st.sampled_from([1, 7, 256, 257, 5003]),
    spread=st.sampled_from([0.0, 0.01, 1.0, 10.0]),
    levels=st.sampled_from([2, 1000]),
    top_p=st.floats(1e-6, 0.999),
)
def test_the_nucleus_is_the_one_that_a_sort_finds(
    seed: int, vocabulary: int, spread: float, levels: int, top_p: float
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.integers(0, levels, (3, vocabulary)) * (spread / levels)
    weights = torch.from_numpy(logits).float().softmax(-1)
    for row, found in zip(weights, _threshold(weights, top_p), strict=True):
        # Over the distinct weights, the mass of those at least as large.
        distinct, of = row.double().unique(return_inverse=True)
        mass = torch.zeros_like(distinct).index_add_(0, of, row.double()).flip(0).cumsum(0).flip(0)
        expected = distinct[max(0, int((mass >= top_p).sum()) - 1)]
        assert found == expected or (mass - top_p).abs().min() < 1e-6


@settings(max_examples=15)
@given(seed=st.integers(0, 2**32 - 1), top_p=st.sampled_from([0.2, 0.7, 1.0]))
def test_a_draw_depends_on_no_other_row(seed: int, top_p: float) -> None:
    generator = np.random.default_rng(seed)
    logits = torch.from_numpy(generator.normal(0, 2, (40, 1009)).astype(np.float32))
    u = torch.from_numpy(generator.random(40))
    together = draw(logits, u, 1.0, top_p)
    alone = [draw(row[None], v[None], 1.0, top_p) for row, v in zip(logits, u, strict=True)]
    assert torch.equal(together, torch.cat(alone))
    some = torch.from_numpy(generator.permutation(40)[:11])
    assert torch.equal(draw(logits[some], u[some], 1.0, top_p), together[some])


def test_a_draw_within_the_nucleus_is_the_same_without_it() -> None:
    logits = torch.randn(200, generator=torch.Generator().manual_seed(2)).expand(5000, -1)
    everything, u = draw(logits, uniforms(5000), 1.0, 1.0), uniforms(5000)
    cut = draw(logits, u, 1.0, 0.8)
    inside = torch.isin(everything, cut.unique())
    assert torch.equal(cut[inside], everything[inside])
    assert 0.75 < inside.double().mean() < 0.85


@settings(max_examples=60)
@given(
    vocabulary=st.sampled_from([1, 2, 61, 255, 256, 257, 1000, 5003]),
    u=st.one_of(st.sampled_from([0.0, ALMOST_ONE]), st.floats(0, ALMOST_ONE)),
    seed=st.integers(0, 2**32 - 1),
    zero_head=st.floats(0, 0.9),
    zero_tail=st.floats(0, 0.9),
)
def test_a_draw_is_the_quantile_of_a_slow_cumulative_sum(
    vocabulary: int, u: float, seed: int, zero_head: float, zero_tail: float
) -> None:
    generator = np.random.default_rng(seed)
    logits = generator.normal(0, 4, vocabulary).astype(np.float32)
    logits[: int(zero_head * vocabulary / 2)] = -np.inf
    logits[vocabulary - int(zero_tail * vocabulary / 2) :] = -np.inf
    p = torch.from_numpy(logits).softmax(-1)
    token = int(draw(torch.from_numpy(logits)[None], torch.tensor([u]).double(), 1.0, 1.0))
    assert p[token] > 0
    # Sums in another order may differ in their last bits: the quantile holds within those.
    cumulative = np.r_[0.0, np.cumsum(p.double().numpy())] / float(p.double().sum())
    assert cumulative[token] - 1e-12 <= u <= cumulative[token + 1] + 1e-12
    reference = slow_draw(p.numpy(), u)
    assert token == reference or abs(cumulative[max(token, reference)] - u) < 1e-12


@pytest.mark.parametrize("vocabulary", [256, 300, 1024])
def test_extreme_quantiles_are_the_first_and_last_possible_token(vocabulary: int) -> None:
    logits = torch.full((2, vocabulary), float("-inf"))
    # The last of a block of 256, and nothing after it; the likelier one comes first under top_p.
    logits[:, 3], logits[:, 255] = 1.0, 0.0
    u = torch.tensor([0.0, ALMOST_ONE], dtype=torch.float64)
    for top_p in (1.0, 0.99):
        assert draw(logits, u, 1.0, top_p).tolist() == [3, 255]


def test_uniforms_are_a_fixed_property_of_seed_and_document() -> None:
    long, short = document_uniforms(0, 3, 50), document_uniforms(0, 3, 20)
    assert np.array_equal(long[:20], short)
    others = [document_uniforms(0, 4, 50), document_uniforms(1, 3, 50), document_uniforms(3, 0, 50)]
    assert all(not np.isin(long, other).any() for other in others)
    assert ((long >= 0) & (long < 1)).all()
