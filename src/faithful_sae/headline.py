"""The headline values of a study: what its tables say of each SAE, or of each pair of SAEs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import polars as pl

from faithful_sae.names import PRETRAINED
from faithful_sae.random_inputs import UNIFORM

PLACE = ["model", "hook", "sae"]
GROUP = [*PLACE, "corpus", "metric"]
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
REBUILT_METRICS = ["explained_variance", "mse", "ce_loss_increase"]
# The cosine of the headline Shared Feature Ratio (FaithfulSAE).
SHARED_THRESHOLD = 0.7
# The cosine with a known feature from which that feature counts as recovered.
RECOVERED_THRESHOLD = 0.9


_NAMES = dict.fromkeys(GROUP, pl.String)
BY_SEED = pl.DataFrame(schema=_NAMES | {"seed": pl.Int64, "value": pl.Float64})
BY_PAIR = pl.DataFrame(schema=_NAMES | {"seed": pl.Int64, "seed_b": pl.Int64, "value": pl.Float64})
REBUILT = pl.DataFrame(
    schema=_NAMES | {"eval_corpus": pl.String, "seed": pl.Int64, "value": pl.Float64}
)


class Headline(NamedTuple):
    """Values in tidy form, by what they belong to; `metric` as in the summary.

    by_seed: GROUP, seed, value.  by_pair: GROUP, seed, seed_b, value (pairs within a corpus).
    rebuilt: GROUP, eval_corpus, seed, value; reconstruction of each corpus's held-out text.
    foreign: those rows of it on an outside text that the SAE was not trained on.
    """

    by_seed: pl.DataFrame
    by_pair: pl.DataFrame
    rebuilt: pl.DataFrame
    foreign: pl.DataFrame


def headline(
    tables: Mapping[str, pl.DataFrame],
    texts: Mapping[str, Sequence[str]],
    frequency: float,
    min_activation: float,
) -> Headline:
    """Pick the headline values from a study's gathered tables, from those that it has.

    texts: corpus -> the outside texts that it holds: itself, those of a mixture, none where a model
    wrote it. Raises ValueError when a value occurs twice or the fake-feature cut was not measured.
    """
    own, by_pair = [], BY_PAIR.clear()
    rebuilt = foreign = REBUILT.clear()
    if "reconstruction" in tables:
        kept = tables["reconstruction"].filter(pl.col("positions") == "kept")
        own.append(
            kept.filter(
                pl.col("corpus") == pl.col("eval_corpus"),
                pl.col("metric").is_in(RECONSTRUCTION_METRICS),
            )
        )
        own.append(_each_text(kept))
        rebuilt = kept.filter(pl.col("metric").is_in(REBUILT_METRICS)).select(REBUILT.columns)
        foreign = _foreign(rebuilt, texts)
        own.append(_average(foreign.with_columns(metric=pl.format("{}:foreign", "metric"))))
    if "recovery" in tables:
        recovery = tables["recovery"].filter(pl.col("metric").is_in(RECOVERY_METRICS))
        at_cut = pl.col("threshold").is_null() | close_to("threshold", RECOVERED_THRESHOLD)
        own.append(recovery.filter(at_cut))
    if "fake_features" in tables:
        own += _fake(tables["fake_features"], frequency, min_activation)
    if "probing" in tables:
        own += _probing(tables["probing"])
    if "similarity" in tables:
        by_pair = _pairs(tables["similarity"])
    by_seed = pl.concat([BY_SEED.clear(), *(part.select(BY_SEED.columns) for part in own)])
    for table, unit in ((by_seed, ["seed"]), (by_pair, ["seed", "seed_b"])):
        _require_single(table, [*GROUP, *unit])
    return Headline(by_seed, by_pair, rebuilt, foreign)


def close_to(column: str, value: float) -> pl.Expr:
    """Rows at a grid value; grids are written in decimals, so equality would be too strict."""
    return (pl.col(column) - value).abs() < 1e-9


def over_probe_seeds(probing: pl.DataFrame) -> pl.DataFrame:
    """Probes averaged over `probe_seed`: one value per SAE seed, which stays the unit of intervals.

    Every SAE is probed on the documents of the same probe seeds, so these are repeats, not units.
    Raises ValueError when a probe seed occurs twice.
    """
    place = [name for name in probing.columns if name not in ("probe_seed", "value")]
    repeated = probing.filter(probing.select(pl.exclude("value")).is_duplicated())
    if not repeated.is_empty():
        raise ValueError(
            f"several values for {repeated.drop('value').row(0, named=True)}: "
            "gather every table once"
        )
    return probing.group_by(place, maintain_order=True).agg(pl.col("value").mean())


def absolute_cut(min_activation: float) -> pl.Expr:
    """Fake features of latents above this activation, not above a quantile of their own."""
    return (pl.col("cut") == "absolute") & close_to("level", min_activation)


def _foreign(rebuilt: pl.DataFrame, texts: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Rows on outside texts that the SAE was not trained on: each is as new to it as the others."""
    outside = [corpus for corpus, held in texts.items() if list(held) == [corpus]]
    seen = pl.DataFrame(
        [(corpus, text) for corpus, held in texts.items() for text in held],
        schema={"corpus": pl.String, "eval_corpus": pl.String},
        orient="row",
    )
    on_outside = rebuilt.filter(pl.col("eval_corpus").is_in(outside))
    return on_outside.join(seen, on=["corpus", "eval_corpus"], how="anti")


