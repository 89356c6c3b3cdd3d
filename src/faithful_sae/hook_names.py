"""What the field's tools call a place in a model."""

from typing import NamedTuple


class HookNames(NamedTuple):
    """One place in three notations; mistaking one for another is off by a block, silently.

    transformer_lens: of TransformerLens, SAELens and the paper; hidden_states: the index into
    `transformers`' `hidden_states`; module: the module whose output it is, as sparsify names
    folders (`layers.N` whatever the model calls its blocks: SAELens' reader of sparsify's files
    knows no other).
    """

    transformer_lens: str
    hidden_states: int
    module: str


def hook_block(hook: str) -> int:
    """The block L whose input `resid_pre.L` names."""
    return int(hook.removeprefix("resid_pre."))


def hook_names(hook: str) -> HookNames:
    """The names of `resid_pre.L`, the input of block L: the output of block L - 1, or the
    embeddings, which GPT-2 adds positions to and Gemma scales after the module of that name.
    """
    block = hook_block(hook)
    module = f"layers.{block - 1}" if block else "embed_tokens"
    return HookNames(f"blocks.{block}.hook_resid_pre", block, module)
