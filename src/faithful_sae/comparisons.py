"""SAEs of one corpus beside those of others: paired differences, and responses to a dose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from scipy.stats import false_discovery_control

from faithful_sae.headline import PLACE, Headline
from faithful_sae.statistics import Interval, pair_interval, seed_interval, spearman

COMPARISON = [*PLACE, "metric", "corpus", "corpus_b"]
DIFFERENCES = dict.fromkeys(COMPARISON, pl.String) | {
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "seeds": pl.Int64,
    "effect_size": pl.Float64,
    "p": pl.Float64,
}
# How far a corpus is from what the model would write, as corpus_statistics.py measures it.
DOSES = ["surprise_distance", "nll"]
RESPONSES = [
    "shared_feature_ratio",
    "mean_matched_cosine_above_null",
    "fake_feature_ratio",
    "fake_not_dense_ratio",
    "ce_loss_increase",
    "ce_loss_increase:foreign",
    "explained_variance:foreign",
    "probing_accuracy",
]
DOSE_RESPONSE = dict.fromkeys([*PLACE, "metric", "dose"], pl.String) | {
    "spearman": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p": pl.Float64,
    "corpora": pl.Int64,
}


class Differences(NamedTuple):
    """Values of a reference corpus minus those of every other, equal seeds paired.

    by_seed: COMPARISON, seed, value.  by_pair: COMPARISON, seed, seed_b, value.
    """

    by_seed: pl.DataFrame
    by_pair: pl.DataFrame


def paired_differences(values: Headline, reference: str) -> Differences:
    """Differences, reference minus other corpus, of every headline metric.

    Equal seeds share their initial weights, so that what these do to a metric cancels. Metrics on
    foreign text are compared on the texts that are foreign to both corpora alone; those of name
    ":both" on the held-out texts of the two corpora, averaged: each SAE is at home on one and away
    on the other, however easy these are. A mixture of all outside texts has no foreign ones.
    """
    place = [*COMPARISON, "seed"]
    foreign = _paired(values.foreign, reference, ["eval_corpus", "seed"])
    common = foreign.group_by(place, maintain_order=True).agg(pl.col("value").mean())
    rebuilt = _paired(values.rebuilt, reference, ["eval_corpus", "seed"])
    home_or_away = (pl.col("eval_corpus") == reference) | (
        pl.col("eval_corpus") == pl.col("corpus_b")
    )
    both = (
        rebuilt.filter(home_or_away)
        .group_by(place, maintain_order=True)
        .agg(pl.col("value").mean(), texts=pl.len())
        .filter(pl.col("texts") == 2)
        .drop("texts")
    )
    own = values.by_seed.filter(~pl.col("metric").str.ends_with(":foreign"))
    return Differences(
        by_seed=pl.concat(
            [
                _paired(own, reference, ["seed"]),
                common.with_columns(metric=pl.format("{}:foreign", "metric")),
                both.with_columns(metric=pl.format("{}:both", "metric")),
            ],
            how="diagonal",
        ),
        by_pair=_paired(values.by_pair, reference, ["seed", "seed_b"]),
    )


def _paired(table: pl.DataFrame, reference: str, unit: list[str]) -> pl.DataFrame:
    mine = table.filter(pl.col("corpus") == reference)
    others = table.filter(pl.col("corpus") != reference)
    both = mine.join(others, on=[*PLACE, "metric", *unit], suffix="_b")
    # Sorted, because the order of a join's rows would move the last bit of means over them.
    return both.select(*COMPARISON, *unit, value=pl.col("value") - pl.col("value_b")).sort(
        *COMPARISON, *unit
    )


def intervals(differences: Differences, by: list[str]) -> list[tuple[tuple[str, ...], Interval]]:
    """Interval over seeds for each combination of `by`, which with the seeds must be unique."""
    found = []
    for key, part in differences.by_seed.group_by(by):
        found.append((key, seed_interval(dict(part.select("seed", "value").iter_rows()))))
    for key, part in differences.by_pair.group_by(by):
        rows = part.select("seed", "seed_b", "value").iter_rows()
        found.append((key, pair_interval({(a, b): value for a, b, value in rows})))
    return found


def differences(paired: Differences) -> pl.DataFrame:
    """Each difference with its 95 % interval over seeds, effect size and p.

    effect_size: Cohen's d_z, in standard deviations of the seeds' differences.  p: two-sided, of
    no difference.  p_adjusted: corrected for all comparisons in the same metric (Benjamini &
    Hochberg 1995): among those called different at 0.05, one in twenty is expected to be wrong. Not
    for those of the study at once: the clear-cut ones of other metrics would let nearly all pass.
    NaN where seeds are too few. An interval speaks of these texts: it covers the choice of the
    seed, not that of the text.
    """
    rows = [
        (*key, *interval, interval.effect_size, interval.p)
        for key, interval in intervals(paired, COMPARISON)
    ]
    table = pl.DataFrame(rows, schema=DIFFERENCES, orient="row").sort(COMPARISON)
    return table.with_columns(p_adjusted=_adjusted().over("metric"))


def _adjusted() -> pl.Expr:
    def adjust(p: pl.Series) -> pl.Series:
        values = p.to_numpy().copy()
        known = np.isfinite(values)
        if known.any():
            values[known] = false_discovery_control(values[known])
        return pl.Series(values, dtype=pl.Float64)

    return pl.col("p").map_batches(adjust, return_dtype=pl.Float64)


def corpus_doses(corpus_statistics: pl.DataFrame) -> pl.DataFrame:
    """DOSES of every corpus: columns model, corpus, dose, amount (nats per token)."""
    return corpus_statistics.select(
        "model",
        "corpus",
        dose=pl.col("metric").replace("surprise_gap_settled", "surprise_distance"),
        amount=pl.when(pl.col("metric") == "surprise_gap_settled")
        .then(pl.col("value").abs())
        .otherwise("value"),
    ).filter(pl.col("dose").is_in(DOSES))


def dose_response(summary: pl.DataFrame, corpus_statistics: pl.DataFrame) -> pl.DataFrame:
    """Spearman correlation over corpora of headline metrics with how surprising a corpus is.

    Doses: surprise_distance, the settled surprise gap without its sign, since text that is likelier
    than what the model would write is no more its own; and the negative log-likelihood, nll.
    One row per model, hook, SAE, metric and dose, where there are three corpora or more. The
    corpora are the points: an interval over so few is wide, and they were chosen, not drawn.
    """
    points = (
        summary.filter(pl.col("metric").is_in(RESPONSES), pl.col("mean").is_finite())
        .join(corpus_doses(corpus_statistics), on=["model", "corpus"])
        .sort("corpus")
    )
    rows = []
    for key, part in points.group_by(*PLACE, "metric", "dose", maintain_order=True):
        if part.height > 2:
            rows.append((*key, *spearman(part["amount"].to_list(), part["mean"].to_list())))
    return pl.DataFrame(rows, schema=DOSE_RESPONSE, orient="row").sort([*PLACE, "metric", "dose"])
