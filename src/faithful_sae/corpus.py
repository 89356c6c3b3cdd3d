"""Corpora: documents become contexts of token ids, split into train and held-out."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, tee
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from faithful_sae.arrow import read_arrow, write_arrow
from faithful_sae.checksums import read_json, write_json
from faithful_sae.contexts import (
    Document,
    FirstContexts,
    Sample,
    context_table,
    cut_contexts,
    digest,
    is_heldout,
    pack_contexts,
)
from faithful_sae.models import encode
from faithful_sae.state import State

AT_ONCE = 256  # documents in memory: enough to keep the tokenizer's threads busy
SAMPLES = pa.schema({"document": pa.int64(), "tokens": pa.list_(pa.int32()), "ended": pa.bool_()})


class Corpus(NamedTuple):
    """Contexts of both splits (tables of schema CONTEXTS) and what was counted on the way."""

    train: pa.Table
    heldout: pa.Table
    counts: dict[str, Any]


def text_documents(texts: Iterable[str], tokenizer: Any) -> Iterator[Document]:
    """Tokenised documents; the digest is the text's, so that the split precedes tokenising."""
    chunk: list[str] = []

    def tokenised() -> Iterator[Document]:
        for text, ids in zip(chunk, encode(tokenizer, chunk), strict=True):
            yield Document(np.asarray(ids, np.int32), digest(text.encode()))

    for text in texts:
        chunk.append(text)
        if len(chunk) == AT_ONCE:
            yield from tokenised()
            chunk.clear()
    yield from tokenised()


def sampled_documents(samples: Iterable[Sample]) -> Iterator[Document]:
    """Documents that the studied model wrote, as its own token ids; their digest is the ids'."""
    for sample in samples:
        tokens = np.asarray(sample.tokens, np.int32)
        yield Document(tokens, digest(tokens.tobytes()), sample.ended)


def written_documents(samples: Iterable[Sample], reader: Any, writer: Any) -> Iterator[Document]:
    """Documents that a model wrote, for a model to read; `reader`, `writer` are their tokenizers.

    Ids are kept when both have the same vocabulary; otherwise the text is carried over.
    """
    if reader.get_vocab() == writer.get_vocab():
        yield from sampled_documents(samples)
        return
    plain = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    samples, decoded = tee(samples)
    texts = (writer.decode(sample.tokens, **plain) for sample in decoded)
    for sample, document in zip(samples, text_documents(texts, reader), strict=True):
        yield document._replace(ended=sample.ended)


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
    the start token of each context; the last context is cut, so that every corpus has exactly the
    tokens asked for. `counts` is about all documents, those that the budget leaves out too.

    Memory: contexts of twice the tokens asked for, and the digests of all documents; if `pack`, all
    documents, since where a context begins depends on those before it.

    Raises ValueError naming the corpus when it is empty or holds fewer tokens than asked.
    """
    counts = {"documents": 0, "duplicates": 0, "ended": 0, "tokens": 0}
    first_tokens: Counter[int] = Counter()
    seen: set[bytes] = set()
    splits = {"train": FirstContexts(train_tokens), "heldout": FirstContexts(heldout_tokens)}
    to_pack: dict[str, list[tuple[int, Document]]] = {"train": [], "heldout": []}
    different = dict.fromkeys(splits, 0)
    for number, document in enumerate(documents):
        counts["documents"] += 1
        if document.digest in seen:
            counts["duplicates"] += 1
            continue
        seen.add(document.digest)
        counts["ended"] += document.ended
        counts["tokens"] += len(document.tokens)
        first_tokens.update(document.tokens[:1].tolist())
        split = "heldout" if is_heldout(document.digest, heldout_fraction) else "train"
        different[split] += 1
        if pack:
            to_pack[split].append((number, document))
        else:
            splits[split].add(cut_contexts([(number, document)], start_token, context_length))
    if not counts["tokens"]:
        raise ValueError(f"corpora.{name}: the corpus is empty; check its source.")
    tables = {}
    for split, contexts in splits.items():
        contexts.add(pack_contexts(to_pack[split], start_token, context_length))
        chosen = contexts.taken()
        found = sum(len(c.tokens) - 1 for c in chosen)
        if found < contexts.tokens:
            raise ValueError(
                f"corpora.{name}: {found:,} {split} tokens in {different[split]:,} documents, but "
                f"corpus_size.{split}_tokens asks for {contexts.tokens:,}; lower it, or give the "
                f"corpus more text (corpora.{name}.documents for sampled text)."
            )
        tables[split] = context_table(chosen)
    return Corpus(**tables, counts=counts | {"first_tokens": dict(sorted(first_tokens.items()))})


def write_samples(
    sample: Callable[[range], Iterable[Sample]],
    documents: range,
    block: int,
    path: Path,
    state: State,
) -> None:
    """Write one shard of sampled documents; `sample` draws the documents of whole blocks.

    Every block is a piece of the job's `state` until all are there.
    """
    state.begin()
    blocks, done = len(documents) // block, len(state.pieces())
    samples = iter(sample(range(documents.start + done * block, documents.stop)))
    for number in range(done, blocks):
        rows = [s._asdict() for s in islice(samples, block)]
        write_arrow(pa.Table.from_pylist(rows, schema=SAMPLES), state.piece(number))
    pieces = [read_arrow(piece) for piece in state.whole(blocks)]
    write_arrow(pa.concat_tables([SAMPLES.empty_table(), *pieces]), path)


def read_samples(paths: Sequence[Path]) -> Iterator[Sample]:
    """The documents of one shard after the other, in their order; memory is of one shard's ids."""
    for path in paths:
        for batch in read_arrow(path).to_batches(max_chunksize=AT_ONCE):
            yield from (Sample(**row) for row in batch.to_pylist())


def write_corpus(corpus: Corpus, train: Path, heldout: Path, counts: Path) -> None:
    """Both splits and the counts."""
    write_arrow(corpus.train, train)
    write_arrow(corpus.heldout, heldout)
    write_json(corpus.counts, counts)


def load_corpus(train: Path, heldout: Path, counts: Path) -> Corpus:
    """What `write_corpus` wrote."""
    found = read_json(counts)
    # JSON has no integer keys.
    found["first_tokens"] = {int(token): n for token, n in found["first_tokens"].items()}
    return Corpus(read_arrow(train), read_arrow(heldout), found)
