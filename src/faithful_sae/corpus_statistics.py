"""What a corpus is to a model: its size, its repetitions, its first tokens, its surprise."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import rel_entr  # x log(x / y), and 0 where x is 0

from faithful_sae.activations import batches_by_length
from faithful_sae.contexts import context_tokens, digest
from faithful_sae.likelihood import predictions
from faithful_sae.models import encode
from faithful_sae.progress import Progress

PAPER_FLOOR = 1e-10
SETTLED = 32  # position from which a context has told the model what it is reading
DRAWS = 20  # samples of the model's own first tokens, for what chance alone gives
FIRST_TOKENS = 1000  # likeliest first tokens of the model that the table always holds


def corpus_statistics(
    model: Any,
    tokenizer: Any,
    counts: dict[str, Any],
    train: pa.Table,
    heldout: pa.Table,
    *,
    start_token: int,
    tokens: int,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Tables of all statistics below (metric, value) and of first tokens; likelihoods on at least
    `tokens` held-out tokens, as far as there are any.
    """
    contexts = context_tokens(heldout)
    enough = 1 + int(np.searchsorted(np.cumsum([len(c) - 1 for c in contexts]), tokens))
    # JSON has no integer keys.
    by_token = {int(token): n for token, n in counts["first_tokens"].items()}
    first, first_statistics = first_tokens(model, tokenizer, start_token, by_token)
    statistics = (
        token_statistics(counts, train, heldout)
        | {"retokenization_mismatch": retokenization_mismatch(tokenizer, heldout)}
        | surprise(model, contexts[:enough])
        | first_statistics
    )
    rows = [(name, float(value)) for name, value in statistics.items()]
    table = pl.DataFrame(rows, {"metric": pl.String, "value": pl.Float64}, orient="row")
    return table, first


def token_statistics(
    counts: dict[str, int], train: pa.Table, heldout: pa.Table
) -> dict[str, float]:
    """Counts and rates of a corpus.

    documents, duplicates and ended come from `counts` (made before the split); duplicate_rate and
    end_rate are their shares of documents and of unique documents. `unique_contexts` is the number
    of different contexts as a share of all; `unique_tokens` counts vocabulary ids.
    `distinct_4grams`, a measure of variety, is the number of different runs of four tokens as a
    share of all, in the training contexts without their start tokens; it falls as a corpus grows,
    so only corpora of equal size compare.
    """
    statistics: dict[str, float] = {
        "documents": counts["documents"],
        "duplicates": counts["duplicates"],
        "duplicate_rate": counts["duplicates"] / counts["documents"],
        "end_rate": counts["ended"] / (counts["documents"] - counts["duplicates"]),
    }
    everything = []
    for split, table in (("train", train), ("heldout", heldout)):
        contexts = context_tokens(table)
        statistics[f"{split}_contexts"] = len(contexts)
        statistics[f"{split}_documents"] = len(table["document"].unique())
        statistics[f"{split}_tokens"] = sum(len(c) - 1 for c in contexts)
        if split == "train":
            statistics["distinct_4grams"] = distinct_4grams(contexts)
        everything += contexts
    statistics["unique_contexts"] = len({digest(c.tobytes()) for c in everything}) / len(everything)
    statistics["unique_tokens"] = len(np.unique(np.concatenate([c[1:] for c in everything])))
    return statistics


def distinct_4grams(contexts: list[np.ndarray]) -> float:
    """Different runs of four tokens as a share of all within contexts; nan where there is none."""
    runs = [sliding_window_view(c[1:], 4) for c in contexts if len(c) > 4]
    if not runs:
        return math.nan
    rows = pl.DataFrame(np.concatenate(runs))
    return rows.n_unique() / rows.height


def retokenization_mismatch(tokenizer: Any, contexts: pa.Table) -> float:
    """Share of contexts whose tokens change when they are decoded and encoded again.

    It is why this workflow keeps ids. The start token is left out.
    """
    ids: list[list[int]] = [c[1:].tolist() for c in context_tokens(contexts)]
    again = encode(tokenizer, tokenizer.batch_decode(ids, clean_up_tokenization_spaces=False))
    return sum(a != b for a, b in zip(ids, again, strict=True)) / len(ids)


