"""The card of an exported corpus: how it was sampled, what it holds, what was measured of it."""

from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import polars as pl

from faithful_sae.cards import front_matter, hub_id, markdown_table, origin, provenance_lines

SIZES = {1e3: "n<1K", 1e4: "1K<n<10K", 1e5: "10K<n<100K", 1e6: "100K<n<1M", 1e7: "1M<n<10M"}
LARGEST = "n>10M"
MEANINGS = {
    "documents": "sampled",
    "duplicates": "exact repetitions among them; the study drops them, this data set does not",
    "duplicate_rate": "their share",
    "end_rate": "share of different documents that the model ended itself",
    "train_contexts": "of the study",
    "train_documents": "of the study",
    "train_tokens": "of the study",
    "heldout_contexts": "of the study",
    "heldout_documents": "of the study",
    "heldout_tokens": "of the study",
    "distinct_4grams": "different runs of four tokens as a share of all; falls with size",
    "unique_contexts": "share of different contexts",
    "unique_tokens": "ids of the vocabulary that occur",
    "retokenization_mismatch": "share of contexts that decoding and encoding changes: keep the ids",
    "likelihood_tokens": "held-out tokens that the following are about",
    "nll": "nats per token that the studied model is surprised by",
    "entropy": "nats per token that it expects to be",
    "surprise_gap": "nll - entropy: 0 in expectation for a model's own samples at temperature 1",
    "surprise_gap_settled": "the same from position 32 of a context on",
    "first_tokens": "documents whose first token the following are about",
    "first_token_coverage": "share of the vocabulary that begins a document",
    "first_token_kl_corpus_model": "KL divergence of the corpus from the model, first tokens, nats",
    "first_token_kl_corpus_model_expected": "what chance alone gives",
    "first_token_kl_model_corpus": "of the model from the corpus; infinite where it lacks a token",
    "first_token_kl_model_corpus_paper": "the same with 1e-10 for missing tokens",
    "first_token_js": "Jensen-Shannon divergence of first tokens, nats",
    "first_token_js_expected": "what chance alone gives",
}
COLUMNS = {
    "doc_id": "number of the document; its random draws hang on it and on the seed alone",
    "input_ids": "as sampled, the start token first; use these, not the text",
    "text": "decoded without special tokens",
    "n_tokens": "length of `input_ids`",
    "finish_reason": "`eos` if the model ended the document, `length` if the limit did",
    "seed": "of the sampling",
    "logprob": "log p of `input_ids[1:]` in nats, by the model that wrote it, at temperature 1",
}


def corpus_card(
    rows: Mapping[str, int],
    statistics: pl.DataFrame,
    *,
    facts: dict[str, Any],
    revision: str,
    entry: dict[str, Any],
    context_length: int,
    corpus: str,
    reader_name: str,
    config: dict[str, Any],
) -> str:
    """README.md of a data set with the kinds `documents` (the default) and `tokenized`.

    rows: rows by kind and split, `documents/train`; statistics: corpus_statistics (metric, value),
    measured on the model `reader_name`; facts, revision: of the model that wrote it; entry: the
    config's of the corpus.
    """
    kinds = list(dict.fromkeys(key.split("/")[0] for key in rows))
    configs = [
        {
            "config_name": kind,
            "default": kind == "documents",
            "data_files": [
                {"split": key.split("/")[1], "path": f"data/{key}-*.parquet"}
                for key in rows
                if key.startswith(f"{kind}/")
            ],
        }
        for kind in kinds
    ]
    documents = sum(n for key, n in rows.items() if key.startswith("documents/"))
    head = front_matter(
        {
            "license": "other",
            "task_categories": ["text-generation"],
            "size_categories": [next((s for n, s in SIZES.items() if documents < n), LARGEST)],
            "tags": ["synthetic", "self-generated", "sparse-autoencoder", "faithful-sae"],
            "base_model": hub_id(facts),
            "configs": configs,
        }
    )
    parts = [
        f"# Text that `{facts['model']}` wrote: {corpus}",
        "Sampled from the model's start token alone, for the training of sparse autoencoders "
        "(FaithfulSAE, arXiv 2506.17673). Nothing was filtered: samples may be wrong, offensive or "
        "copied from what the model was trained on.",
        "## How it was made",
        markdown_table(["setting", "value"], _settings(facts, revision, entry, context_length)),
        "## What it holds",
        markdown_table(["rows", ""], [(f"`{key}`", n) for key, n in rows.items()]),
        "`heldout` documents are those that the study never trains on. `tokenized` holds the same "
        f"tokens in contexts of exactly {context_length}, documents joined by the start token.",
        markdown_table(["column", ""], [(f"`{name}`", text) for name, text in COLUMNS.items()]),
        "## What was measured of it",
        f"On the model `{reader_name}`, with standard errors over contexts (`_stderr`); "
        "`faithful_sae.corpus_statistics` has the formulas.",
        _diagnostics(statistics),
        "## How to open it",
        _snippet(corpus),
        "## Terms and origin",
        "The terms of the model apply to its samples; put a licence here before you publish this. "
        + provenance_lines(config),
    ]
    return head + "\n" + "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _settings(
    facts: dict[str, Any], revision: str, entry: dict[str, Any], context_length: int
) -> list[tuple[str, Any]]:
    """Every setting that the samples depend on; `end_tokens` of the model end a document."""
    return [
        ("model", origin(facts, revision)),
        ("prompt", f"token {facts['start_token']} alone"),
        ("end tokens", ", ".join(map(str, facts["end_tokens"])) or "none"),
        ("temperature", entry["temperature"]),
        ("top_p", entry["top_p"]),
        ("top_k", "none"),
        ("repetition_penalty", entry["repetition_penalty"]),
        ("longest document", f"{context_length} tokens, the start token included"),
        ("seed", entry["seed"]),
        ("block", f"{entry['block']} documents side by side"),
        ("weights and logits", "float32"),
        ("sampler", "`faithful_sae.sampling`, one counter-based stream of draws per document"),
        ("exported with", f"torch {version('torch')}, transformers {version('transformers')}"),
    ]


def _diagnostics(statistics: pl.DataFrame) -> str:
    rows = [
        (f"`{metric}`", value, MEANINGS.get(metric, ""))
        for metric, value in statistics.select("metric", "value").iter_rows()
    ]
    return markdown_table(["metric", "value", "meaning"], rows)


def _snippet(folder: str) -> str:
    """Python that opens the folder from beside it; `tests/test_export_peers.py` runs it."""
    return "\n".join(
        [
            "```python",
            "from datasets import load_dataset",
            f'documents = load_dataset("{folder}")  # this folder, or "<user>/<name>" on the hub',
            f'tokenized = load_dataset("{folder}", "tokenized", split="train")',
            "```",
        ]
    )
