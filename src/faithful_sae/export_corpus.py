"""A corpus that a model wrote, as a data set that `datasets` and model hubs open."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import torch

from faithful_sae.activations import batches_by_length
from faithful_sae.arrow import write_arrow
from faithful_sae.cards import hub_id
from faithful_sae.contexts import Sample, is_heldout, pack_contexts
from faithful_sae.corpus import read_samples, written_documents
from faithful_sae.corpus_card import corpus_card
from faithful_sae.likelihood import next_token_losses
from faithful_sae.progress import Progress
from faithful_sae.provenance import write_plain_json
from faithful_sae.sae_card import TESTED

DOCUMENTS = pa.schema(
    {
        "doc_id": pa.int64(),
        "input_ids": pa.list_(pa.int32()),  # as the model wrote them, the start token first
        "text": pa.string(),
        "n_tokens": pa.int32(),  # of input_ids
        "finish_reason": pa.string(),  # "eos": the model ended the document; "length"
        "seed": pa.int64(),
        "logprob": pa.list_(pa.float32()),  # of input_ids[1:]
    }
)
TOKENIZED = pa.schema({"input_ids": pa.list_(pa.int32())})


def export_corpus(
    shards: Sequence[Path],
    destination: Path,
    model: Any,
    writer: Any,
    reader: Any,
    statistics: pl.DataFrame,
    *,
    facts: dict[str, Any],
    entry: dict[str, Any],
    heldout_fraction: float,
    context_length: int,
    **about: Any,
) -> None:
    """Write a data set: data files, a card, and for models of the hub sae_lens.json.

    model, writer, facts: the model that wrote the corpus, its tokenizer and its facts; reader: the
    tokenizer of the studied model; statistics: the studied model's corpus_statistics; entry: the
    config's of the corpus; about: what else `corpus_card` says.
    """
    rows = write_documents(
        shards,
        destination,
        model,
        writer,
        reader,
        start_token=facts["start_token"],
        seed=entry["seed"],
        heldout_fraction=heldout_fraction,
        context_length=context_length,
    )
    if hub_id(facts):
        settings = sae_lens_settings(str(hub_id(facts)), facts["start_token"], context_length)
        write_plain_json(settings, destination / "sae_lens.json")
    card = corpus_card(
        rows, statistics, facts=facts, entry=entry, context_length=context_length, **about
    )
    (destination / "README.md").write_text(card)


def write_documents(
    shards: Sequence[Path],
    destination: Path,
    model: Any,
    writer: Any,
    reader: Any,
    *,
    start_token: int,
    seed: int,
    heldout_fraction: float,
    context_length: int,
) -> dict[str, int]:
    """Write the data files below `data/`, one of each kind and split per shard.

    Documents are held out here as they are in the study: by the digest of what its model reads.

    - documents: every document as it was sampled, repetitions too (schema DOCUMENTS)
    - tokenized: the same tokens in contexts of exactly `context_length`, documents joined by the
      start token; of each shard and split, what does not fill a last context is left out

    Returns the number of rows of each kind and split, by the stem of its files.
    """
    splits = {"train": False, "heldout": True}
    rows = {f"{kind}/{split}": 0 for kind in ("documents", "tokenized") for split in splits}
    for number, path in enumerate(shards):
        samples = list(read_samples([path]))
        read = list(written_documents(samples, reader, writer))
        for split, wanted in splits.items():
            chosen = [
                (sample, document)
                for sample, document in zip(samples, read, strict=True)
                if is_heldout(document.digest, heldout_fraction) == wanted
            ]
            own = [sample for sample, _ in chosen]
            written = [
                (s.document, d._replace(tokens=np.asarray(s.tokens, np.int32))) for s, d in chosen
            ]
            packed = pack_contexts(written, start_token, context_length)
            full = [c.tokens for c in packed if len(c.tokens) == context_length]
            for kind, table in (
                ("documents", document_table(own, model, writer, start_token, seed)),
                ("tokenized", pa.table({"input_ids": full}, schema=TOKENIZED)),
            ):
                name = f"{split}-{number:05}-of-{len(shards):05}.parquet"
                write_arrow(table, destination / "data" / kind / name)
                rows[f"{kind}/{split}"] += len(table)
    return rows


def document_table(
    samples: Sequence[Sample], model: Any, writer: Any, start_token: int, seed: int
) -> pa.Table:
    """Sampled documents as rows of schema DOCUMENTS; the text is without special tokens."""
    ids = [[start_token, *sample.tokens] for sample in samples]
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    columns = {
        "doc_id": [sample.document for sample in samples],
        "input_ids": ids,
        "text": [writer.decode(sample.tokens, **plain) for sample in samples],
        "n_tokens": [len(tokens) for tokens in ids],
        "finish_reason": ["eos" if sample.ended else "length" for sample in samples],
        "seed": [seed] * len(samples),
        "logprob": log_probabilities(model, [np.asarray(tokens, np.int32) for tokens in ids]),
    }
    return pa.table(columns, schema=DOCUMENTS)


@torch.inference_mode()
def log_probabilities(model: Any, contexts: list[np.ndarray]) -> list[list[float]]:
    """log p(token | what precedes it) in nats of each token but the first, per context.

    The model's own distribution at temperature 1, whatever the text was sampled with.
    """
    found: dict[int, list[float]] = {}
    progress = Progress("export_corpus", len(contexts), "documents")
    for numbers, tokens in batches_by_length(contexts, model.device):
        losses = next_token_losses(model, tokens)
        for row, number in enumerate(numbers):
            found[number] = (-losses[row, : len(contexts[number]) - 1]).tolist()
        progress.advance(len(numbers))
    return [found[number] for number in range(len(contexts))]


def sae_lens_settings(tokenizer: str, start_token: int, context_length: int) -> dict[str, Any]:
    """sae_lens.json: what SAELens checks of a pretokenised data set, here of `tokenized`.

    tokenizer: an id on the hub, from where SAELens loads it.
    """
    return {
        "sae_lens_version": TESTED["sae-lens"],
        "tokenizer_name": tokenizer,
        "original_dataset": "",
        "original_dataset_name": None,
        "original_split": None,
        "original_data_files": None,
        "original_column_name": None,
        "context_size": context_length,
        "shuffled": True,
        "seed": None,
        "begin_batch_token": start_token,
        "begin_sequence_token": None,
        "sequence_separator_token": start_token,
        "disable_concat_sequences": False,
    }
