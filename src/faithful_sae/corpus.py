"""Corpora: documents become contexts of token ids, split into train and held-out.

A *context* is what the model reads at once: the start token and up to `context_length - 1` tokens
of one document. Token ids are kept from here to the SAE; nothing is decoded and encoded again.
"""

import json
import math
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from faithful_sae.files import written_whole
from faithful_sae.models import encode
from faithful_sae.sampling import Sample

SPARE = 0.2  # documents sampled beyond what full ones would need
TOKENIZE_AT_ONCE = 256  # documents: enough to keep the tokenizer's threads busy
CONTEXTS = pa.schema(
    {
        "document": pa.int64(),
        "start": pa.int32(),  # where in its document the context begins, in tokens
        "tokens": pa.list_(pa.int32()),  # the start token first
        "ended": pa.bool_(),  # the model ended the document here (sampled text only)
    }
)
SAMPLES = pa.schema({"document": pa.int64(), "tokens": pa.list_(pa.int32()), "ended": pa.bool_()})


class Document(NamedTuple):
    """A document's token ids [n] int32 (no start token), the digest of its content, and its end."""

    tokens: np.ndarray
    digest: bytes
    ended: bool = False


class Corpus(NamedTuple):
    """Contexts of both splits (tables of schema CONTEXTS) and what was counted on the way."""

    train: pa.Table
    heldout: pa.Table
    counts: dict[str, int]


class Context(NamedTuple):
    key: bytes
    document: int
    start: int
    tokens: np.ndarray
    ended: bool


def text_documents(texts: Iterable[str], tokenizer: Any) -> Iterator[Document]:
    """Tokenised documents; the digest is the text's, so that the split precedes tokenising."""
    chunk: list[str] = []

    def tokenised() -> Iterator[Document]:
        for text, ids in zip(chunk, encode(tokenizer, chunk), strict=True):
            yield Document(np.asarray(ids, np.int32), digest(text.encode()))

    for text in texts:
        chunk.append(text)
        if len(chunk) == TOKENIZE_AT_ONCE:
            yield from tokenised()
            chunk.clear()
    yield from tokenised()


def sampled_documents(samples: Iterable[Sample]) -> Iterator[Document]:
    """Documents that the studied model wrote, as its own token ids; their digest is the ids'."""
    for sample in samples:
        tokens = np.asarray(sample.tokens, np.int32)
        yield Document(tokens, digest(tokens.tobytes()), sample.ended)


def written_documents(samples: list[Sample], reader: Any, writer: Any) -> Iterator[Document]:
    """Documents that a model wrote, for a model to read; `reader`, `writer` are their tokenizers.

    Ids are kept when both have the same vocabulary; otherwise the text is carried over.
    """
    if reader.get_vocab() == writer.get_vocab():
        return sampled_documents(samples)
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return text_documents((writer.decode(s.tokens, **plain) for s in samples), reader)


def digest(content: bytes) -> bytes:
    return blake2b(content, digest_size=16).digest()


def is_heldout(document: bytes, fraction: float) -> bool:
    """Whether the document of this digest is held out: a fixed property of its content."""
    return int.from_bytes(document[:8], "big") < fraction * 2**64


def documents_to_sample(
    documents: int | None,
    block: int,
    *,
    train_tokens: int,
    heldout_tokens: int,
    heldout_fraction: float,
    context_length: int,
) -> int:
    """How many documents a model must write, in whole blocks: `documents`, or an estimate.

    The estimate fills both splits and adds SPARE for documents that end early or repeat. A model
    that ends most of its documents early needs `documents` in the config.
    """
    if documents is None:
        tokens = max(train_tokens / (1 - heldout_fraction), heldout_tokens / heldout_fraction)
        documents = math.ceil((1 + SPARE) * tokens / (context_length - 1))
    return math.ceil(documents / block) * block


def build_corpus(
    name: str,
    documents: Iterable[Document],
    *,
    start_token: int,
    context_length: int,
    train_tokens: int,
    heldout_tokens: int,
    heldout_fraction: float,
    pack: bool,
) -> Corpus:
    """Drop exact duplicates, split by document, cut into contexts, take each split's token budget.

    Contexts are taken in the order of a hash, so that a small budget still draws on every document
    and every part of it, and does not depend on the order of the source. Tokens are counted without
    start tokens; the last context is cut so that every corpus has exactly the tokens asked for.

    Raises ValueError naming the corpus when it is empty or holds fewer tokens than asked.
    """
    counts = {"documents": 0, "duplicates": 0, "ended": 0, "tokens": 0}
    seen: set[bytes] = set()
    splits: dict[bool, list[tuple[int, Document]]] = {False: [], True: []}
    for number, document in enumerate(documents):
        counts["documents"] += 1
        if document.digest in seen:
            counts["duplicates"] += 1
            continue
        seen.add(document.digest)
        counts["ended"] += document.ended
        counts["tokens"] += len(document.tokens)
        splits[is_heldout(document.digest, heldout_fraction)].append((number, document))
    if not counts["tokens"]:
        raise ValueError(f"corpora.{name}: the corpus is empty; check its source.")
    cut = pack_contexts if pack else cut_contexts
    tables = {}
    for heldout, asked in ((False, train_tokens), (True, heldout_tokens)):
        contexts = sorted(cut(splits[heldout], start_token, context_length))
        chosen = _take(contexts, asked)
        found = sum(len(c.tokens) - 1 for c in chosen)
        if found < asked:
            split = "heldout" if heldout else "train"
            raise ValueError(
                f"corpora.{name}: {found:,} {split} tokens in {len(splits[heldout]):,} documents, "
                f"but corpus_size.{split}_tokens asks for {asked:,}; lower it, or give the corpus "
                f"more text (corpora.{name}.documents for sampled text)."
            )
        tables[heldout] = context_table(chosen)
    return Corpus(tables[False], tables[True], counts)


