"""The README's numbers are those of the committed tables (run as a script, prints them)."""

import math
import re
import sys
from pathlib import Path

import polars as pl
import pytest
import yaml

ROOT = Path(__file__).parents[1]
STUDIES = [f"workflow/studies/{path.name}" for path in ROOT.glob("workflow/studies/*.yaml")]
TABLES = ROOT / "results" / "demo" / "tables"
CORPORA = ["faithful", "wikipedia", "dialogue", "code"]
GAPS = {
    "surprise_gap": "surprise gap of the corpus (nats/token)",
    "surprise_gap_settled": "the same from position 32 on",
}
SUMMARY = {
    "explained_variance": "explained variance, own text",
    "explained_variance:foreign": "explained variance, foreign text",
    "ce_loss_increase": "CE loss increase, own text (nats/token)",
    "ce_loss_increase:foreign": "CE loss increase, foreign text",
    "shared_feature_ratio": "shared feature ratio (cosine > 0.7)",
    "mean_matched_cosine": "mean matched cosine",
    "mean_matched_cosine_above_null": "mean matched cosine - covariance null",
    "shared_feature_ratio_firing_weighted": "shared feature ratio, by firing",
    "mean_matched_correlation": "mean matched correlation of activations",
    "fake_feature_ratio": "fake feature ratio",
    "fake_not_dense_ratio": "of these not dense on text",
    "probing_accuracy:sentiment": "probing accuracy, sentiment",
    "probing_accuracy:question": "probing accuracy, question type",
    "probing_accuracy:spam": "probing accuracy, spam",
    "probing_accuracy:swapped-words": "probing accuracy, swapped words",
}


REFERENCE = {  # of the reference study: rows are corpora, columns are these
    "explained_variance:foreign": "EV foreign",
    "ce_loss_increase:foreign": "CE foreign",
    "shared_feature_ratio": "SFR",
    "mean_matched_cosine_above_null": "cosine - null",
    "fake_feature_ratio": "FFR",
    "probing_accuracy": "probing",
}


CONTROLS = {  # of the study of controls: values, and faithful's minus the row's
    "explained_variance:foreign": "EV foreign",
    "shared_feature_ratio": "SFR",
    "mean_matched_cosine_above_null": "cosine - null",
    "fake_feature_ratio": "FFR",
}
LEADS = {
    "explained_variance:foreign": "EV on texts foreign to both",
    "ce_loss_increase:foreign": "CE there",
    "explained_variance:both": "home and away",
}


def number(mean: float, half: float, digits: int = 3) -> str:
    return f"{mean:.{digits}f} ± {half:.{digits}f}"


def readme_table() -> list[str]:
    """Lines of the README's table of results."""
    statistics = pl.read_csv(TABLES / "corpus_statistics.csv")
    value = {(c, m): v for _, c, m, v in statistics.iter_rows()}
    rows = []
    for metric, label in GAPS.items():
        cells = [number(value[c, metric], 1.96 * value[c, f"{metric}_stderr"]) for c in CORPORA]
        rows.append((label, cells))
    summary = pl.read_csv(TABLES / "summary.csv")
    for metric, label in SUMMARY.items():
        cells = []
        for corpus in CORPORA:
            row = summary.row(
                by_predicate=(pl.col("metric") == metric) & (pl.col("corpus") == corpus),
                named=True,
            )
            cells.append(number(row["mean"], (row["high"] - row["low"]) / 2))
        rows.append((label, cells))
    head = [f"| SAEs trained on | {' | '.join(CORPORA)} |", "| --- |" + " --- |" * len(CORPORA)]
    return head + [f"| {label} | {' | '.join(cells)} |" for label, cells in rows]


