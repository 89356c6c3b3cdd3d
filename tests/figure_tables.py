"""Tables that figures are drawn from in tests."""

import math
from functools import cache
from itertools import combinations, product

import polars as pl

from faithful_sae.random_inputs import RANDOM_INPUTS
from faithful_sae.summary import summarise

CORPORA = ["faithful", "code"]
SEEDS = [0, 1, 2]
PLACE = {"model": "m", "hook": "resid_pre.1", "sae": "topk"}
CUT = {"min_activation": 1.0, "frequency": 0.1}
GRID = [0.01, 0.1]


def tidy_table(rows, columns, **place):
    return pl.DataFrame(rows, schema=columns, orient="row").with_columns(
        **{name: pl.lit(value) for name, value in (place or PLACE).items()}
    )


def level_of(corpus):
    return 0.2 + 0.3 * CORPORA.index(corpus)


def weights_of(*kinds):
    return [(metric, kind) for kind in kinds for metric in ("shared_feature_ratio", COSINE)]


COSINE = "mean_matched_cosine"
WEIGHTS = weights_of("all", "alive", "firing_weighted")
AGREEMENT = [("encoder_decoder_agreement", "all"), ("encoder_decoder_agreement", "alive")]
ACTIVATIONS = [
    ("correlated_feature_ratio", "alive"),
    ("mean_matched_correlation", "alive"),
    ("correlation_of_matched", "alive"),
]
CKA = [("contribution_cka", "matched"), ("contribution_cka", "unmatched")]
CURVES = {"shared_feature_ratio", "correlated_feature_ratio"}  # at every threshold
# Null -> its metrics, a share of latents, a mean.
SIMILARITY = {
    "none": ([*WEIGHTS, *AGREEMENT, *ACTIVATIONS, *CKA], None, 0.8),
    "covariance": (weights_of("all"), 0.11, 0.22),
    "untrained": ([*WEIGHTS, *AGREEMENT, *ACTIVATIONS], 0.05, 0.1),
    "permuted": ([*WEIGHTS, *ACTIVATIONS, *CKA], 0.01, 0.02),
}
MORE = {"alive": 0.1, "firing_weighted": 0.2, "matched": 0.3, "unmatched": 0.2}  # than "all"


def similarity(seeds=SEEDS):
    """As the library writes it: nulls for each pair; one seed is paired with itself for them."""
    rows = []
    pairs = list(combinations(seeds, 2)) or [(seeds[0], seeds[0])]
    for corpus, (a, b), null in product(CORPORA, pairs, SIMILARITY):
        if a == b and null in ("none", "permuted"):
            continue
        metrics, share, mean = SIMILARITY[null]
        for metric, latents in metrics:
            for threshold in (0.5, 0.7) if metric in CURVES else (0.7,):
                value = share
                if null == "none":
                    value = (
                        level_of(corpus) + 0.01 * (a + b) + 0.7 - threshold + MORE.get(latents, 0)
                    )
                if metric.startswith(("mean", "correlation_")):
                    threshold, value = None, mean
                rows.append((corpus, a, b, null, latents, metric, threshold, value))
    columns = ["corpus", "seed", "seed_b", "null", "latents", "metric", "threshold", "value"]
    table = tidy_table(rows, columns).with_columns(corpus_b="corpus")
    # A row between corpora: no figure here may count it as a pair of seeds.
    between = table.filter(metric="shared_feature_ratio", latents="all", threshold=0.7)[:1]
    between = between.with_columns(
        corpus=pl.lit("faithful"), corpus_b=pl.lit("code"), null=pl.lit("none"), value=pl.lit(0.99)
    )
    return pl.concat([table, between])


def reconstruction(seeds=SEEDS):
    rows = [
        (
            corpus,
            seed,
            evaluated,
            positions,
            metric,
            value + 0.1 * seed + 0.5 * (positions == "all"),
        )
        for corpus in CORPORA
        for evaluated in CORPORA
        for seed in seeds
        for positions in ("kept", "all")
        for metric, value in [
            ("ce_loss_increase", 1 + level_of(corpus) + 3 * (corpus != evaluated)),
            ("mse", 150 + level_of(corpus)),
            ("explained_variance", level_of(evaluated)),
        ]
    ]
    return tidy_table(rows, ["corpus", "seed", "eval_corpus", "positions", "metric", "value"])


def fake_features(seeds=SEEDS, ceiling=0.5):
    """The paper's ratio rises with the corpus; other inputs and cuts have values of their own."""
    rows = []
    for corpus, seed, frequency in product(CORPORA, seeds, GRID):
        rows.append((corpus, seed, None, None, None, frequency, "fake_feature_ceiling",
                     min(1.0, ceiling * 0.1 / frequency)))  # fmt: skip
        paper = level_of(corpus) / 2 + 0.01 * seed - frequency
        for cut, level, other in [
            ("absolute", 0.0, 0.31),
            ("absolute", 1.0, 0.0),
            ("absolute", 2.0, -0.005),
            ("own_quantile", 0.5, 0.21),
            ("own_quantile", 0.9, 0.11),
        ]:
            at = (cut, level, frequency)
            rows.append((corpus, seed, None, *at, "dense_feature_ratio", 0.3 + other))
            for name, value in zip(RANDOM_INPUTS, (paper, 0.12, 0.14), strict=True):
                rows.append((corpus, seed, name, *at, "fake_feature_ratio", value + other))
                rows.append((corpus, seed, name, *at, "fake_not_dense_ratio", 0.02 + other))
                rows.append((corpus, seed, name, *at, "contrast_ratio", math.nan))
    names = ["corpus", "seed", "random_input", "cut", "level", "frequency", "metric", "value"]
    return tidy_table(rows, names)