def _each_text(kept: pl.DataFrame) -> pl.DataFrame:
    """Metrics of pretrained SAEs, which have no own corpus, on each text under its name."""
    return kept.filter(
        pl.col("corpus") == PRETRAINED, pl.col("metric").is_in(RECONSTRUCTION_METRICS)
    ).with_columns(metric=pl.format("{}:on_{}", "metric", "eval_corpus"))


def _average(table: pl.DataFrame) -> pl.DataFrame:
    """One value for every SAE and metric: the mean over texts, tasks or probe seeds."""
    return table.group_by(*GROUP, "seed").agg(pl.col("value").mean())


def _fake(table: pl.DataFrame, frequency: float, min_activation: float) -> list[pl.DataFrame]:
    """The paper's ratio, and beside it what one at a time of its choices does to it."""
    at = table.filter(close_to("frequency", frequency))
    paper_cut = absolute_cut(min_activation)
    ratio = pl.col("metric") == "fake_feature_ratio"
    paper = at.filter(paper_cut, pl.col("random_input") == UNIFORM)
    if paper.is_empty() and not table.is_empty():
        raise ValueError(
            f"no fake_feature_ratio at frequency {frequency} and min_activation {min_activation}: "
            "add both to the grids that fake_features measures"
        )
    return [
        paper.filter(pl.col("metric").is_in(["fake_feature_ratio", "fake_not_dense_ratio"])),
        at.filter(paper_cut, ratio, pl.col("random_input") != UNIFORM).with_columns(
            metric=pl.format("fake_feature_ratio:{}", "random_input")
        ),
        at.filter(
            pl.col("cut") != "absolute", ratio, pl.col("random_input") == UNIFORM
        ).with_columns(metric=pl.format("fake_feature_ratio:{}_{}", "cut", "level")),
    ]


def _probing(table: pl.DataFrame) -> list[pl.DataFrame]:
    """Accuracy on all latents, by task and over tasks, and that of k-sparse probes over tasks."""
    accuracy = over_probe_seeds(table).filter(
        pl.col("features") == "latents", pl.col("metric") == "accuracy"
    )
    full = accuracy.filter(pl.col("k").is_null())
    sparse = accuracy.filter(pl.col("k").is_not_null())
    return [
        _average(full.with_columns(metric=pl.format("probing_accuracy:{}", "task"))),
        _average(full.with_columns(metric=pl.lit("probing_accuracy"))),
        _average(sparse.with_columns(metric=pl.lit("sparse_probing_accuracy"))),
    ]


def _pairs(similarity: pl.DataFrame) -> pl.DataFrame:
    """Pair values within a corpus, under the names of the summary."""
    within = similarity.filter(pl.col("corpus") == pl.col("corpus_b"))
    cosine = pl.col("metric") == "mean_matched_cosine"
    shared = (pl.col("metric") == "shared_feature_ratio") & close_to("threshold", SHARED_THRESHOLD)
    place = [*PLACE, "corpus"]
    null = (
        within.filter(cosine, pl.col("null") == "covariance", pl.col("latents") == "all")
        .group_by(place)
        .agg(null_value=pl.col("value").mean())
    )
    pairs = within.filter(pl.col("null") == "none")
    every = pairs.filter(pl.col("latents") == "all")
    frames = [
        every.filter(
            shared | cosine | (pl.col("metric") == "encoder_decoder_agreement"),
        ),
        pairs.filter(shared, pl.col("latents") != "all").with_columns(
            metric=pl.format("shared_feature_ratio_{}", "latents")
        ),
        pairs.filter(pl.col("metric") == "mean_matched_correlation"),
        every.filter(cosine)
        .join(null, on=place)
        .with_columns(
            metric=pl.lit("mean_matched_cosine_above_null"),
            value=pl.col("value") - pl.col("null_value"),
        ),
    ]
    return pl.concat([frame.select(BY_PAIR.columns) for frame in frames])


def _require_single(table: pl.DataFrame, key: list[str]) -> None:
    repeated = table.filter(table.select(key).is_duplicated())
    if not repeated.is_empty():
        raise ValueError(
            f"several values for {repeated.select(key).row(0, named=True)}: gather every table once"
        )