def reference_table() -> list[str]:
    """Lines of the README's table of the reference study: the later hook, the narrower SAE."""
    folder = ROOT / "results/smollm2/tables"
    place = {"model": "smollm2", "hook": "resid_pre.22", "sae": "topk"}
    there = [pl.col(name) == value for name, value in place.items()]
    summary = pl.read_csv(folder / "summary.csv").filter(there)
    rebuilt = pl.read_csv(folder / "reconstruction.csv").filter(
        *there,
        pl.col("eval_corpus") == "faithful",
        pl.col("positions") == "kept",
        pl.col("metric") == "explained_variance",
    )
    statistics = pl.read_csv(folder / "corpus_statistics.csv").filter(pl.col("model") == "smollm2")
    value = {(c, m): v for _, c, m, v in statistics.iter_rows()}
    both = pl.read_csv(folder / "differences.csv").filter(
        *there, pl.col("metric") == "explained_variance:both"
    )
    ahead = {row["corpus_b"]: row for row in both.iter_rows(named=True)}
    head = ["SAEs trained on", "gap", "EV faithful", *REFERENCE.values(), "home and away"]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
    gap = "surprise_gap_settled"
    corpora = [corpus for corpus, metric in value if metric == gap]
    for corpus in sorted(corpora, key=lambda corpus: value[corpus, gap]):
        cells = [number(value[corpus, gap], 1.96 * value[corpus, f"{gap}_stderr"], digits=2)]
        cells.append(f"{rebuilt.filter(pl.col('corpus') == corpus)['value'].mean():.3f}")
        for metric in REFERENCE:
            rows = summary.filter(pl.col("metric") == metric, pl.col("corpus") == corpus)
            cells += [
                f"{row['mean']:.3f} ± {(row['high'] - row['low']) / 2:.3f}"
                for row in rows.iter_rows(named=True)
            ] or ["-"]
        row = ahead.get(corpus)
        cells.append(f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]" if row else "-")
        lines.append(f"| {corpus} | {' | '.join(cells)} |")
    return lines


def controls_table() -> list[str]:
    """Lines of the README's table of controls, in the study's order."""
    folder = ROOT / "results/controls/tables"
    statistics = pl.read_csv(folder / "corpus_statistics.csv").filter(pl.col("model") == "smollm2")
    value = {(c, m): v for _, c, m, v in statistics.iter_rows()}
    summary = pl.read_csv(folder / "summary.csv")
    of = {(row["corpus"], row["metric"]): row for row in summary.iter_rows(named=True)}
    compared = pl.read_csv(folder / "differences.csv")
    ahead = {(row["corpus_b"], row["metric"]): row for row in compared.iter_rows(named=True)}
    head = ["SAEs trained on", "gap", "documents", *CONTROLS.values(), *LEADS.values()]
    lines = [f"| {' | '.join(head)} |", "| --- |" + " --- |" * (len(head) - 1)]
    study = yaml.safe_load((ROOT / "workflow/studies/controls.yaml").read_text())
    for corpus in study["corpora"]:
        gap = "surprise_gap_settled"
        cells = [
            number(value[corpus, gap], 1.96 * value[corpus, f"{gap}_stderr"], digits=2),
            f"{value[corpus, 'train_documents']:.0f}",
        ]
        for metric in CONTROLS:
            row = of[corpus, metric]
            cells.append(number(row["mean"], (row["high"] - row["low"]) / 2))
        for metric in LEADS:
            if row := ahead.get((corpus, metric)):
                cells.append(f"{row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]")
            else:
                cells.append("-")
        lines.append(f"| {corpus} | {' | '.join(cells)} |")
    return lines


TRACKED = {
    ("shared_feature_ratio", "recovered_features", None): "shared feature ratio | recovered",
    (
        "shared_feature_ratio_alive",
        "recovered_features",
        None,
    ): "the same of alive latents | recovered",
    ("mean_matched_cosine", "recovered_features", None): "mean matched cosine | recovered",
    (
        "explained_variance",
        "recovered_features",
        None,
    ): "explained variance, own corpus | recovered",
    ("explained_variance_faithful", "recovered_features", None): (
        "explained variance, the model's own distribution | recovered"
    ),
    ("fake_feature_ratio", "truly_fake_ratio", 0.1): "fake feature ratio, cut at 10 % | truly fake",
    ("fake_feature_ratio", "truly_fake_ratio", 0.005): "the same, cut at 0.5 % | truly fake",
}


def truth_table() -> list[str]:
    """Lines of the README's table on known features."""
    table = pl.read_csv(ROOT / "results/ground-truth/tables/ground_truth.csv")
    lines = [
        "| measured | truth | all cells | corpora at one SAE setting |",
        "| --- | --- | --- | --- |",
    ]
    for (measure, truth, frequency), label in TRACKED.items():
        cells = []
        for compared in ("all", "corpora"):
            row = table.row(
                by_predicate=(pl.col("measure") == measure)
                & (pl.col("truth") == truth)
                & (pl.col("compared") == compared)
                & pl.col("frequency").eq_missing(pl.lit(frequency)),
                named=True,
            )
            interval = "" if math.isnan(row["low"]) else f" [{row['low']:.2f}, {row['high']:.2f}]"
            cells.append(f"{row['value']:.2f}{interval}")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


