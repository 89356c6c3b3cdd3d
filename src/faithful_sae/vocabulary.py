"""Which vocabulary an SAE was made with: what its files say, and what its audit asks."""

import hashlib
import json
from typing import Any

VOCABULARY = "vocabulary_sha256"  # the key in `metadata` of cfg.json


def vocabulary_sha256(tokenizer: Any) -> str:
    """Digest of a tokenizer's vocabulary: sha256 of the JSON of its [token, id] pairs, by id."""
    pairs = sorted(tokenizer.get_vocab().items(), key=lambda pair: (pair[1], pair[0]))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()
