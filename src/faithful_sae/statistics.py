"""Means and intervals over seeds, and the summary table of a study.

The seed is the unit: two pairs that share an SAE are not independent, so pairs are never
resampled. With a study's few seeds a percentile bootstrap is far too narrow even when it resamples
seeds: in simulations with normal seed effects its nominal 95 % held the truth 74 % of the time for
a mean over 3 seeds, 83 % over 5; for the pairs of 3 seeds 49 %, of 5 seeds 78 %. A jackknife over
seeds with a Student t quantile holds it 95 % of the time in all four cases, so it is the only
interval here. No method rescues strongly skewed effects (exponential: 87-90 %).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.special import stdtrit

from faithful_sae.random_inputs import UNIFORM

GROUP = ["model", "hook", "sae", "corpus", "metric"]
RECONSTRUCTION_METRICS = [
    "explained_variance",
    "fvu",
    "ce_loss_increase",
    "ce_loss_recovered_zero",
    "ce_loss_recovered_mean",
    "dead_fraction",
    "l0",
]
RECOVERY_METRICS = [
    "recovered_features",
    "recovered_features_weighted",
    "mean_matched_cosine_to_truth",
    "explained_variance",
    "explained_variance_faithful",
    "l0",
    "dead_fraction",
    "truly_fake_ratio",
    "truly_fake_external_ratio",
    "truly_fake_neither_ratio",
    "random_auroc",
    "contrast_auroc",
]
FOREIGN_METRICS = ["explained_variance", "ce_loss_increase"]
SUMMARY_SCHEMA = dict.fromkeys(GROUP, pl.String) | {
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "seeds": pl.Int64,
}
# The cosine of the headline Shared Feature Ratio (FaithfulSAE).
SHARED_THRESHOLD = 0.7
# The cosine with a known feature from which that feature counts as recovered.
RECOVERED_THRESHOLD = 0.9
LEVEL = 0.95  # of every interval


class Interval(NamedTuple):
    """Mean over seeds with a two-sided interval; low and high are NaN where seeds are too few."""

    mean: float
    low: float
    high: float
    seeds: int


def seed_interval(values: Mapping[int, float]) -> Interval:
    """Mean over seeds and its 95 % Student t interval, mean -+ t(n - 1) * sd / sqrt(n).

    values: seed -> number. One seed carries no information on its spread: low = high = NaN, as
    where a value is not finite.
    The interval ignores the range of the metric (a share may get a bound above 1).
    Raises ValueError for no seed.
    """
    return _jackknife_interval(
        values, lambda left_out: [v for seed, v in values.items() if seed != left_out]
    )


def pair_interval(pairs: Mapping[tuple[int, int], float]) -> Interval:
    """Mean over pairs of seeds and a 95 % interval that treats the SEED as the unit.

    Jackknife over seeds: U is the mean over pairs, U_-i that over the pairs without seed i, and
    se^2 = (n - 1)/n * sum_i (U_-i - mean(U_-i))^2; interval U -+ t(n - 1) * se. If a pair's
    value is mu + a_i + a_j + e_ij, that is exact for the seeds' effects a and errs on the wide
    side for the pairs' own noise e.

    pairs: (seed, seed_b) -> value; a seed paired with itself is left out. Fewer than three seeds,
    a seed in every pair, or a value that is not finite: low = high = NaN. Raises ValueError for no
    pair.
    """
    proper = {pair: value for pair, value in pairs.items() if pair[0] != pair[1]}
    return _jackknife_interval(
        {seed for pair in proper for seed in pair},
        lambda left_out: [value for pair, value in proper.items() if left_out not in pair],
    )


def _jackknife_interval(
    seeds: Iterable[int], values_without: Callable[[int | None], Sequence[float]]
) -> Interval:
    """Mean of `values_without(None)`; its spread from leaving out one seed after another."""
    units = sorted(seeds)
    n = len(units)
    if n == 0:
        raise ValueError("an interval over seeds needs at least one value, found none")
    mean = float(np.mean(values_without(None)))
    kept = [values_without(seed) for seed in units]
    if not all(kept) or not math.isfinite(mean):
        return Interval(mean, math.nan, math.nan, n)
    leave_one_out = np.array([np.mean(values) for values in kept])
    error = math.sqrt((n - 1) / n * np.sum((leave_one_out - leave_one_out.mean()) ** 2))
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * error
    return Interval(mean, mean - half, mean + half, n)


def summarise(
    reconstruction: pl.DataFrame | None,
    similarity: pl.DataFrame,
    fake_features: pl.DataFrame,
    frequency: float,
    min_activation: float,
    probing: pl.DataFrame | None = None,
    recovery: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """Headline metrics of a study, per model, hook, sae and corpus: metric, mean, low, high, seeds.

    Reconstruction on the SAE's own corpus, positions kept, and as `...:foreign` the mean over the
    study's other corpora: own corpora differ in how easy they are, so only the latter compares SAEs
    of different corpora; similarity within a corpus, shared at
    cosine 0.7; `mean_matched_cosine_above_null` subtracts the mean of the corpus' covariance null
    and takes it as known; fake features as the paper has them, on uniform ids at the study's
    `frequency` and `min_activation`; probes on
    all latents, one metric per task (`probing` is None in a study without tasks). A study of known
    features has a `recovery` (at cosine 0.9) and no `reconstruction`. A metric without
    rows (say, pairs in a one-seed study) is absent. Raises ValueError when a value occurs twice or
    the fake-feature cut was never measured.
    """
    fake = fake_features.filter(
        pl.col("metric") == "fake_feature_ratio",
        pl.col("random_input") == UNIFORM,
        close_to("frequency", frequency),
        absolute_cut(min_activation),
    )
    if fake.is_empty() and not fake_features.is_empty():
        raise ValueError(
            f"no fake_feature_ratio at frequency {frequency} and min_activation {min_activation}: "
            "add both to the grids that fake_features measures"
        )
    parts = [fake]
    if reconstruction is not None:
        parts += _own_and_foreign(reconstruction)
    if recovery is not None:
        at_cut = pl.col("threshold").is_null() | close_to("threshold", RECOVERED_THRESHOLD)
        parts.append(recovery.filter(pl.col("metric").is_in(RECOVERY_METRICS), at_cut))
    if probing is not None:
        probes = probing.filter(
            pl.col("features") == "latents", pl.col("k").is_null(), pl.col("metric") == "accuracy"
        )
        parts.append(probes.with_columns(metric=pl.format("probing_accuracy:{}", "task")))
    by_seed = pl.concat([table.select(*GROUP, "seed", "value") for table in parts])
    rows = _intervals(by_seed, ["seed"]) + _intervals(_pairs(similarity), ["seed", "seed_b"])
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA, orient="row").sort(GROUP)


def _own_and_foreign(reconstruction: pl.DataFrame) -> list[pl.DataFrame]:
    """Reconstruction of the SAE's own corpus, and the mean over the others as `...:foreign`."""
    kept = reconstruction.filter(pl.col("positions") == "kept")
    is_own = pl.col("corpus") == pl.col("eval_corpus")
    own = kept.filter(is_own, pl.col("metric").is_in(RECONSTRUCTION_METRICS))
    foreign = (
        kept.filter(~is_own, pl.col("metric").is_in(FOREIGN_METRICS))
        .group_by(*GROUP, "seed")
        .agg(pl.col("value").mean())
        .with_columns(metric=pl.format("{}:foreign", "metric"))
    )
    return [own, foreign]


