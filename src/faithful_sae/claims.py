"""The paper's claims, each with our estimate, its interval and a verdict.

FaithfulSAE (Cho et al. 2025) claims of SAEs trained on the model's own text that more of their
latents are shared across seeds than with instruction data sets, that in five of seven models fewer
are fake than with web text, that they probe better, and that they rebuild other data sets with less
loss. Here each claim is put to every outside text of a study, by the paper's own metric and by ones
that answer an objection to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import polars as pl
from scipy.stats import binomtest

from faithful_sae.comparisons import Differences, intervals

SIGNIFICANCE = 0.05


class Claim(NamedTuple):
    """`metric` of the reference corpus is higher (sign 1) or lower (-1) than outside text's."""

    claim: str
    definition: str  # "paper", or what ours changes
    metric: str
    sign: int


CLAIMS = [
    Claim("shared across seeds", "paper", "shared_feature_ratio", 1),
    Claim("shared across seeds", "above the null", "mean_matched_cosine_above_null", 1),
    Claim("shared across seeds", "by firing", "shared_feature_ratio_firing_weighted", 1),
    Claim("fewer fake features", "paper", "fake_feature_ratio", -1),
    Claim("fewer fake features", "not dense on text", "fake_not_dense_ratio", -1),
    Claim("fewer fake features", "scale-free cut", "fake_feature_ratio:own_quantile_0.5", -1),
    Claim("better probes", "paper", "probing_accuracy", 1),
    Claim("better probes", "sparse", "sparse_probing_accuracy", 1),
    Claim("closer to the model", "paper: CE difference", "ce_loss_increase:foreign", -1),
    Claim("closer to the model", "paper: L2", "mse:foreign", -1),
    Claim("closer to the model", "share of variance", "explained_variance:foreign", 1),
    # On foreign text any broad corpus may win; here a mixture of all outside texts competes too.
    Claim("closer to the model", "on both texts: CE", "ce_loss_increase:both", -1),
    Claim("closer to the model", "on both texts: variance", "explained_variance:both", 1),
]
# Claims on the order of all corpora: the metric falls (-1) or rises (1) with the dose.
DOSE_CLAIMS = [
    Claim("less surprising, more shared", "paper", "shared_feature_ratio", -1),
    Claim("less surprising, more shared", "above the null", "mean_matched_cosine_above_null", -1),
    Claim("less surprising, fewer fake", "paper", "fake_feature_ratio", 1),
]
DOSE = "surprise_distance"
TABLE = {
    "claim": pl.String,
    "definition": pl.String,
    "metric": pl.String,
    "expected": pl.String,
    "model": pl.String,
    "hook": pl.String,
    "sae": pl.String,
    "estimate": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "seeds": pl.Int64,
    "effect_size": pl.Float64,
    "p": pl.Float64,
    "texts": pl.Int64,
    "texts_for": pl.Int64,
    "texts_against": pl.Int64,
    "texts_agreeing": pl.Int64,
    "p_texts": pl.Float64,
    "verdict": pl.String,
}


def claims(
    paired: Differences,
    differences: pl.DataFrame,
    dose_response: pl.DataFrame,
    outside: Sequence[str],
    models: Sequence[str],
    saes: Sequence[str],
) -> pl.DataFrame:
    """One row per claim, definition, model, hook and SAE.

    outside: the outside corpora that the reference is compared with; models, saes: those studied
    (controls say nothing on a claim).  estimate: the difference, reference minus outside, averaged
    over the outside texts, with the interval over seeds; for claims on the order of the corpora,
    the Spearman correlation with the surprise gap.  texts_for, texts_against: outside texts on
    whose comparison alone the difference is significant (p_adjusted < 0.05) in the claimed or in
    the other direction.  texts_agreeing: those whose difference, sure or not, has the claimed sign.
    p_texts: exact two-sided sign test of them. The intervals are over seeds and speak of these
    texts alone; this asks whether other texts would do the same. Below 0.05 takes six of six.

    verdict: "does not" where the interval lies on the other side. One text against is enough
    against a claim on outside text as such: "mixed" where the interval lies on the claimed side
    nonetheless. Else "holds" where it lies there, else "undecided"; that also where all seeds
    differ alike (shares of few latents do): no spread is seen to judge by. With several models a
    row of model "all" has the share of models on the claimed side (their mean over hooks and SAEs),
    with its exact interval and the p of a sign test.
    """
    studied = pl.col("model").is_in(models) & pl.col("sae").is_in(saes)
    against = studied & pl.col("corpus_b").is_in(outside)
    chosen = Differences(paired.by_seed.filter(against), paired.by_pair.filter(against))
    rows = [
        *_difference_rows(_over_texts(chosen), differences.filter(against)),
        *_dose_rows(dose_response.filter(studied, pl.col("dose") == DOSE)),
    ]
    table = pl.DataFrame(rows, schema=TABLE, orient="row")
    return pl.concat([table, pl.DataFrame(list(_over_models(table)), schema=TABLE)])


