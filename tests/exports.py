"""Tiny SAEs and a tiny corpus, saved as the workflow saves them, and what is said of them."""

from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import torch

from faithful_sae.arrow import write_arrow
from faithful_sae.corpus import SAMPLES
from faithful_sae.sae import SAE

K, SEED, REVISION = 3, 1, "0123456789abcdef0123456789abcdef01234567"
FACTS: dict[str, Any] = {
    "model": "tiny",
    "start_token": 0,
    "end_tokens": [1],
    "entry": {
        "source": "hub",
        "hub": "someone/tiny",
        "revision": REVISION,
        "start_token": None,
        "end_tokens": None,
    },
}
CORPUS = {
    "source": "faithful",
    "temperature": 0.75,
    "top_p": 0.5,
    "repetition_penalty": 1.25,
    "seed": 7,
    "documents": None,
    "block": 2,
    "pack": False,
}
CONFIG = {"study": "tiny", "seeds": [0, 1, 2]}
ABOUT: dict[str, Any] = {
    "facts": FACTS,
    "revision": REVISION,
    "corpus": CORPUS,
    "config": CONFIG,
    "context_length": 32,
    "vocabulary": "ab" * 32,
    "frequency": 0.1,
    "min_activation": 1.0,
}


def save_sae(folder: Path, hook: str = "resid_pre.8", threshold: float | None = None) -> SAE:
    """An SAE of random weights; with a threshold, BatchTopK as it is after training."""
    generator = torch.Generator().manual_seed(0)
    sae = SAE.untrained(d_in=6, d_sae=20, k=K, seed=SEED)
    sae.W_enc = torch.randn(6, 20, generator=generator)
    sae.b_enc = torch.rand(20, generator=generator)
    sae.b_dec = torch.randn(6, generator=generator)
    sae.threshold = None if threshold is None else torch.tensor(threshold)
    architecture = "topk" if threshold is None else "batch_topk"
    provenance = {
        "model_name": "tiny@0123",
        "study": "tiny",
        "model": "tiny",
        "corpus": "faithful",
        "hook": hook,
        "hook_name": hook.replace("resid_pre.", "blocks.") + ".hook_resid_pre",
        "sae": "topk",
        "seed": SEED,
        "start_token": 0,
        "positions": {"skip_first": 1, "max_norm": 5.0},
        "training": {
            "architecture": architecture,
            "training_tokens": 4096,
            "batch_size": 64,
            "lr": 0.001,
        },
    }
    sae.save(folder, provenance)
    return sae


def tables(
    hook: str = "resid_pre.8", seeds: tuple[int, ...] = (0, 1, 2)
) -> dict[str, pl.DataFrame]:
    """Evaluations in which every value is another: of SEED the numbers that a card must show."""
    place = {"model": "tiny", "hook": hook, "sae": "topk", "corpus": "faithful"}
    reconstruction = [
        {**place, "seed": seed, "eval_corpus": text, "positions": positions, "metric": metric}
        | {"value": seed + 0.1 * n + 0.01 * (positions == "all") + 0.001 * (text == "code")}
        for seed in seeds
        for text in ("faithful", "code")
        for positions in ("kept", "all")
        for n, metric in enumerate(("explained_variance", "ce_loss_increase"))
        if (positions, metric, text) != ("all", "ce_loss_increase", "code")
    ]
    pair = {**place, "corpus_b": "faithful", "latents": "all"}
    similarity = [
        {**pair, "seed": a, "seed_b": b, "metric": metric, "threshold": threshold, "null": null}
        | {"value": value}
        for a in seeds
        for b in seeds
        if a < b
        for metric, threshold, null, value in (
            ("shared_feature_ratio", 0.7, "none", 0.5123 + 0.1 * a + 0.01 * b),
            ("shared_feature_ratio", 0.9, "none", 0.9),
            ("shared_feature_ratio", 0.7, "covariance", 0.0625),
            ("mean_matched_cosine", None, "none", 0.6234 + 0.1 * a + 0.01 * b),
            ("mean_matched_cosine", None, "covariance", 0.3),
        )
    ]
    fake = [
        {**place, "seed": seed, "random_input": "uniform-tokens", "cut": "absolute"}
        | {"level": 1.0, "frequency": 0.1, "metric": metric, "value": value + seed}
        for seed in seeds
        for metric, value in (("fake_feature_ratio", 0.2468), ("fake_not_dense_ratio", 0.1357))
    ]
    schema = dict.fromkeys(["corpus_b", "latents", "metric", "null", *place], pl.String)
    schema |= {"seed": pl.Int64, "seed_b": pl.Int64, "threshold": pl.Float64, "value": pl.Float64}
    return {
        "reconstruction": pl.DataFrame(reconstruction),
        "similarity": pl.DataFrame(similarity, schema=schema),
        "fake_features": pl.DataFrame(fake),
    }


def write_shards(folder: Path, shards: int) -> list[Path]:
    """Twelve sampled documents of the tiny tokenizer, the second a repetition of the first."""
    generator = torch.Generator().manual_seed(0)
    rows = []
    for number in range(12):
        length = 31 if number % 3 else 9
        tokens = torch.randint(2, 100, (length,), generator=generator).tolist()
        tokens = rows[0]["tokens"] if number == 1 else tokens
        rows.append({"document": number, "tokens": tokens, "ended": number % 3 == 0})
    paths = [folder / f"shard{shard}.parquet" for shard in range(shards)]
    step = len(rows) // shards
    for shard, path in enumerate(paths):
        part = rows[shard * step : (shard + 1) * step]
        write_arrow(pa.Table.from_pylist(part, schema=SAMPLES), path)
    return paths