def cut_contexts(
    documents: Iterable[tuple[int, Document]], start_token: int, context_length: int
) -> Iterator[Context]:
    """Consecutive contexts of each document; no context mixes two documents."""
    step = context_length - 1
    for number, document in documents:
        n = len(document.tokens)
        for start in range(0, n, step):
            tokens = document.tokens[start : start + step]
            yield Context(
                digest(document.digest + start.to_bytes(8, "big")),
                number,
                start,
                np.concatenate([[start_token], tokens]).astype(np.int32),
                document.ended and start + step >= n,
            )


def pack_contexts(
    documents: Iterable[tuple[int, Document]], start_token: int, context_length: int
) -> Iterator[Context]:
    """Full contexts cut from all documents in a row, a start token between two of them."""
    pieces = [
        piece
        for _, document in sorted(documents, key=lambda d: d[1].digest)
        for piece in ([start_token], document.tokens)
    ]
    if pieces:
        # The first start token is the first context's own.
        stream = np.concatenate(pieces[1:]).astype(np.int32)
        yield from cut_contexts(
            [(0, Document(stream, digest(stream.tobytes())))], start_token, context_length
        )


def context_table(contexts: list[Context]) -> pa.Table:
    """Contexts as a table of schema CONTEXTS."""
    columns = {
        "document": [c.document for c in contexts],
        "start": [c.start for c in contexts],
        "tokens": [c.tokens for c in contexts],
        "ended": [c.ended for c in contexts],
    }
    return pa.table(columns, schema=CONTEXTS)


def build_task(
    name: str,
    examples: Iterable[tuple[str, str]],
    tokenizer: Any,
    *,
    start_token: int,
    context_length: int,
    n_examples: int,
    heldout_fraction: float,
) -> pa.Table:
    """A labelled set for probing as contexts with columns `split` and `label`.

    One context per example, cut at `context_length`. Exact duplicates are dropped before the split;
    examples are taken in the order of a hash of their text.

    Raises ValueError naming the task when it holds fewer examples than asked.
    """
    labels = {digest(text.encode()): (text, label) for text, label in examples}
    if len(labels) < n_examples:
        raise ValueError(
            f"tasks.{name}: {len(labels):,} different examples, but {n_examples:,} are asked for; "
            f"lower tasks.{name}.examples."
        )
    chosen = sorted(labels.items())[:n_examples]
    tokens = encode(tokenizer, [text for _, (text, _) in chosen])
    contexts = [
        Context(key, i, 0, np.asarray([start_token, *ids][:context_length], np.int32), False)
        for i, ((key, _), ids) in enumerate(zip(chosen, tokens, strict=True))
    ]
    # The digest orders the examples, so the split must read other bits of their content.
    heldout = [is_heldout(digest(key), heldout_fraction) for key, _ in chosen]
    table = context_table(contexts)
    table = table.append_column("split", pa.array(["heldout" if h else "train" for h in heldout]))
    return table.append_column("label", pa.array([label for _, (_, label) in chosen]))


def uniform_tokens(
    vocab_size: int, *, start_token: int, context_length: int, tokens: int
) -> pa.Table:
    """Contexts of uniformly random token ids after the start token (the paper's random input).

    All ids of the vocabulary are drawn, special and unused ones too, as in the authors' code.
    """
    generator = np.random.default_rng(0)
    step = context_length - 1
    contexts = []
    for number, start in enumerate(range(0, tokens, step)):
        ids = generator.integers(0, vocab_size, min(step, tokens - start))
        row = np.concatenate([[start_token], ids]).astype(np.int32)
        contexts.append(Context(b"", number, 0, row, False))
    return context_table(contexts)


def _take(contexts: list[Context], tokens: int) -> list[Context]:
    """The first contexts that together hold `tokens` tokens, the last one cut to fit."""
    taken, left = [], tokens
    for context in contexts:
        if left <= 0:
            break
        kept = context.tokens[: left + 1]
        ended = context.ended and len(kept) == len(context.tokens)
        taken.append(context._replace(tokens=kept, ended=ended))
        left -= len(kept) - 1
    return taken


def write_samples(samples: Iterable[Sample], path: Path) -> None:
    """One shard of sampled documents, whole or not at all."""
    table = pa.Table.from_pylist([s._asdict() for s in samples], schema=SAMPLES)
    with written_whole(path) as temporary:
        pq.write_table(table, temporary)


def read_samples(paths: list[Path]) -> list[Sample]:
    """The documents of all shards, in number order."""
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    return sorted((Sample(**row) for row in rows), key=lambda s: s.document)


def write_contexts(contexts: pa.Table, path: Path) -> None:
    """Contexts of one split or task, whole or not at all, every page with a checksum."""
    with written_whole(path) as temporary:
        pq.write_table(contexts, temporary, compression="zstd", write_page_checksum=True)


def write_corpus(corpus: Corpus, train: Path, heldout: Path, counts: Path) -> None:
    """Both splits and the counts."""
    write_contexts(corpus.train, train)
    write_contexts(corpus.heldout, heldout)
    with written_whole(counts) as temporary:
        temporary.write_text(json.dumps(corpus.counts) + "\n")