def close_to(column: str, value: float) -> pl.Expr:
    """Rows at a grid value; grids are written in decimals, so equality would be too strict."""
    return (pl.col(column) - value).abs() < 1e-9


def absolute_cut(min_activation: float) -> pl.Expr:
    """Fake features of latents above this activation, not above a quantile of their own."""
    return (pl.col("cut") == "absolute") & close_to("level", min_activation)


def _pairs(similarity: pl.DataFrame) -> pl.DataFrame:
    """Pair values within a corpus, under the names of the summary."""
    within = similarity.filter(pl.col("corpus") == pl.col("corpus_b"))
    cosine = pl.col("metric") == "mean_matched_cosine"
    shared = (pl.col("metric") == "shared_feature_ratio") & close_to("threshold", SHARED_THRESHOLD)
    place = ["model", "hook", "sae", "corpus"]
    null = (
        within.filter(cosine, pl.col("null") == "covariance", pl.col("latents") == "all")
        .group_by(place)
        .agg(null_value=pl.col("value").mean())
    )
    pairs = within.filter(pl.col("null") == "none")
    every = pairs.filter(pl.col("latents") == "all")
    above = every.filter(cosine).join(null, on=place)
    frames = [
        every.filter(shared | cosine),
        pairs.filter(shared, pl.col("latents") == "alive").with_columns(
            metric=pl.lit("shared_feature_ratio_alive")
        ),
        above.with_columns(
            metric=pl.lit("mean_matched_cosine_above_null"),
            value=pl.col("value") - pl.col("null_value"),
        ),
    ]
    return pl.concat([frame.select(*GROUP, "seed", "seed_b", "value") for frame in frames])


def _intervals(table: pl.DataFrame, unit: list[str]) -> list[tuple[str | float, ...]]:
    """One summary row per group; `unit` is the seed column, or the two of a pair."""
    repeated = table.filter(table.select(*GROUP, *unit).is_duplicated())
    if not repeated.is_empty():
        raise ValueError(
            f"several values for {repeated.select(*GROUP, *unit).row(0, named=True)}: "
            "gather every table once"
        )
    rows: list[tuple[str | float, ...]] = []
    for group, part in table.group_by(GROUP):
        if len(unit) == 1:
            interval = seed_interval(dict(part.select("seed", "value").iter_rows()))
        else:
            values = part.select("seed", "seed_b", "value").iter_rows()
            interval = pair_interval({(a, b): value for a, b, value in values})
        rows.append((*group, *interval))
    return rows
