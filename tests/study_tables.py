"""Rows of a study's gathered tables, for tests of what is read off them."""

import polars as pl

PLACE = {"model": "m", "corpus": "c", "hook": "h", "sae": "s"}
RECONSTRUCTION = PLACE | {"eval_corpus": "c", "positions": "kept", "metric": "fvu", "seed": 0}
SIMILARITY = PLACE | {
    "corpus_b": "c",
    "seed": 0,
    "seed_b": 1,
    "null": "none",
    "latents": "all",
    "metric": "shared_feature_ratio",
    "threshold": 0.7,
}
FAKE = PLACE | {
    "seed": 0,
    "random_input": "uniform-tokens",
    "cut": "absolute",
    "level": 1.0,
    "frequency": 0.1,
    "metric": "fake_feature_ratio",
}
RECOVERY = PLACE | {"seed": 0, "metric": "recovered_features", "threshold": 0.9}
PROBING = PLACE | {
    "seed": 0,
    "probe_seed": 0,
    "task": "t",
    "features": "latents",
    "k": None,
    "metric": "accuracy",
}
SCHEMA = {
    "seed": pl.Int64,
    "seed_b": pl.Int64,
    "probe_seed": pl.Int64,
    "k": pl.Int64,
    "value": pl.Float64,
    "threshold": pl.Float64,
    "level": pl.Float64,
    "frequency": pl.Float64,
}


def table(base: dict, *changes: dict) -> pl.DataFrame:
    """One row for each of `changes`, on top of `base`."""
    schema = {name: SCHEMA.get(name, pl.String) for name in [*base, "value"]}
    return pl.DataFrame([base | change for change in changes], schema=schema)