def firing(seeds=SEEDS):
    """Four latents on text and on each random input, by the lower edge of their bin."""
    latents = {
        None: {-1.5: 1, -0.5: 2, None: 1},
        RANDOM_INPUTS[0]: {None: 2, -2.75: 1, -1.75: 1},
        RANDOM_INPUTS[1]: {None: 3, -1.0: 1},
        RANDOM_INPUTS[2]: {-1.0: 4},
    }
    rows = [
        (corpus, seed, name, 1.0, edge, n)
        for corpus in CORPORA
        for seed in seeds
        for name, bins in latents.items()
        for edge, n in bins.items()
    ]
    names = ["random_input", "min_activation", "log10_frequency", "latents"]
    return tidy_table(rows, ["corpus", "seed", *names])


def probing(seeds=SEEDS):
    of_seeds = [
        (corpus, "topk", seed, features, k, value + 0.01 * seed)
        for corpus, kinds in [
            *((c, {"latents": 0.8, "reconstruction": 0.7}) for c in CORPORA),
            ("", {"random_dictionary": 0.65}),
        ]
        for seed in seeds
        for features, full in kinds.items()
        for k, value in [(None, full), (1, full - 0.2), (5, full - 0.1)]
        if k is None or features != "reconstruction"
    ]
    rows = [
        (*place, probe_seed, value + 0.02 * probe_seed)
        for *place, value in [
            *of_seeds,
            ("", "", None, "raw", None, 0.9),
            ("", "", None, "majority", None, 0.6),
        ]
        for probe_seed in (-1, 0, 1)  # so that the mean over them is the value
    ]
    columns = ["corpus", "sae", "seed", "features", "k", "probe_seed", "value"]
    place = {"model": "m", "hook": "resid_pre.1", "task": "spam", "metric": "accuracy"}
    return tidy_table(rows, columns, **place)


def first_tokens():
    texts = ["The", "\n", "$x$", "日本", *(f"t{i}" for i in range(10))]
    rows = [
        (corpus, i, text, 0.3 / (i + 1), 0.0 if text == "The" else 0.2 / (i + 1))
        for corpus in CORPORA
        for i, text in enumerate(texts)
    ]
    columns = ["corpus", "token", "text", "model_probability", "corpus_frequency"]
    return tidy_table(rows, columns, model="m")


def norms():
    rows = [(corpus, p, 9, 10.0, 20.0, 9e3 / (p + 1)) for corpus in CORPORA for p in range(6)]
    columns = ["corpus", "position", "tokens", "median_norm", "p95_norm", "max_norm"]
    return tidy_table(rows, columns, model="m", hook="resid_pre.1")


def training(seeds=SEEDS):
    rows = [
        (corpus, seed, 100 * step, level_of(corpus) / step + 0.01 * seed, 0.1 * seed)
        for corpus in CORPORA
        for seed in seeds
        for step in (1, 2, 3)
    ]
    return tidy_table(rows, ["corpus", "seed", "tokens", "fvu", "dead_fraction"])


def corpus_statistics(corpora=CORPORA):
    rows = [(corpus, "surprise_gap_settled", 0.5 * i) for i, corpus in enumerate(corpora)]
    return tidy_table(rows, ["corpus", "metric", "value"], model="m")


def summarised(made):
    texts = {"faithful": [], "code": ["code"]}
    return summarise(made, texts, ["m"], ["topk"], frequency=0.1, min_activation=1.0)


def recovery(seeds=SEEDS):
    rows = [
        (corpus, seed, metric, threshold, value + 0.01 * seed)
        for corpus in CORPORA
        for seed in seeds
        for metric, threshold, value in [
            ("recovered_features", 0.9, level_of(corpus) / 2),
            ("recovered_features", 0.7, 0.9),
            ("explained_variance", None, 0.9 - level_of(corpus)),
            ("truly_fake_ratio", None, 0.2),
            ("random_auroc", None, 0.6),
            ("contrast_auroc", None, 0.8),
        ]
    ]
    table = tidy_table(rows, ["corpus", "seed", "metric", "threshold", "value"])
    return table.with_columns(frequency=pl.lit(None, pl.Float64))


def ground_truth():
    rows = [
        (measure, frequency, truth, compared, value, value - 0.1, value + 0.1)
        for measure, frequency, truth in [
            ("shared_feature_ratio", None, "recovered_features"),
            ("shared_feature_ratio_alive", None, "recovered_features"),
            ("explained_variance", None, "recovered_features"),
            ("fake_feature_ratio", 0.1, "truly_fake_ratio"),
            ("fake_feature_ratio", 0.5, "truly_fake_ratio"),
        ]
        for compared, value in (("all", -0.33), ("corpora", 0.44), ("saes", 0.55))
    ]
    columns = ["measure", "frequency", "truth", "compared", "value", "low", "high"]
    return tidy_table(rows, columns, model="m", hook="resid_pre.1")


def summary_of_known(seeds=SEEDS):
    evaluations = {"similarity": similarity(seeds), "fake_features": fake_features(seeds)}
    return summarised({"recovery": recovery(seeds)} | evaluations)["summary"]


@cache
def tables(seeds=tuple(SEEDS)):
    made = {
        "similarity": similarity(seeds),
        "reconstruction": reconstruction(seeds),
        "fake_features": fake_features(seeds),
        "firing_histogram": firing(seeds),
        "probing": probing(seeds),
        "first_tokens": first_tokens(),
        "norms": norms(),
        "training": training(seeds),
        "corpus_statistics": corpus_statistics(),
    }
    made["ground_truth"] = ground_truth()
    made["known_summary"] = summary_of_known(seeds)
    return made | summarised(made)
