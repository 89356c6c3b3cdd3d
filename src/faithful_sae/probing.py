"""Tables of probes: SAE latents and reconstructions, and the baselines that need no training."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch import Tensor

from faithful_sae.arrow import read_arrow
from faithful_sae.pooling import (
    Features,
    Task,
    classes_of,
    decode_pooled,
    mean_pool,
    pooled_latents,
)
from faithful_sae.probes import Draw, draw_documents, k_sparse_features, majority, probe
from faithful_sae.sae import SAE
from faithful_sae.shards import Positions, Shards

SCHEMA = {
    "features": pl.String,
    "k": pl.Int64,
    "probe_seed": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
}


def read_tasks(
    names: Sequence[str],
    examples: Sequence[str],
    activations: Sequence[str],
    positions: Positions,
) -> dict[str, Task]:
    """Every task, from its contexts and their activations."""
    tasks = {}
    for name, contexts, shard in zip(names, examples, activations, strict=True):
        table = pl.DataFrame(pl.from_arrow(read_arrow(Path(contexts))))
        shards = Shards([Path(shard)], positions)
        labels = dict(zip(table["document"].to_list(), table["label"].to_list(), strict=True))
        x = torch.cat(list(shards.batches()))
        tasks[name] = Task(x, shards.document[shards.kept], labels)
    return tasks


def probe_saes(
    saes: Mapping[int, SAE],
    tasks: Mapping[str, Task],
    sparse_k: Sequence[int],
    probe_seeds: Sequence[int],
) -> pl.DataFrame:
    """Probes of every seed's SAE: columns seed, task, features, k, probe_seed, metric, value.

    features: "latents", all of them (k null) and `sparse_k` of them; "reconstruction".
    """
    tables = []
    for name, task in tasks.items():
        draws = draw_rows(task, probe_seeds)
        for seed, sae in saes.items():
            latents = pooled_latents(task, sae)
            x_hat = decode_pooled(sae, latents)
            for table in (
                probe_features("latents", latents, task, draws, sparse_k),
                probe_features("reconstruction", x_hat, task, draws),
            ):
                tables.append(_at(table, seed=seed, task=name))
    return pl.concat(tables)


def probe_baselines(
    tasks: Mapping[str, Task],
    shapes: Mapping[str, tuple[float, int]],
    seeds: Sequence[int],
    sparse_k: Sequence[int],
    probe_seeds: Sequence[int],
) -> pl.DataFrame:
    """Probes that need no training: the columns of `probe_saes` and sae.

    features: "raw" and "majority", which depend on no SAE (seed null, sae empty), and
    "random_dictionary", the untrained SAE of each shape and seed.  shapes: sae -> (expansion, k).
    """
    centre = mean_activation(tasks.values())
    tables = []
    for name, task in tasks.items():
        draws = draw_rows(task, probe_seeds)
        raw, _ = mean_pool(task.activations, task.document)
        for table in (probe_features("raw", raw, task, draws), majority_table(task, draws)):
            tables.append(_at(table, seed=None, task=name, sae=""))
        for sae, (expansion, k) in shapes.items():
            for seed in seeds:
                d_sae = round(expansion * len(centre))
                start = SAE.untrained_about(centre, d_sae=d_sae, k=k, seed=seed)
                latents = pooled_latents(task, start)
                table = probe_features("random_dictionary", latents, task, draws, sparse_k)
                tables.append(_at(table, seed=seed, task=name, sae=sae))
    return pl.concat(tables)


def shapes_of(saes: Mapping[str, SAE]) -> dict[str, tuple[float, int]]:
    """(expansion, k) of SAEs whose shape no config states."""
    return {name: (sae.d_sae / sae.d_in, sae.k) for name, sae in saes.items()}


def mean_activation(tasks: Collection[Task]) -> Tensor:
    """Mean over all tokens of all tasks, [d_in]; no label is looked at."""
    total = torch.stack([task.activations.sum(0, dtype=torch.float64) for task in tasks]).sum(0)
    return (total / sum(len(task.activations) for task in tasks)).float()


def draw_rows(task: Task, probe_seeds: Sequence[int]) -> dict[int, Draw]:
    """What each probe seed draws, as rows of the task's pooled features."""
    documents = np.unique(task.document)
    drawn = {seed: draw_documents(task.labels, seed) for seed in probe_seeds}
    return {
        seed: Draw(*(np.flatnonzero(np.isin(documents, part)) for part in draw))
        for seed, draw in drawn.items()
    }


def probe_features(
    features: str, x: Features, task: Task, draws: Mapping[int, Draw], sparse_k: Sequence[int] = ()
) -> pl.DataFrame:
    """A probe of each draw on all columns of x [n_docs, d], and on k of them for each k."""
    y = classes_of(task)
    rows = []
    for probe_seed, draw in draws.items():
        rows += _rows(features, None, probe_seed, probe(x, y, draw))
        for k in sparse_k:
            columns = k_sparse_features(x[draw.train], y[draw.train], k)
            few = sparse.csr_array(x[:, columns]).toarray()
            rows += _rows(features, k, probe_seed, probe(few, y, draw))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def majority_table(task: Task, draws: Mapping[int, Draw]) -> pl.DataFrame:
    """What always saying the most frequent training class of a draw scores."""
    y = classes_of(task)
    rows = []
    for probe_seed, draw in draws.items():
        rows += _rows("majority", None, probe_seed, majority(y[draw.train], y[draw.test]))
    return pl.DataFrame(rows, schema=SCHEMA, orient="row")


def _rows(
    features: str, k: int | None, probe_seed: int, scores: Mapping[str, float]
) -> list[tuple[str | int | float | None, ...]]:
    return [(features, k, probe_seed, metric, value) for metric, value in scores.items()]


def _at(table: pl.DataFrame, seed: int | None, **names: str) -> pl.DataFrame:
    """The table with its coordinates; what depends on no SAE has no seed."""
    named = {name: pl.lit(value) for name, value in names.items()}
    return table.with_columns(seed=pl.lit(seed, pl.Int64), **named)
