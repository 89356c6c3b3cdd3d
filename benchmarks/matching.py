"""Exact matching of n rows to n rows: ours against scipy's and lapx's dense solvers.

    make peers
    .venv-peers/bin/python benchmarks/matching.py

CPU seconds on one thread, each run in a fresh process; medians of 3 runs in turn (1 run for the
two slow rows). `cosine product` is the [n, n] matrix all of them start from; the solvers' seconds
are without it. scipy gets float32 cosines to maximise or float64 costs to minimise, converted
before the clock starts, whichever is faster. Memory is the peak above what the rows themselves
take, over the 4 n^2 bytes of the matrix. `gap` is what our matching is proved to miss at most, in
total.

half: half the rows shared at a cosine of 0.5 to 1, the others from one cloud; random: no shared
row, isotropic (untrained SAEs); anisotropic: no shared row, variances 1, 1/2, 1/3... (covariance
null).
"""

import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from timing import one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import resource
import time

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from faithful_sae.matching import certified_assignment

try:
    from lap import lapjvs
except ImportError:  # a peer, not a dependency
    lapjvs = None

D = 768
CASES = [  # data, n, runs
    ("half", 4096, 3),
    ("half", 8192, 3),
    ("random", 8192, 3),
    ("anisotropic", 8192, 1),
    ("half", 16384, 1),
]
SOLVERS = ["ours", "scipy float32", "scipy float64", *(["lapx"] if lapjvs else [])]


def half_shared(n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)

    def normal(rows: int, d: int) -> Tensor:
        return torch.randn(rows, d, generator=generator)

    base = normal(D // 4, D) * 0.6 / (D // 4) ** 0.5
    a, b = (normalize(normal(n, D // 4) @ base + normal(n, D)) for _ in range(2))
    noise = 0.1 + 1.6 * torch.rand(n // 2, 1, generator=generator)
    b[: n // 2] = normalize(a[: n // 2] + noise * normalize(normal(n // 2, D)))
    return a, b[torch.randperm(n, generator=generator)]


def unrelated(n: int, deviations: Tensor) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b = (normalize(torch.randn(n, D, generator=generator) * deviations) for _ in range(2))
    return a, b


DATA: dict[str, Callable[[int], tuple[Tensor, Tensor]]] = {
    "half": half_shared,
    "random": lambda n: unrelated(n, torch.ones(D)),
    "anisotropic": lambda n: unrelated(n, torch.arange(1, D + 1).rsqrt()),
}


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def run(solver: str, data: str, n: int) -> dict[str, float]:
    """Time and peak memory of one solver; called in a process of its own."""
    torch.set_num_threads(1)
    a, b = DATA[data](n)
    before = resident()
    start = time.process_time()
    cosines = a @ b.T
    product = time.process_time() - start
    gap = 0.0
    if solver == "ours":
        start = time.process_time()
        partner, gap = certified_assignment(cosines)
    elif solver == "lapx":
        costs = cosines.neg_().add_(1).numpy()
        start = time.process_time()
        partner = torch.as_tensor(lapjvs(costs)[2])
    else:
        maximize = solver == "scipy float32"
        given = cosines.numpy() if maximize else cosines.double().neg_().numpy()
        start = time.process_time()
        partner = torch.from_numpy(linear_sum_assignment(given, maximize=maximize)[1])
    seconds = time.process_time() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "seconds": seconds,
        "product": product,
        "memory": (peak - before) / (4 * n * n),
        "gap": gap,
        "total": (a * b[partner.long()]).double().sum().item(),
    }


def main() -> None:
    rows = []
    for data, n, runs in CASES:
        found: dict[str, list[dict[str, float]]] = {solver: [] for solver in SOLVERS}
        for _ in range(runs):
            for solver in SOLVERS:
                command = [sys.executable, __file__, solver, data, str(n)]
                printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[solver].append(json.loads(printed.splitlines()[-1]))
        totals = [result["total"] for results in found.values() for result in results]
        if max(totals) - min(totals) > 1e-6 * max(totals):
            raise ValueError(f"solvers disagree on {data}, n = {n}: totals {totals}")

        def median(
            solver: str, what: str, found: dict[str, list[dict[str, float]]] = found
        ) -> float:
            return statistics.median(result[what] for result in found[solver])

        scipy = min(SOLVERS[1:3], key=lambda solver: median(solver, "seconds"))
        seconds = {solver: median(solver, "seconds") for solver in ("ours", scipy, *SOLVERS[3:])}
        product = statistics.median(r["product"] for results in found.values() for r in results)
        row: dict[str, str | int | float] = {"data": data, "n": n, "runs": runs}
        row |= {"ours, s": seconds["ours"], "scipy, s": seconds[scipy], "input": scipy[6:]}
        if lapjvs:
            row |= {"lapx, s": seconds["lapx"], "lapx / ours": seconds["lapx"] / seconds["ours"]}
        row |= {
            "scipy / ours": seconds[scipy] / seconds["ours"],
            "cosine product, s": product,
            "scipy / ours, with product": (seconds[scipy] + product) / (seconds["ours"] + product),
            "gap": found["ours"][0]["gap"],
            "memory, ours": median("ours", "memory"),
            "memory, scipy": median(scipy, "memory"),
        }
        if lapjvs:
            row["memory, lapx"] = median("lapx", "memory")
        rows.append(row)
    write_table("matching", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(run(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    else:
        main()
