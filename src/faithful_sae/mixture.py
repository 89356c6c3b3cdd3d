"""Mixtures: equal shares of other corpora. They are as varied as foreign text can be made here."""

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from faithful_sae.contexts import Context, context_table, context_tokens, digest, take
from faithful_sae.corpus import Corpus


def mix_corpora(corpora: Sequence[Corpus], *, train_tokens: int, heldout_tokens: int) -> Corpus:
    """Equal shares of the tokens of several corpora in both splits, in the order of a hash.

    Each corpus gives its first contexts, which are drawn from all of its documents, the last one
    cut to its share: the mixture has exactly the tokens asked for, and shares differ by one token
    at most. Documents stay in their split and are numbered anew, so that no two share a number.
    `counts` are those of the corpora, added up: like theirs, about all documents that there are.
    """
    splits: list[list[Context]] = [[], []]
    first = 0  # number of the corpus's first document
    for part, corpus in enumerate(corpora):
        tables = (corpus.train, corpus.heldout)
        for contexts, table, tokens in zip(
            splits, tables, (train_tokens, heldout_tokens), strict=True
        ):
            share = tokens * (part + 1) // len(corpora) - tokens * part // len(corpora)
            contexts += take(_contexts(table, first), share)
        first += 1 + max(pc.max(table["document"]).as_py() for table in tables)
    train, heldout = (
        context_table(sorted(split, key=lambda c: (digest(c.tokens.tobytes()), c.document)))
        for split in splits
    )
    return Corpus(train, heldout, _added_up(corpora))


def _contexts(table: pa.Table, first: int) -> list[Context]:
    documents, starts, ended = (table[name].to_pylist() for name in ("document", "start", "ended"))
    columns = zip(documents, starts, context_tokens(table), ended, strict=True)
    return [Context(b"", first + document, *rest) for document, *rest in columns]


def _added_up(corpora: Sequence[Corpus]) -> dict[str, int | dict[int, int]]:
    first_tokens: Counter[int] = Counter()
    for corpus in corpora:
        first_tokens.update(corpus.counts["first_tokens"])
    numbers = corpora[0].counts.keys() - {"first_tokens"}
    added = {name: sum(corpus.counts[name] for corpus in corpora) for name in sorted(numbers)}
    return added | {"first_tokens": dict(sorted(first_tokens.items()))}
