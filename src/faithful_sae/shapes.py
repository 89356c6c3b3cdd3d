"""The shape of a language model, from its config.json alone: parameters, FLOPs, bytes.

Known without the weights, so that a study can be planned before anything is downloaded.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

# What GPT-2's config.json calls its sizes, and what it leaves out because it is the family's own.
GPT2_NAMES = {"n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_heads"}
UNGATED = {"gpt2", "gpt_neox"}  # families whose MLP has two matrices; others have a gate too
TIED = {"gpt2", "gemma", "gemma2", "gemma3", "gemma3_text"}  # whose head is the embedding, unsaid
STORED = {"float16": 2, "bfloat16": 2, "float32": 4}  # bytes of a weight in the published file
COMPUTED = 4  # bytes of a weight in memory: models run in float32


class Shape(NamedTuple):
    """d_in: width of the residual stream; block: parameters of one block; head: of the unembedding;
    embedding: of the embedding, where the head is not the same matrix; kv: width of the keys and
    values of one position in one block; mlp: inner width; stored: bytes of a weight on the hub.
    """

    d_in: int
    blocks: int
    block: int
    head: int
    embedding: int
    kv: int
    mlp: int
    vocab: int
    stored: int

    @property
    def parameters(self) -> int:
        return self.blocks * self.block + self.head + self.embedding

    def forward(self, blocks: int, context_length: int) -> float:
        """FLOPs of one token in `blocks` blocks: two per parameter, and four per channel and
        position attended to, on average half the context (Kaplan et al. 2020, arXiv 2001.08361).
        """
        return blocks * (2.0 * self.block + 2.0 * self.d_in * context_length)

    def predict(self, context_length: int) -> float:
        """FLOPs of one token through all blocks and the head."""
        return self.forward(self.blocks, context_length) + 2.0 * self.head


def shape_of(config: dict[str, Any]) -> Shape:
    """The shape that a config.json describes; norms and biases, under 1 %, are left out.

    Raises ValueError naming the first size that the file lacks, or a dtype without a size here.
    """
    whole = config.get("text_config", config)  # multimodal families nest their language model
    whole = {GPT2_NAMES.get(key, key): value for key, value in whole.items()}
    try:
        d_in, blocks, vocab = (
            whole[key] for key in ("hidden_size", "num_hidden_layers", "vocab_size")
        )
        heads = whole["num_heads"] if "num_heads" in whole else whole["num_attention_heads"]
    except KeyError as error:
        raise ValueError(f"config.json states no {error}, which a plan needs.") from error
    mlp = whole.get("intermediate_size") or whole.get("n_inner") or 4 * d_in
    width = whole.get("head_dim") or d_in // heads
    kv = 2 * width * (whole.get("num_key_value_heads") or heads)
    family = whole.get("model_type")
    attention = 2 * d_in * heads * width + d_in * kv
    tied = whole.get("tie_word_embeddings", family in TIED)
    # transformers writes either name.
    dtype = config.get("torch_dtype") or config.get("dtype") or "float32"
    if dtype not in STORED:
        raise ValueError(f"config.json states dtype {dtype!r}; a plan knows {', '.join(STORED)}.")
    return Shape(
        d_in=d_in,
        blocks=blocks,
        block=attention + (2 if family in UNGATED else 3) * d_in * mlp,
        head=vocab * d_in,
        embedding=0 if tied else vocab * d_in,
        kv=kv,
        mlp=mlp,
        vocab=vocab,
        stored=STORED[dtype],
    )


def known_shapes(
    models: Mapping[str, Any], folders: Mapping[str, Path], known: Mapping[str, Any]
) -> dict[str, Shape]:
    """Shapes of those models that are here already or that `known` lists.

    models: the config's entries; folders: where each model is once it is prepared, but for models
    of known features, which have no weights; known: contents of config.json by hub id or by the
    member of a wheel.
    """
    shapes = {}
    for name, entry in models.items():
        if name not in folders:
            continue
        base = entry.get("model", name)  # that of a random twin
        places = [folders[name], folders[base], Path(models[base].get("path", folders[base]))]
        files = [folder / "config.json" for folder in places]
        here = next((file for file in files if file.exists()), None)
        published = models[base].get("hub") or models[base].get("member")
        if here is not None:
            shapes[name] = shape_of(json.loads(here.read_text()))
        elif published in known:
            shapes[name] = shape_of(known[published])
    return shapes
