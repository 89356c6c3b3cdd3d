"""One-to-one matching of rows by cosine: exact, with a proof.

The best assignment of large sets uses only few of the n^2 pairs. So a sparse solver gets each row's
best candidates; prices of the columns (the dual of the assignment problem, Kuhn 1955) then tell for
ALL pairs whether one left out could improve the total; those that could are added, and it is solved
again (column generation). When none is left, the prices prove that the total is the best.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching, min_weight_full_bipartite_matching
from torch import Tensor
from torch.nn.functional import normalize

from faithful_sae.linear import linear

DENSE_BELOW = 1500  # rows: scipy's dense solver is about as fast at 1000, half as fast here
CANDIDATES = 16  # columns a row gets at first, and at most in each round after
TILE = 128  # rows of cosines that are priced at once, in one reused buffer
GAP = 1e-7  # per row: the total is certified to GAP * n, the resolution of float32 cosines
RARE = 3  # a column in fewer rows' first candidates gets candidates of its own
HUBNESS = 0.8  # share of a column's typical best cosine that is its first price
OFFSET = 3.0  # keeps costs positive
# Cosines are rounded to multiples of UNIT, so that float64 adds and compares them exactly: ties are
# ties, no loop of the solver or of the prices can run on rounding.
UNIT = 2.0**-32

Vector = NDArray[np.float64]
Indices = NDArray[np.int64]


class Matching(NamedTuple):
    """One-to-one assignment of rows: row i of the first set belongs to row partner[i].

    partner: [n] int64.  cosine: [n] float32, cosine of the two rows.
    gap: how far the total cosine may lie below the best possible one, proved; 0 where scipy solved.
    """

    partner: Tensor
    cosine: Tensor
    gap: float = 0.0


class NoCertificateError(Exception):
    """The sparse solver could not prove its matching the best."""


def match(a: Tensor, b: Tensor) -> Matching:
    """The one-to-one matching of rows that maximises the total cosine, exact as `Matching.gap`.

    a, b: [n, d], rows of any norm; a zero row has cosine 0 with everything.
    Raises ValueError when the shapes differ or a row is not finite.
    """
    if a.shape != b.shape:
        raise ValueError(
            f"cannot match rows of shapes {tuple(a.shape)} and {tuple(b.shape)}: "
            "compare dictionaries of the same d_sae and d_in"
        )
    return match_smaller(a, b)


def match_smaller(a: Tensor, b: Tensor) -> Matching:
    """`match` for different numbers of rows: a partner for each row of the smaller set."""
    for name, rows in (("first", a), ("second", b)):
        broken = (~rows.isfinite().all(dim=1)).nonzero().flatten()
        if len(broken):
            raise ValueError(
                f"row {int(broken[0])} of the {name} dictionary is not finite ({len(broken)} such "
                "rows): its training diverged; lower lr or look at its training table"
            )
    smaller, larger = (a, b) if len(a) <= len(b) else (b, a)
    cosines = linear(normalize(smaller.float(), dim=1), normalize(larger.float(), dim=1))
    partner, gap = best_assignment(cosines)
    cosine = cosines[torch.arange(len(smaller)), partner.to(cosines.device)]
    return Matching(partner, cosine.cpu(), gap)


def best_assignment(cosines: Tensor) -> tuple[Tensor, float]:
    """Distinct columns [n], one a row, of the largest total, and the `gap` of `Matching`.

    cosines: [n, m] float32 between -1 and 1, n <= m. From DENSE_BELOW rows on the certified sparse
    solver runs; where it cannot certify, standard error says so and scipy's dense one takes over.
    """
    n, m = cosines.shape
    if n >= DENSE_BELOW:
        try:
            return certified_assignment(cosines)
        except NoCertificateError as reason:
            said = f"matching {n} x {m} rows: {reason}; solved by scipy: as exact, but slower\n"
            sys.stderr.write(said)
    _, partner = linear_sum_assignment(cosines.cpu().numpy(), maximize=True)
    return torch.from_numpy(partner), 0.0


def certified_assignment(cosines: Tensor) -> tuple[Tensor, float]:
    """`best_assignment` by column generation, with a certificate by weak duality.

    For any prices p >= 0 of the columns, no assignment has a total above
    sum_i max_j (cosines_ij - p_j) + sum_j p_j. With c the column of row i, the total found misses
    gap = sum_i [max_j (cosines_ij - p_j) - (cosines_ic - p_c)] + sum of p over unused columns
    of that bound, hence at most that much of the optimum. It is brought to GAP * n or below; the
    float32 rounding of cosines_ij - p_j under the max, at most 2^-23 (1 + max p) a row, is added.

    Raises NoCertificateError when a round does not halve the gap (seen: 3 to 10,000 times less),
    as for sets with many equal rows, which ask for the same columns round after round.
    """
    n = len(cosines)
    costs, prices = _first_pairs(cosines)
    partner, gap = np.full(n, -1), math.inf
    while gap > GAP * n:
        partner = _solve(costs, prices, partner)
        prices, profits = _duals(costs, partner)
        previous, (gap, missing) = gap, _price_all(cosines, prices, profits)
        gap += float(np.delete(prices, partner).sum())
        if gap > max(previous / 2, GAP * n):
            raise NoCertificateError(f"the total is not certified (a gap of {gap:.1e} is left)")
        costs = costs + missing
    return torch.from_numpy(partner), gap + n * 2**-23 * (1 + float(prices.max()))


def _pairs(cosines: Tensor, rows: Tensor, columns: Tensor) -> csr_array:
    """Pairs as a sparse matrix [n, m] of OFFSET - cosine: the solver minimises and takes no 0."""
    costs = OFFSET - _exact(cosines[rows, columns])
    return csr_array((costs.cpu(), (rows.cpu(), columns.cpu())), shape=tuple(cosines.shape))


def _exact(cosines: Tensor) -> Tensor:
    return (cosines.double() / UNIT).round() * UNIT


def _priced_tiles(cosines: Tensor, prices: Tensor) -> Iterator[tuple[int, Tensor]]:
    """First row and cosines - prices of TILE rows at a time; the buffer is reused."""
    tile = torch.empty_like(cosines[:TILE])
    for first in range(0, len(cosines), TILE):
        rows = cosines[first : first + TILE]
        yield first, torch.sub(rows, prices, out=tile[: len(rows)])


def _first_pairs(cosines: Tensor) -> tuple[csr_array, Vector]:
    """Every row's best columns, rows for columns that few ask for, and the first prices.

    Without prices, all rows of anisotropic sets ask for the same few hubs, columns near to
    everything. A hub is known by its best cosines with parts of the rows being all large.
    Pairs of what is still left over make a full matching possible, no more: a bad one drives up
    all prices. Raises NoCertificateError when a quarter of the rows is left.
    """
    n, m = cosines.shape
    parts = torch.split(cosines, -(-n // 16))
    prices = HUBNESS * torch.stack([part.amax(0) for part in parts]).mean(0)
    k = min(CANDIDATES, m)
    best = [tile.topk(k, sorted=False) for _, tile in _priced_tiles(cosines, prices)]
    columns = torch.cat([top.indices for top in best]).flatten()
    profits = torch.cat([top.values.amax(1) for top in best])
    rows = torch.arange(n, device=columns.device).repeat_interleave(k)
    rare = (columns.bincount(minlength=m) < RARE).nonzero().flatten()
    priced = (cosines[:, some].T - profits for some in torch.split(rare, TILE // 4))
    asking = torch.cat([part.topk(min(k, n), sorted=False).indices for part in priced])
    costs = _pairs(cosines, rows, columns)
    costs = costs.maximum(_pairs(cosines, asking.flatten(), rare.repeat_interleave(min(k, n))))
    matched = maximum_bipartite_matching(costs, perm_type="column")
    left = torch.from_numpy(np.flatnonzero(matched < 0)).to(rows)
    if len(left) > n // 4:
        raise NoCertificateError(f"{len(left)} rows ask for columns that others ask for too")
    unused = np.setdiff1d(np.arange(m), matched)[: len(left)]
    costs = costs + _pairs(cosines, left, torch.from_numpy(unused).to(rows))
    return costs, _exact(prices).cpu().numpy()


def _solve(costs: csr_array, prices: Vector, partner: Indices) -> Indices:
    """The columns [n] of a cheapest full matching of the pairs, from the duals of a round before.

    If all columns are used, costs plus prices have the same best matching. At the duals of nearly
    the same pairs, each row's partner is its cheapest column; the solver takes the first of those
    listed, so that only rows with a better pair among the new ones are left to repair.
    """
    n, m = costs.shape
    data, columns, starts = costs.data, costs.indices, costs.indptr
    if n == m:
        data, columns = data + prices[columns], columns.copy()
        own = np.flatnonzero(columns == partner[_rows(costs)])
        first = starts[: len(own)]  # no partners yet in the first round
        for values in (data, columns):
            values[first], values[own] = values[own], values[first]
    # For square matrices the solver starts with auctions, in which a price war over near-ties takes
    # seconds, one after another; a column without pairs turns them off.
    graph = csr_array((data, columns, starts), shape=(n, m + 1))
    best: Indices = min_weight_full_bipartite_matching(graph)[1].astype(np.int64)
    return best


def _duals(costs: csr_array, partner: Indices) -> tuple[Vector, Vector]:
    """Least prices [m] >= 0 at which each row has no better column among its pairs; its profit [n].

    Bellman-Ford: a row whose own column gets dearer drives up the columns it likes as much,
    p_j >= p_c + cosine_ij - cosine_ic, which moves their rows in turn. Unused columns stay at 0
    if the matching is the best of the pairs.
    """
    n, m = costs.shape
    rows = _rows(costs)
    own = costs.data[costs.indices == partner[rows]]
    gain = own[rows] - costs.data
    moved, owner, prices = np.arange(n), np.full(m, -1), np.zeros(m)
    owner[partner] = moved
    for _ in range(n + 1):  # a path passes no column twice
        counts = np.diff(costs.indptr)[moved]
        starts = costs.indptr[moved] - np.cumsum(counts) + counts
        pairs = np.arange(counts.sum()) + np.repeat(starts, counts)
        columns = costs.indices[pairs]
        offers = gain[pairs] + np.repeat(prices[partner[moved]], counts)
        higher = offers > prices[columns]
        if not higher.any():
            return prices, OFFSET - own - prices[partner]
        np.maximum.at(prices, columns[higher], offers[higher])
        moved = owner[np.unique(columns[higher])]
        moved = moved[moved >= 0]
    raise NoCertificateError("its prices do not settle")


def _price_all(cosines: Tensor, prices: Vector, profits: Vector) -> tuple[float, csr_array]:
    """By how much rows could do better at these prices, in total, and the pairs where they could.

    At most CANDIDATES pairs a row. float32 finds them, float64 confirms them: a pair that has been
    added is never returned again.
    """
    p, profit = (torch.from_numpy(dual).to(cosines.device) for dual in (prices, profits))
    gap, rows, columns = 0.0, [], []
    for first, tile in _priced_tiles(cosines, p.float()):
        own = profit[first : first + len(tile)]
        excess = tile.amax(1).double() - own
        gap += excess.clamp(min=0).sum().item()
        short = (excess > GAP).nonzero().flatten()
        found = tile[short].topk(min(CANDIDATES, len(prices)), sorted=False).indices
        short = (short + first)[:, None].expand_as(found)
        better = _exact(cosines[short, found]) - p[found] > profit[short]
        rows.append(short[better])
        columns.append(found[better])
    return gap, _pairs(cosines, torch.cat(rows), torch.cat(columns))


def _rows(costs: csr_array) -> Indices:
    return np.repeat(np.arange(costs.shape[0]), np.diff(costs.indptr))
