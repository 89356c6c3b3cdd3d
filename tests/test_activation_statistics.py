"""Norms of activations, counted by hand."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from faithful_sae.activation_statistics import activation_statistics


def shards(position: list[int], norm: list[float], kept: list[bool]) -> Any:
    return SimpleNamespace(
        position=np.array(position, np.int32),
        norm=np.array(norm, np.float32),
        kept=np.array(kept),
    )


def test_shares_of_tokens_and_energy_by_hand() -> None:
    given = shards([0, 1, 0, 1, 2], [10, 1, 10, 2, 3], [False, True, False, True, True])
    table, _ = activation_statistics(given)
    assert dict(table.iter_rows()) == pytest.approx(
        {
            "tokens": 5,
            "kept_fraction": 0.6,
            "kept_energy_fraction": 14 / 214,
            "median_norm": 3,
            "max_norm": 10,
        }
    )


def test_norms_by_position_by_hand() -> None:
    position = [1] * 21 + [0, 0]
    norm = [*range(21)][::-1] + [4, 6]  # position 1: 0 to 20 in any order
    _, norms = activation_statistics(shards(position, norm, [True] * 23))
    assert norms.columns == ["position", "tokens", "median_norm", "p95_norm", "max_norm"]
    assert norms.row(0)[:3] == (0, 2, 5.0) and norms.row(0)[4] == 6.0
    assert norms.row(1) == (1, 21, 10.0, 19.0, 20.0)


def test_norms_by_position_are_of_all_tokens_whatever_is_kept() -> None:
    _, every = activation_statistics(shards([0, 1], [5, 3], [True, True]))
    _, some = activation_statistics(shards([0, 1], [5, 3], [False, True]))
    assert every.equals(some)


def test_large_norms_do_not_overflow() -> None:
    table, _ = activation_statistics(shards([0, 1], [3e30, 4e30], [True, False]))
    assert dict(table.iter_rows())["kept_energy_fraction"] == pytest.approx(9 / 25)