def _over_texts(paired: Differences) -> Differences:
    """Differences averaged over the outside texts, seed by seed."""
    place = ["model", "hook", "sae", "metric"]
    return Differences(
        *(
            table.group_by(*place, *unit, maintain_order=True).agg(pl.col("value").mean())
            for table, unit in ((paired.by_seed, ["seed"]), (paired.by_pair, ["seed", "seed_b"]))
        )
    )


def _difference_rows(mean: Differences, each: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    estimates = dict(intervals(mean, ["metric", "model", "hook", "sae"]))
    for claim in CLAIMS:
        for (metric, *place), interval in sorted(estimates.items()):
            if metric != claim.metric:
                continue
            texts = each.filter(
                pl.col("metric") == metric,
                *(pl.col(k) == v for k, v in zip(("model", "hook", "sae"), place, strict=True)),
            )
            sure = texts.filter(pl.col("p_adjusted") < SIGNIFICANCE)["mean"] * claim.sign
            with_it, against = int((sure > 0).sum()), int((sure < 0).sum())
            agreeing, p_texts = _sign_test(texts["mean"] * claim.sign)
            yield (
                claim.claim,
                claim.definition,
                metric,
                _expected(claim),
                *place,
                *interval,
                interval.effect_size,
                interval.p,
                texts.height,
                with_it,
                against,
                agreeing,
                p_texts,
                _verdict(interval.low, interval.high, claim.sign, against)
                if interval.low < interval.high
                else "undecided",
            )


def _dose_rows(table: pl.DataFrame) -> Iterator[tuple[Any, ...]]:
    for claim in DOSE_CLAIMS:
        for row in table.filter(pl.col("metric") == claim.metric).iter_rows(named=True):
            yield (
                claim.claim,
                claim.definition,
                claim.metric,
                "falls" if claim.sign < 0 else "rises",
                row["model"],
                row["hook"],
                row["sae"],
                row["spearman"],
                row["low"],
                row["high"],
                None,
                None,
                row["p"],
                row["corpora"],
                None,
                None,
                None,
                None,
                _verdict(row["low"], row["high"], claim.sign, against=0),
            )


def _sign_test(differences: pl.Series) -> tuple[int, float]:
    """How many differences are above 0, and the exact two-sided p; ties and NaN are left out."""
    known = differences.drop_nans()  # polars holds NaN to be above every number
    above, below = int((known > 0).sum()), int((known < 0).sum())
    p = float(binomtest(above, above + below).pvalue) if above + below else math.nan
    return above, p


def _expected(claim: Claim) -> str:
    return "higher" if claim.sign > 0 else "lower"


def _verdict(low: float, high: float, sign: int, against: int) -> str:
    nearest, farthest = sorted((sign * low, sign * high))
    if farthest < 0:
        return "does not"
    if nearest > 0:
        return "mixed" if against else "holds"
    return "undecided"


def _over_models(table: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Sign tests: in how many models a claim's estimate has the claimed sign.

    A model without an estimate (every corpus has no fake latent: no correlation) is not counted.
    """
    for claim in [*CLAIMS, *DOSE_CLAIMS]:
        means = (
            table.filter(pl.col("claim") == claim.claim, pl.col("definition") == claim.definition)
            .filter(pl.col("estimate").is_finite())
            .group_by("model")
            .agg(pl.col("estimate").mean())
        )
        if means.height < 2:
            continue
        agreeing = int((means["estimate"] * claim.sign > 0).sum())
        test = binomtest(agreeing, means.height)
        span = test.proportion_ci(0.95)
        place = {"model": "all", "hook": "all", "sae": "all"}
        yield {
            "claim": claim.claim,
            "definition": claim.definition,
            "metric": claim.metric,
            "expected": "most models",
            "estimate": agreeing / means.height,
            "low": float(span.low),
            "high": float(span.high),
            "p": float(test.pvalue),
            "verdict": _verdict(span.low - 0.5, span.high - 0.5, sign=1, against=0),
        } | place
