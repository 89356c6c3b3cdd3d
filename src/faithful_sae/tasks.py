"""Labelled texts for probing, as contexts."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from faithful_sae.contexts import Context, context_table, digest
from faithful_sae.models import encode


def build_task(
    name: str,
    examples: Iterable[tuple[str, str]],
    tokenizer: Any,
    *,
    start_token: int,
    context_length: int,
    n_examples: int,
) -> pa.Table:
    """A labelled set for probing as contexts with a column `label`.

    One context per example, cut at `context_length`. Exact duplicates are dropped, and
    examples taken in the order of a hash of their text.

    Raises ValueError naming the task when it holds fewer examples than asked, or one text under two
    labels: no probe can learn both, and which of them counted would hang on the source's order.
    """
    labels: dict[bytes, tuple[str, str]] = {}
    for text, label in examples:
        _, known = labels.setdefault(digest(text.encode()), (text, label))
        if label != known:
            raise ValueError(
                f"tasks.{name}: {text[:80]!r} is labelled {known!r} and {label!r}; correct the "
                "labels in its source."
            )
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
    labels_column = pa.array([label for _, (_, label) in chosen])
    return context_table(contexts).append_column("label", labels_column)
