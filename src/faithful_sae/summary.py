"""What a study found: means and intervals, differences between corpora, doses, claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import polars as pl

from faithful_sae.claims import claims
from faithful_sae.comparisons import differences, dose_response, paired_differences
from faithful_sae.ground_truth import ground_truth
from faithful_sae.headline import GROUP, Headline, headline
from faithful_sae.statistics import pair_interval, seed_interval

SUMMARY_SCHEMA = dict.fromkeys(GROUP, pl.String) | {
    "mean": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "seeds": pl.Int64,
}
NO_STATISTICS = pl.DataFrame(
    schema=dict.fromkeys(["model", "corpus", "metric"], pl.String) | {"value": pl.Float64}
)


def summarise(
    tables: Mapping[str, pl.DataFrame],
    texts: Mapping[str, Sequence[str]],
    models: Sequence[str],
    saes: Sequence[str],
    frequency: float,
    min_activation: float,
) -> dict[str, pl.DataFrame]:
    """Tables made from a study's gathered `tables`, by name.

    summary: mean and 95 % interval over seeds of every headline metric (`headline.headline`).
    differences, dose_response, claims, and for known features ground_truth: see the functions of
    these names.

    texts: corpus -> the outside texts it holds; the first is the reference, with which the others
    are compared.  models, saes: those that claims are about, that is no controls.
    """
    values = headline(tables, texts, frequency, min_activation)
    reference = next(iter(texts))
    paired = paired_differences(values, reference)
    means, each = summary(values), differences(paired)
    response = dose_response(means, tables.get("corpus_statistics", NO_STATISTICS))
    known = {"ground_truth": ground_truth(tables, min_activation)} if "recovery" in tables else {}
    outside = [corpus for corpus, held in texts.items() if held and corpus != reference]
    return {
        "summary": means,
        "differences": each,
        "dose_response": response,
        "claims": claims(paired, each, response, outside, models, saes),
    } | known


def summary(values: Headline) -> pl.DataFrame:
    """Mean over seeds and its interval: per model, hook, sae and corpus, metric, mean, low, high,
    seeds. A metric without rows (say, pairs in a one-seed study) is absent.
    """
    rows: list[tuple[str | float, ...]] = []
    for group, part in values.by_seed.group_by(GROUP):
        rows.append((*group, *seed_interval(dict(part.select("seed", "value").iter_rows()))))
    for group, part in values.by_pair.group_by(GROUP):
        pairs = part.select("seed", "seed_b", "value").iter_rows()
        rows.append((*group, *pair_interval({(a, b): value for a, b, value in pairs})))
    return pl.DataFrame(rows, schema=SUMMARY_SCHEMA, orient="row").sort(GROUP)
