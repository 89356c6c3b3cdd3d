"""What a study costs as it grows: tokens, d_sae, seeds and corpora doubled in turn.

    python benchmarks/scaling.py

Runs the real workflow on a random Llama of six blocks (d_in 256) that writes its own corpora, once
per size, each on two cores, as many at once as the machine has pairs of cores. Reads CPU time, the
largest job's memory and the disk kept. Writes results/scaling.csv and results/scaling.png.
"""

import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import polars as pl
import yaml
from timing import RESULTS, write_table

ROOT = Path(__file__).parents[1]
BASE = {"tokens": 8_000, "d_sae": 512, "seeds": 2, "corpora": 2}
DOUBLINGS = {"tokens": 4, "d_sae": 4, "seeds": 2, "corpora": 2}
MODEL = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "max_position_embeddings": 128,
}


def study(tokens: int, d_sae: int, seeds: int, corpora: int) -> dict:
    """The config of one size; everything counted in tokens grows with `tokens`."""
    return {
        "study": "scaling",
        "models": {
            "architecture": {"source": "path", "path": "architecture"},
            "llama": {
                "source": "random_like",
                "model": "architecture",
                "hooks": ["resid_pre.4"],
            },
        },
        "corpora": {
            f"faithful-{seed}": {"source": "faithful", "block": 64, "seed": seed}
            for seed in range(corpora)
        },
        "corpus_size": {
            "train_tokens": tokens,
            "heldout_tokens": tokens // 4,
            "heldout_fraction": 0.25,
            "context_length": 128,
        },
        "saes": {
            "topk": {
                "expansion": d_sae // MODEL["hidden_size"],
                "k": 16,
                "training_tokens": 8 * tokens,
                "batch_size": 512,
            }
        },
        "seeds": list(range(seeds)),
        "tasks": {},
        "evaluations": {
            "reconstruction": {"ce_tokens": tokens // 8},
            "fake_features": {"tokens": tokens // 4},
            "corpus_statistics": {"tokens": tokens // 8},
        },
    }


def run(size: dict[str, int]) -> dict[str, float]:
    """CPU seconds, in all and by rule, the largest job's memory and the disk in MB."""
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder)
        for name in ("Snakefile", "config.yaml", "workflow", "src", "envs"):
            source = ROOT / name
            (shutil.copytree if source.is_dir() else shutil.copy)(source, repository / name)
        work = repository / "study"
        shutil.copytree(ROOT / "tests/tiny/architecture", work / "architecture")
        model = work / "architecture/config.json"
        model.write_text(json.dumps(json.loads(model.read_text()) | MODEL))
        (work / "config.yaml").write_text(yaml.safe_dump(study(**size)))

        def used() -> float:
            usage = resource.getrusage(resource.RUSAGE_CHILDREN)
            return usage.ru_utime + usage.ru_stime

        before = used()
        command = [sys.executable, "-m", "snakemake", "--cores", "2", "--directory", str(work)]
        environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            command, cwd=repository, capture_output=True, text=True, env=environment
        )
        if done.returncode:
            sys.exit(done.stdout[-2000:] + done.stderr[-4000:])
        # Snakemake looks at a job's CPU time every 30 s at last: these miss a job's last seconds.
        by_rule: dict[str, float] = defaultdict(float)
        memory = 0.0
        for table in sorted((work / "results/logs").rglob("*.tsv")):
            job = pl.read_csv(table, separator="\t", null_values=["-", "NA"])
            by_rule[table.relative_to(work / "results/logs").parts[0]] += job["cpu_time"][0] or 0
            memory = max(memory, job["max_rss"][0] or 0)
        kept = (f for f in (work / "results/scaling").rglob("*") if f.is_file())
        return {
            "CPU, s": used() - before,
            "memory, MB": memory,
            "disk, MB": sum(f.stat().st_size for f in kept) / 1e6,
        } | {f"{rule}, s": by_rule[rule] for rule in RULES}


RULES = [
    "generate_corpus",
    "extract_activations",
    "train_sae",
    "reconstruction",
    "similarity",
    "similarity_between_corpora",
    "fake_features",
    "corpus_statistics",
]


def draw(rows: list[dict]) -> None:
    """Time, memory and disk against each size, on logarithmic axes, beside proportionality."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(3, len(BASE), figsize=(12, 8), sharey="row", sharex="col")
    for column, what in enumerate(BASE):
        mine = [row for row in rows if row["doubled"] == what]
        x = [row[what] for row in mine]
        for axis, quantity in zip(
            axes[:, column], ("CPU, s", "memory, MB", "disk, MB"), strict=True
        ):
            y = [row[quantity] for row in mine]
            axis.plot(x, y, "o-", color="C0", label="in all")
            proportional = [y[0] * v / x[0] for v in x]
            axis.plot(x, proportional, ":", color="gray", label="proportional")
            if column == 0:
                axis.set_ylabel(quantity)
        for number, rule in enumerate(RULES, start=1):
            y = [row[f"{rule}, s"] for row in mine]
            axes[0, column].plot(x, y, "-", color=f"C{number}", linewidth=0.8, label=rule)
        for axis in axes[:, column]:
            axis.set_xscale("log", base=2)
            axis.set_yscale("log")
        axes[2, column].set_xticks(x, [f"{v // 1000}k" if v % 1000 == 0 else f"{v:,}" for v in x])
        axes[2, column].set_xlabel({"tokens": "training tokens of a corpus"}.get(what, what))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="center right", fontsize=8)
    figure.tight_layout(rect=(0, 0, 0.84, 1))
    figure.savefig(RESULTS / "scaling.png", dpi=120)


def main() -> None:
    series = [
        (what, BASE | {what: BASE[what] * 2**doubling})
        for what in BASE
        for doubling in range(DOUBLINGS[what] + 1)
    ]
    largest_first = sorted((size for _, size in series), key=lambda size: -math.prod(size.values()))
    sizes = {tuple(size.values()): size for size in largest_first}
    with ProcessPoolExecutor(max(1, os.cpu_count() // 2)) as pool:
        found = dict(zip(sizes, pool.map(run, sizes.values()), strict=True))
    rows = [{"doubled": what} | size | found[tuple(size.values())] for what, size in series]
    write_table("scaling", rows)
    draw(rows)


if __name__ == "__main__":
    main()