SPEED = [  # what is done, beside what, table, rows that are meant, column
    (
        "a training step, 768 to 12,288",
        "sae-lens",
        "training_step",
        {"architecture": "topk", "d_sae": "12288"},
        "sae-lens / ours",
    ),
    (
        "",
        "eai-sparsify",
        "training_step",
        {"architecture": "topk", "d_sae": "12288"},
        "sparsify / ours",
    ),
    (
        "sampling, vocabulary of 8k",
        "`transformers.generate`",
        "sampling",
        {"model": "random Llama, 8k", "top_p": "1", "end tokens": "0"},
        "ours/generate",
    ),
    (
        "sampling, vocabulary of 49k",
        "`transformers.generate`",
        "sampling",
        {"model": "random Llama, 49k", "top_p": "1"},
        "ours/generate",
    ),
    ("matching 16,384 latents", "scipy", "matching", {"n": "16384"}, "scipy / ours"),
    (
        "reading shards",
        "lists in Parquet",
        "shards",
        {"measured": "block read before; list of float16"},
        "ours / peer",
    ),
    (
        "a probe on 20,000 x 4,096 latents",
        "scikit-learn, dense, same tolerance",
        "probing",
        {"documents": "20000", "active": "100"},
        "float64, our tol / ours",
    ),
]


def speed_table() -> list[str]:
    """Lines of the README's table of speeds."""
    lines = ["| what | against | times as fast |", "| --- | --- | --- |"]
    for what, peer, table, wanted, column in SPEED:
        rows = pl.read_csv(ROOT / f"benchmarks/results/{table}.csv", infer_schema=False)
        (row,) = rows.filter([pl.col(key) == value for key, value in wanted.items()]).to_dicts()
        lines.append(f"| {what} | {peer} | {float(row[column]):.1f} |")
    return lines


def test_the_readme_shows_the_speeds_that_the_benchmarks_wrote():
    assert "\n".join(speed_table()) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_numbers_of_the_committed_tables():
    assert "\n".join(readme_table()) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_numbers_of_the_reference_study():
    assert "\n".join(reference_table()) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_numbers_of_the_controls():
    assert "\n".join(controls_table()) in (ROOT / "README.md").read_text()


def test_the_readme_shows_the_correlations_with_known_features():
    assert "\n".join(truth_table()) in (ROOT / "README.md").read_text()


def test_the_readme_shows_figures_that_are_committed():
    readme = (ROOT / "README.md").read_text()
    shown = [part.split(")")[0] for part in readme.split("](")[1:] if "results/" in part[:9]]
    assert shown and all((ROOT / path).exists() for path in shown)


@pytest.mark.parametrize("file", ["config.yaml", *sorted(STUDIES)])
def test_published_results_are_those_of_the_study_as_it_is_configured(file):
    config = yaml.safe_load((ROOT / file).read_text())
    tables = ROOT / "results" / config["study"] / "tables"
    if not tables.exists():
        pytest.skip("not published")
    summary = pl.read_csv(tables / "summary.csv")
    assert set(summary["corpus"]) == set(config["corpora"])
    assert set(summary["sae"]) == set(config["saes"])
    assert summary["seeds"].max() == len(config["seeds"])
    probed = set(summary["metric"].str.extract("^probing_accuracy:(.*)").drop_nulls())
    assert probed == set(config.get("tasks", {}))


def test_readme_commands_exist():
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"^make (\w+)", readme, flags=re.M)):
        assert f"\n{target}:" in makefile, target
    named = set(re.findall(r"(?:--configfile|--directory) ([\w./-]+)", readme))
    for path in named - {"mine.yaml", "audit.yaml"}:  # the reader's own
        assert (ROOT / path).exists(), path


if __name__ == "__main__":
    sys.stdout.write(
        "\n".join(
            [
                *reference_table(),
                "",
                *controls_table(),
                "",
                *readme_table(),
                "",
                *truth_table(),
                "",
                *speed_table(),
                "",
            ]
        )
    )