@torch.inference_mode()
def surprise(model: Any, contexts: list[np.ndarray]) -> dict[str, float]:
    """The model's surprise at a text beside the surprise that it expects, in nats per token.

    nll: mean of -log p(token | what precedes it); entropy: mean entropy of p on the same contexts;
    surprise_gap: nll - entropy. Zero in expectation on the model's own samples at temperature 1,
    positive where the text is not what the model would write. Contexts cut from the middle of a
    document begin with a surprise that is the cut's; surprise_gap_settled counts positions from
    SETTLED on. Standard errors take the context as the unit (ratio estimate).
    """
    sums = []  # per context: tokens, nll, entropy, gap; tokens and gap from SETTLED on
    progress = Progress("corpus_statistics", len(contexts), "contexts")
    for numbers, tokens in batches_by_length(contexts, model.device):
        tiles = []
        for logits, following in predictions(model, tokens):
            log_p = logits.log_softmax(-1)
            losses = -log_p.gather(-1, following[:, None]).squeeze(-1)
            tiles.append(torch.stack([losses, losses + (log_p.exp() * log_p).sum(-1)]))
        nll, gap = torch.cat(tiles, dim=1).view(2, len(tokens), -1)
        for row, number in enumerate(numbers):
            n = len(contexts[number]) - 1
            nll_sum, gap_sum = float(nll[row, :n].sum()), float(gap[row, :n].sum())
            settled = float(gap[row, SETTLED - 1 : n].sum())
            sums.append((n, nll_sum, nll_sum - gap_sum, gap_sum, max(n + 1 - SETTLED, 0), settled))
        progress.advance(len(numbers))
    n, nll_sums, entropy_sums, gap_sums, settled_n, settled_sums = np.array(sums).T
    result = {"likelihood_tokens": float(n.sum())}
    for name, values, tokens_of in (
        ("nll", nll_sums, n),
        ("entropy", entropy_sums, n),
        ("surprise_gap", gap_sums, n),
        ("surprise_gap_settled", settled_sums, settled_n),
    ):
        result[name], result[f"{name}_stderr"] = _ratio(values, tokens_of)
    return result


def _ratio(values: np.ndarray, n: np.ndarray) -> tuple[float, float]:
    """Mean per token and its standard error, from sums and tokens of each context."""
    if not n.sum():
        return math.nan, math.nan
    mean = values.sum() / n.sum()
    if len(n) < 2:
        return float(mean), math.nan
    spread = ((values - mean * n) ** 2).sum() * len(n) / (len(n) - 1)
    return float(mean), float(np.sqrt(spread) / n.sum())


@torch.inference_mode()
def first_tokens(
    model: Any, tokenizer: Any, start_token: int, counts: Mapping[int, int]
) -> tuple[pl.DataFrame, dict[str, float]]:
    """First tokens of a corpus's documents against the model's distribution after its start token.

    counts: documents by first token. Returns the table (token, text, model_probability,
    corpus_frequency) of every first token that occurs and of the model's likeliest, and, in nats:

    - first_token_coverage: share of the vocabulary that occurs
    - first_token_kl_corpus_model: KL(corpus || model)
    - first_token_kl_model_corpus: KL(model || corpus), infinite where the corpus lacks a token
    - first_token_kl_model_corpus_paper: the same with 1e-10 for missing tokens, as in the authors'
      code; it falls with the size of the corpus
    - first_token_kl_corpus_model_expected, first_token_js_expected: what as many documents of the
      model's own would show by chance; only what exceeds them is a difference
    - first_token_js: Jensen-Shannon divergence. The authors' code prints the mean of both KLs under
      that name; this is the true one.
    """
    start = torch.tensor([[start_token]], device=model.device)
    p = model(input_ids=start, use_cache=False).logits[0, -1].double().softmax(-1).cpu().numpy()
    q = np.zeros(len(p))
    q[list(counts)] = list(counts.values())
    statistics = {"first_tokens": float(q.sum())}
    q /= max(q.sum(), 1)
    seen = q > 0
    statistics |= {
        "first_token_coverage": float(seen.mean()),
        "first_token_kl_corpus_model": _kl(q, p),
        "first_token_kl_model_corpus": _kl(p, q),
        "first_token_kl_model_corpus_paper": float(rel_entr(p, np.maximum(q, PAPER_FLOOR)).sum()),
        "first_token_js": _js(q, p),
    }
    chance = np.random.default_rng(0).multinomial(int(statistics["first_tokens"]), p, DRAWS)
    for name, divergence in (("kl_corpus_model", _kl), ("js", _js)):
        expected = [divergence(draw / max(draw.sum(), 1), p) for draw in chance]
        statistics[f"first_token_{name}_expected"] = float(np.mean(expected))
    shown = np.union1d(np.flatnonzero(seen), np.argsort(-p)[:FIRST_TOKENS])
    table = pl.DataFrame(
        {
            "token": shown,
            "text": [tokenizer.decode([int(t)]) for t in shown],
            "model_probability": p[shown],
            "corpus_frequency": q[shown],
        }
    )
    return table, statistics


def _kl(p: np.ndarray, q: np.ndarray) -> float:
    return float(rel_entr(p, q).sum())


def _js(p: np.ndarray, q: np.ndarray) -> float:
    m = (p + q) / 2
    return (_kl(p, m) + _kl(q, m)) / 2
