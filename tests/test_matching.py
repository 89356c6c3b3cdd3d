"""Matching is exact, says what it has proved, and says when it could prove nothing."""

import itertools
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from faithful_sae import matching
from faithful_sae.matching import (
    GAP,
    NoCertificateError,
    best_assignment,
    certified_assignment,
    match,
    match_smaller,
)

PROVED = GAP + 3 * 2**-23  # per row: with the rounding of prices up to 2


def rows(seed: int, n: int = 6, d: int = 4) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    return normalize(a, dim=1) @ normalize(b, dim=1).T


def total(values: Tensor, partner: Tensor) -> float:
    assert len(partner.unique()) == len(values)  # one-to-one
    return values[torch.arange(len(values)), partner].double().sum().item()


def best_total(values: Tensor) -> float:
    return total(values, torch.from_numpy(linear_sum_assignment(values.numpy(), True)[1]))


@pytest.fixture
def always_sparse(monkeypatch):
    monkeypatch.setattr(matching, "DENSE_BELOW", 1)


@pytest.mark.parametrize("dense_below", [1, 100])
@given(seed=st.integers(0, 10_000), n=st.integers(1, 6), d=st.integers(1, 4))
@settings(max_examples=40)
def test_match_has_the_best_total_of_all_permutations(dense_below, seed, n, d):
    a, b = rows(seed, n, d), rows(seed + 1, n, d)
    unit_a, unit_b = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (a, b))
    expected = (unit_a @ unit_b.T).numpy()
    best = max(expected[range(n), order].sum() for order in itertools.permutations(range(n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "DENSE_BELOW", dense_below)
        found = match(a, b)
    assert sorted(found.partner.tolist()) == list(range(n))
    assert found.cosine.sum().item() == pytest.approx(best, abs=1e-5)
    assert found.cosine.numpy() == pytest.approx(
        expected[range(n), found.partner.numpy()], abs=1e-6
    )
    assert found.cosine.dtype == torch.float32 and found.partner.dtype == torch.int64


def made(kind: str, n: int, m: int, d: int, seed: int) -> Tensor:
    """Cosines of n and m rows that are unrelated, tied, repeated, partly zero, hubs or shared."""
    a, b = rows(seed, n, d), rows(seed + 1, m, d)
    if kind == "ties":
        a, b = a.round(), b.round()
    elif kind == "repeated":
        a, b = a[torch.arange(n) // 3], b[torch.arange(m) % 4 % m] if m else b
    elif kind == "zeros":
        a[::2], b[::3] = 0, 0
    elif kind == "hubs":
        a, b = a + 3, b + 2 * torch.rand(m, 1, generator=torch.Generator().manual_seed(seed))
    elif kind == "shared":
        b[: n // 2] = a[: n // 2] + 0.3 * b[: n // 2]
    return cosines(a, b)


@given(
    st.sampled_from(["unrelated", "ties", "repeated", "zeros", "hubs", "shared"]),
    st.integers(0, 40),
    st.sampled_from([0, 1, 20]),
    st.integers(1, 8),
    st.sampled_from([1, 3, 16]),
    st.integers(0, 10_000),
)
@settings(max_examples=300)
def test_the_total_is_scipys_for_any_shape_and_ties(kind, n, more, d, candidates, seed):
    values = made(kind, n, n + more, d, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "DENSE_BELOW", 1)
        patch.setattr(matching, "CANDIDATES", candidates)
        partner, gap = best_assignment(values)
    missing = best_total(values) - total(values, partner)
    assert missing <= gap + 1e-8 * n
    assert 0 <= gap <= PROVED * n


@pytest.mark.parametrize("kind", ["unrelated", "hubs", "shared"])
@pytest.mark.parametrize("n, m", [(400, 400), (400, 401), (300, 700)])
@pytest.mark.parametrize("candidates", [4, 16])
def test_the_sparse_solver_certifies_by_itself(kind, n, m, candidates, monkeypatch):
    monkeypatch.setattr(matching, "CANDIDATES", candidates)
    values = made(kind, n, m, 16, 0)
    partner, gap = certified_assignment(values)
    assert total(values, partner) == pytest.approx(best_total(values), rel=1e-6)
    assert gap <= PROVED * n


def test_pairs_left_out_at_first_are_found(monkeypatch):
    # Both rows' only candidate is column 0; the best total needs column 1 from the second row.
    monkeypatch.setattr(matching, "CANDIDATES", 1)
    monkeypatch.setattr(matching, "HUBNESS", 0.0)
    values = torch.tensor([[0.9, 0.1, -1.0], [0.8, 0.7, -1.0], [0.5, -1.0, 0.4]])
    partner, gap = certified_assignment(values)
    assert partner.tolist() == [0, 1, 2] and gap <= 3 * PROVED


def test_the_gap_is_what_prices_leave_to_be_gained():
    # At prices (0.25, 0) rows could have max(0.75, 0.5) and max(0.25, 0), but have 0.5 and 0.25.
    values = torch.tensor([[1.0, 0.5], [0.5, 0.0]])
    gap, missing = matching._price_all(values, np.array([0.25, 0.0]), np.array([0.5, 0.25]))
    assert gap == 0.25
    assert list(zip(*missing.nonzero(), strict=True)) == [(0, 0)]


def test_prices_are_the_least_that_keep_every_row_content():
    # Row 1 would rather have row 0's column, by 0.25; nobody wants the unused column 2.
    values = torch.tensor([[1.0, 0.5, 0.0], [0.75, 0.5, 0.25]])
    pairs = matching._pairs(values, torch.tensor([0, 0, 0, 1, 1, 1]), torch.tensor([0, 1, 2] * 2))
    prices, profits = matching._duals(pairs, np.array([0, 1]))
    assert prices.tolist() == [0.25, 0, 0]
    assert profits.tolist() == [0.75, 0.5]


def test_a_solver_that_errs_is_caught_and_scipy_takes_over(monkeypatch, capsys, always_sparse):
    solve = matching._solve

    def swaps_two_partners(costs, prices, partner):
        found = solve(costs, prices, partner)
        found[[0, 1]] = found[[1, 0]]
        return found

    values = made("shared", 50, 50, 64, 0)  # all pairs are candidates: the swapped ones exist
    monkeypatch.setattr(matching, "CANDIDATES", 50)
    monkeypatch.setattr(matching, "_solve", swaps_two_partners)
    partner, gap = best_assignment(values)
    assert gap == 0
    assert total(values, partner) == best_total(values)
    assert re.match("matching 50 x 50 rows: .*solved by scipy", capsys.readouterr().err)


def test_prices_that_do_not_prove_it_are_no_certificate(monkeypatch):
    duals = matching._duals

    def cheaper(costs, partner):
        prices, profits = duals(costs, partner)
        return prices / 2, profits + (prices / 2)[partner]

    monkeypatch.setattr(matching, "_duals", cheaper)
    with pytest.raises(NoCertificateError, match="a gap of"):
        certified_assignment(made("hubs", 50, 50, 8, 0))


def test_prices_of_unused_columns_count(monkeypatch):
    duals = matching._duals
    monkeypatch.setattr(matching, "_duals", lambda *a: (duals(*a)[0] + 0.5, duals(*a)[1] - 0.5))
    with pytest.raises(NoCertificateError):
        certified_assignment(made("unrelated", 50, 60, 8, 0))


def test_rows_that_all_want_the_same_columns_fall_back_visibly(monkeypatch, capsys, always_sparse):
    monkeypatch.setattr(matching, "CANDIDATES", 4)
    a = rows(0, 200, 8)
    a[::2] = 0  # a zero row is as near to every column: all ask for the same cheapest four
    values = cosines(a, rows(1, 200, 8))
    partner, gap = best_assignment(values)
    assert gap == 0 and total(values, partner) == pytest.approx(best_total(values))
    assert "solved by scipy" in capsys.readouterr().err


def test_the_same_rows_give_the_same_bits(always_sparse):
    a, b = rows(0, 300, 16), rows(1, 300, 16)
    first, second = match(a, b), match(a, b)
    assert first.partner.equal(second.partner) and first.cosine.equal(second.cosine)
    assert first.gap == second.gap


def test_a_small_match_leaves_the_gap_at_zero():
    assert match(rows(0), rows(1)).gap == 0


def test_match_is_not_greedy():
    # Greedy takes the pair (0, 0) of cosine 1 and leaves (1, 1) of cosine -1.
    a = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    b = torch.tensor([[1.0, 0.0], [0.8, -0.6]])
    assert match(a, b).cosine.sum().item() == pytest.approx(1.6)


@given(st.permutations(range(6)), st.lists(st.floats(0.01, 100), min_size=6, max_size=6))
@settings(max_examples=25)
def test_a_permuted_and_rescaled_copy_is_matched_perfectly(order, scales):
    a = rows(0)
    found = match(a, a[order] * torch.tensor(scales)[:, None])
    assert [order[partner] for partner in found.partner] == list(range(6))
    assert found.cosine.tolist() == pytest.approx([1.0] * 6)


@pytest.mark.parametrize("n", [6, 200])
def test_match_is_symmetric(n, always_sparse):
    forth, back = match(rows(0, n), rows(1, n)), match(rows(1, n), rows(0, n))
    assert back.partner[forth.partner].tolist() == list(range(n))


@pytest.mark.parametrize("n, m", [(0, 0), (0, 3), (1, 1), (1, 3)])
def test_no_row_and_one_row(n, m, always_sparse):
    found = match_smaller(rows(0, m), rows(1, n))
    assert len(found.partner) == len(found.cosine) == n
    if n:
        assert found.cosine.item() == pytest.approx(cosines(rows(1, n), rows(0, m)).max().item())


def test_either_set_may_be_the_smaller(always_sparse):
    a, b = rows(0, 30), rows(1, 50)
    assert match_smaller(a, b).cosine.sum() == pytest.approx(match_smaller(b, a).cosine.sum())


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_rows_that_are_not_finite_are_named(broken):
    b = rows(1)
    b[3, 2] = broken
    with pytest.raises(ValueError, match="row 3 of the second dictionary is not finite"):
        match(rows(0), b)


@pytest.mark.parametrize("shape", [(5, 4), (6, 3)])
def test_other_shapes_are_an_error_naming_both(shape):
    with pytest.raises(ValueError, match=re.escape(f"(6, 4) and {shape}")):
        match(rows(0), rows(1, *shape))
