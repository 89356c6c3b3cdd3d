"""Sampling documents: ours against transformers.generate, same model, same process.

    python benchmarks/sampling.py [folder of a prepared model]

256 documents on one thread, temperature 1, top_k 0. generate runs the model as transformers loads
it, ours as `load_model` does. Tokens per second count tokens that are in a document: none after an
end token. The floor is the products with the model's weights alone: no attention, no draw. The
model is a random Llama of 6 layers, width 256, with 8k and 49k tokens; with a folder, that model.
"""

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import Number, cells_of, interleaved, one_thread, print_table, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from faithful_sae.kv_cache import preallocated_cache
from faithful_sae.linear import linear, use_linear
from faithful_sae.models import load_model
from faithful_sae.sampling import sample_documents

BATCH = 256


def random_llama(vocabulary: int) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=688,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval().requires_grad_(False)


def ours(model: Any, tokens: int, top_p: float, ends: list[int]) -> int:
    """Sample once; how many tokens the documents have."""
    documents = sample_documents(
        model,
        range(BATCH),
        start_token=0,
        end_tokens=ends,
        context_length=tokens + 1,
        temperature=1.0,
        top_p=top_p,
        repetition_penalty=1.0,
        seed=0,
        block=BATCH,
    )
    return sum(len(document.tokens) for document in documents)


@torch.inference_mode()
def generate(model: Any, tokens: int, top_p: float, ends: list[int]) -> int:
    """The same by transformers."""
    torch.manual_seed(0)
    start = torch.zeros(BATCH, 1, dtype=torch.long)
    model.generation_config.eos_token_id = ends or None
    written = model.generate(
        start,
        attention_mask=torch.ones_like(start),
        do_sample=True,
        max_new_tokens=tokens,
        temperature=1.0,
        top_k=0,
        top_p=top_p,
        pad_token_id=1,
    )[:, 1:]
    ended = torch.isin(written, torch.tensor(ends, dtype=torch.long)).cumsum(1)
    return int((ended == 0).sum() + (ended[:, -1] > 0).sum())


def weight_products(model: Any) -> Callable[[], None]:
    """One product of a batch with every weight matrix."""
    layers = [module for module in model.modules() if isinstance(module, nn.Linear)]
    inputs = [torch.randn(BATCH, layer.in_features) for layer in layers]

    def products() -> None:
        for x, layer in zip(inputs, layers, strict=True):
            linear(x, layer.weight)

    return products


@torch.inference_mode()
def logits_difference(model: Any, stock: Any, rows: int = 8, length: int = 32) -> float:
    """Largest difference of decoded logits from a plain forward pass, over the largest logit."""
    tokens = torch.randint(model.config.vocab_size, (rows, length))
    plain = stock(input_ids=tokens, use_cache=False).logits
    cache, worst = preallocated_cache(model, length), 0.0
    for i in range(length):
        logits = model(input_ids=tokens[:, i : i + 1], past_key_values=cache).logits[:, 0]
        worst = max(worst, float((logits - plain[:, i]).abs().max()))
    return worst / float(plain.abs().max())


def row(
    name: str, model: Any, stock: Any, tokens: int, top_p: float, ends: int
) -> dict[str, Number]:
    written: dict[str, int] = {}

    def counted(function: Callable[..., int], model: Any) -> None:
        written[function.__name__] = function(model, tokens, top_p, list(range(ends)))

    products = weight_products(model)
    seconds = interleaved(
        {
            "ours": lambda: counted(ours, model),
            "generate": lambda: counted(generate, stock),
            "floor": lambda: [products() for _ in range(4)],
        }
    )
    speed = {peer: written[peer] / seconds[peer] for peer in written}
    floor = 4 * BATCH / seconds["floor"]
    return {
        "model": name,
        "batch": BATCH,
        "tokens": tokens,
        "top_p": top_p,
        "end tokens": ends,
        "ours tok/s": round(speed["ours"]),
        "generate tok/s": round(speed["generate"]),
        "ours/generate": speed["ours"] / speed["generate"],
        "floor tok/s": round(floor),
        "ours/floor": speed["ours"] / floor,
        "generate/floor": speed["generate"] / floor,
        "logits max relative difference": logits_difference(model, stock),
    }


def main() -> None:
    if len(sys.argv) > 1:
        folder = Path(sys.argv[1])
        stock = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        pair = folder.name, load_model(folder), stock
        print_table(cells_of([row(*pair, 16, p, 0) for p in (1.0, 0.95)]))
        return
    rows = []
    for name, vocabulary, cases in (
        ("8k", 8192, [(128, 1.0, 0), (32, 0.95, 0), (64, 1.0, 256)]),  # 256: ends after 32
        ("49k", 49152, [(16, 1.0, 0), (8, 0.95, 0)]),
    ):
        stock = random_llama(vocabulary)
        model = use_linear(copy.deepcopy(stock))
        rows += [row(f"random Llama, {name}", model, stock, *case) for case in cases]
    write_table("sampling", rows)


if __name__ == "__main__":
    main()
