"""One logistic probe on sparse latents: ours against scikit-learn's default solver on dense arrays.

    python benchmarks/probing.py

L2 penalty, C = 1, binary labels that depend on a twentieth of the latents; latents fire with
Zipf-like rates. Objective excess is relative to the best objective found by anyone. "our tol" gives
scikit-learn's solver the tolerance that our probes use; its default stops earlier. One thread.
"""

import sys
from pathlib import Path

from timing import interleaved, one_thread, write_table

one_thread()
sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.linear_model import LogisticRegression

from faithful_sae.probes import TOLERANCE, _fits

SIZES = ((5_000, 4096, 100), (20_000, 4096, 100), (20_000, 4096, 200))


def problem(n: int, d: int, active: int) -> tuple[sparse.csr_array, NDArray[np.int64]]:
    """Latents [n, d] float32 with `active` non-zeros a row, and noisy labels [n]."""
    generator = np.random.default_rng(0)
    rate = np.log(1 / (np.arange(d) + 20.0) ** 0.9)
    # The largest keys of Gumbel noise plus log rates: a draw without replacement.
    columns = np.concatenate(
        [
            np.argpartition(-(rate + generator.gumbel(size=(rows, d))), active, axis=1)[:, :active]
            for rows in np.diff(np.append(np.arange(0, n, 1000), n))
        ]
    )
    values = generator.exponential(0.5, columns.size).astype(np.float32)
    x = sparse.csr_array((values, columns.ravel(), np.arange(0, columns.size + 1, active)), (n, d))
    x.sort_indices()
    weights = np.zeros(d)
    used = generator.choice(d, d // 20, replace=False)
    weights[used] = generator.standard_normal(len(used))
    z = x @ weights
    chance = 1 / (1 + np.exp(-2 * (z - np.median(z)) / z.std()))
    return x, (generator.random(n) < chance).astype(np.int64)


def objective(model: LogisticRegression, x: sparse.csr_array, y: NDArray[np.int64]) -> float:
    weights = model.coef_[0].astype(np.float64)
    z = x.astype(np.float64) @ weights + model.intercept_[0]
    return float(np.sum(np.logaddexp(0, z) - y * z) + weights @ weights / 2)


def measured(n: int, d: int, active: int) -> dict[str, str | int | float]:
    x, y = problem(n, d, active)
    dense = x.toarray()
    wide = dense.astype(np.float64)
    fitted: dict[str, LogisticRegression] = {}

    def ours() -> None:
        fitted["ours"] = next(_fits(x.astype(np.float64), y, [1.0]))

    def lbfgs(name: str, array: NDArray[np.floating], tol: float = 1e-4) -> None:
        fitted[name] = LogisticRegression(C=1.0, tol=tol, max_iter=1000).fit(array, y)

    seconds = interleaved(
        {
            "ours": ours,
            "float32": lambda: lbfgs("float32", dense),
            "float64": lambda: lbfgs("float64", wide),
            "float64, our tol": lambda: lbfgs("float64, our tol", wide, TOLERANCE),
        }
    )
    loss = {name: objective(model, x, y) for name, model in fitted.items()}
    row: dict[str, str | int | float] = {"documents": n, "latents": d, "active": active}
    row["ours, s"] = seconds["ours"]
    for name in ("float32", "float64", "float64, our tol"):
        row[f"dense {name}, s"] = seconds[name]
        row[f"{name} / ours"] = seconds[name] / seconds["ours"]
    for name, value in loss.items():
        row[f"excess, {name}"] = value / min(loss.values()) - 1
    return row


def main() -> None:
    write_table("probing", [measured(*size) for size in SIZES])


if __name__ == "__main__":
    main()
