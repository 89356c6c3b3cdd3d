"""Tables of feature facts made by hand, in the form that `feature_facts` writes them."""

from typing import Any

import polars as pl

PLACE = {"model": "tiny", "hook": "resid_pre.1", "sae": "topk", "seed": 0}
NOTES = {
    "study": "small",
    "sibling": 1,
    "frequency": 0.1,
    "min_activation": 1.0,
    "limits": {"latents": 40, "contexts": 5, "window": 24},
}


def latent(number: int, kind: str, text: float, random: float, cosine: float | None, **more: Any):
    """One latent: its numbers, and under `contexts` its windows as (tokens, activations)."""
    numbers = {"kind": kind, "heldout": text, "uniform-tokens": random, "unigram-tokens": 0.03}
    return numbers | {"latent": number, "cosine": cosine} | more


def feature_tables(saes: dict[str, list[dict[str, Any]]]) -> dict[str, pl.DataFrame]:
    """Tables `latents`, `contexts` and `logits` of SAEs, by corpus; all but silent ones listed."""
    latents, contexts, logits = [], [], []
    for corpus, facts in saes.items():
        place = PLACE | {"corpus": corpus}
        for fact in facts:
            numbers = {k: v for k, v in fact.items() if k not in ("contexts", "promoted")}
            partner = None if fact["cosine"] is None else fact["latent"] + 1
            listed = fact["kind"] != "silent"
            latents.append(place | numbers | {"partner": partner, "listed": listed})
            here = place | {"latent": fact["latent"]}
            for name, windows in fact.get("contexts", {}).items():
                for rank, (tokens, activations) in enumerate(windows):
                    peak = max(range(len(tokens)), key=lambda i, a=activations: a[i] or 0)
                    window = {"tokens": tokens, "activations": activations}
                    contexts.append(here | {"rank": rank, "peak": peak, "input": name} | window)
            for effect, value in (("promoted", 2.5), ("suppressed", -1.25)):
                text = fact.get("promoted", " up") if effect == "promoted" else " down"
                logits.append(
                    here | {"effect": effect, "rank": 0, "token": 3, "value": value, "text": text}
                )
    columns = ["corpus", "latent", "rank", "peak", "input", "tokens", "activations"]
    return {
        "latents": pl.DataFrame(latents, infer_schema_length=None),
        "contexts": pl.DataFrame(contexts, None if contexts else columns, infer_schema_length=None),
        "logits": pl.DataFrame(logits),
    }
