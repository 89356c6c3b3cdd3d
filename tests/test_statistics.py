"""Intervals keep their level; tests and correlations are the textbook's."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from faithful_sae.statistics import pair_interval, rank_interval, seed_interval, spearman


def test_seed_interval_is_students_t():
    values = [0.2, 0.5, 0.3, 0.9]
    mean, low, high, seeds = seed_interval(dict(enumerate(values)))
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (mean, seeds) == (pytest.approx(np.mean(values)), 4)
    assert (low, high) == pytest.approx((expected.low, expected.high))


def test_pair_interval_by_hand_for_three_seeds():
    # Leaving out a seed leaves one pair: 0.6, 0.4, 0.2; se^2 = 2/3 * 0.08; t(0.975, 2) = 4.302653.
    mean, low, high, seeds = pair_interval({(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6})
    half = 4.302653 * math.sqrt(2 / 3 * 0.08)
    assert (mean, low, high, seeds) == pytest.approx((0.4, 0.4 - half, 0.4 + half, 3), rel=1e-6)


def test_pairs_of_additive_seed_effects_have_the_interval_of_their_seeds():
    effects = {0: 0.1, 1: 0.4, 5: 0.2, 7: 0.35}
    pairs = {(i, j): effects[i] + effects[j] for i, j in itertools.combinations(effects, 2)}
    assert pair_interval(pairs) == pytest.approx(
        seed_interval({s: 2 * a for s, a in effects.items()})
    )


def test_the_order_of_the_seeds_changes_no_bit():
    values = {0: 0.1, 1: 0.2, 2: 0.3}  # (0.1 + 0.2) + 0.3 is not (0.3 + 0.2) + 0.1
    assert seed_interval(values) == seed_interval(dict(reversed(values.items())))
    pairs = {(0, 1): 0.1, (0, 2): 0.2, (1, 2): 0.3}
    assert pair_interval(pairs) == pair_interval(dict(reversed(pairs.items())))


def test_a_seed_paired_with_itself_is_left_out():
    pairs = {(0, 1): 0.2, (0, 2): 0.4, (1, 2): 0.6}
    assert pair_interval(pairs | {(0, 0): 1.0}) == pair_interval(pairs)


def test_too_few_seeds_give_a_mean_and_an_honest_gap():
    for interval, expected in (
        (seed_interval({3: 0.5}), (0.5, 1)),
        (pair_interval({(0, 1): 0.5}), (0.5, 2)),
        (pair_interval({(0, 1): 0.25, (0, 2): 0.75}), (0.5, 3)),
    ):
        assert (interval.mean, interval.seeds) == expected
        assert math.isnan(interval.low) and math.isnan(interval.high)


def test_no_value_is_an_error():
    with pytest.raises(ValueError, match="at least one value"):
        seed_interval({})
    with pytest.raises(ValueError, match="at least one value"):
        pair_interval({(1, 1): 0.5})


def coverage(draw: Callable[[], tuple[float, float]], trials: int = 3000) -> float:
    """Share of intervals that hold the true mean, 0."""
    return float(np.mean([low <= 0 <= high for low, high in (draw() for _ in range(trials))]))


@pytest.mark.parametrize("seeds", [3, 5])
def test_seed_interval_covers_the_true_mean_95_times_in_100(seeds):
    rng = np.random.default_rng(seeds)
    share = coverage(lambda: seed_interval(dict(enumerate(rng.normal(size=seeds))))[1:3])
    assert 0.935 < share < 0.965  # standard error 0.004


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize(("noise", "at_most"), [(0.0, 0.965), (1.0, 1.0)])
def test_pair_interval_covers_at_least_its_level_and_exactly_so_without_pair_noise(
    seeds, noise, at_most
):
    rng = np.random.default_rng(seeds)
    every = list(itertools.combinations(range(seeds), 2))

    def draw() -> tuple[float, float]:
        effects, errors = rng.normal(size=seeds), noise * rng.normal(size=len(every))
        pairs = {
            (i, j): effects[i] + effects[j] + e for (i, j), e in zip(every, errors, strict=True)
        }
        return pair_interval(pairs)[1:3]

    assert 0.935 < coverage(draw) <= at_most


def test_a_value_that_is_not_finite_has_no_interval():
    for value in (math.nan, math.inf):
        pairs = pair_interval({(0, 1): value, (0, 2): 0.5, (1, 2): 0.5})
        assert math.isnan(pairs.low) and math.isnan(pairs.high)


def test_p_and_effect_size_are_those_of_a_one_sample_t_test():
    values = [0.2, 0.5, 0.3, 0.9]
    interval = seed_interval(dict(enumerate(values)))
    assert interval.p == pytest.approx(stats.ttest_1samp(values, 0).pvalue)
    assert interval.effect_size == pytest.approx(np.mean(values) / np.std(values, ddof=1))
    assert interval.error == pytest.approx(stats.sem(values))


def test_an_interval_without_a_spread_has_neither_p_nor_effect_size():
    for interval in (seed_interval({0: 0.5}), seed_interval({0: 0.5, 1: 0.5})):
        assert math.isnan(interval.p) and math.isnan(interval.effect_size)


@pytest.mark.parametrize("seeds", [3, 5])
def test_one_true_null_in_twenty_has_p_below_a_twentieth(seeds):
    rng = np.random.default_rng(seeds)
    every = list(itertools.combinations(range(seeds), 2))
    for noise in ("seeds", "pairs"):
        p = []
        for _ in range(3000):
            effects = rng.normal(size=seeds)
            if noise == "seeds":
                p.append(seed_interval(dict(enumerate(effects))).p)
            else:
                p.append(pair_interval({(i, j): effects[i] + effects[j] for i, j in every}).p)
        assert 0.035 < np.mean(np.array(p) < 0.05) < 0.065


def test_spearman_is_scipys_with_the_exact_p():
    x, y = [1.0, 2.0, 2.0, 5.0, 9.0, 7.0], [0.1, 0.5, 0.3, 0.2, 0.9, 0.9]
    found = spearman(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.n == 6
    orders = itertools.permutations(y)
    rhos = np.array([stats.pearsonr(stats.rankdata(x), stats.rankdata(o))[0] for o in orders])
    # scipy's two-sided p is twice the smaller tail.
    tails = [np.mean(rhos >= found.rho - 1e-9), np.mean(rhos <= found.rho + 1e-9)]
    assert found.p == pytest.approx(2 * min(tails))


def test_the_p_of_many_points_repeats():
    x, y = range(9), [3.0, 1.0, 4.0, 1.5, 5.0, 9.0, 2.0, 6.0, 5.5]
    assert spearman(x, y) == spearman(x, y)


def test_spearman_of_an_increasing_relation_is_one_and_its_interval_below_one():
    rho, low, high, p, n = spearman([1, 2, 3, 4, 5], [0.1, 0.2, 30.0, 31.0, 1e9])
    assert rho == pytest.approx(1)
    assert low < 0 < high < 1  # five points say little, however well they lie
    assert p == pytest.approx(2 / math.factorial(5))
    assert n == 5
    mirrored = spearman([1, 2, 3, 4, 5], [-0.1, -0.2, -30.0, -31.0, -1e9])
    assert (mirrored.low, mirrored.high) == pytest.approx((-high, -low))


def test_spearman_of_few_or_equal_points_has_no_interval():
    few = spearman([1, 2, 3, 4], [4, 3, 2, 1])  # 2 of 24 orders are as extreme: no evidence
    assert few.rho == pytest.approx(-1) and math.isnan(few.low) and math.isnan(few.p)
    assert math.isnan(spearman([1, 2, 3, 4, 5], [7, 7, 7, 7, 7]).rho)
    assert math.isnan(spearman([1], [2]).rho)
    with pytest.raises(ValueError, match="give pairs"):
        spearman([1, 2], [1])


def test_a_rank_interval_by_hand():
    z, half = math.log(3) / 2, 1.959964 * math.sqrt(1.125 / 9)  # of rho 0.5 and 12 points
    expected = [math.tanh(z - half), math.tanh(z + half)]
    assert rank_interval(0.5, 12) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("corpora", [5, 8, 12])
@pytest.mark.parametrize("strength", [0.0, 0.5, 0.9])
def test_rank_interval_covers_the_true_correlation(corpora, strength):
    rng = np.random.default_rng(corpora)
    true = 6 / math.pi * math.asin(strength / 2)  # of a bivariate normal

    def draw() -> tuple[float, float]:
        x = rng.normal(size=corpora)
        y = strength * x + math.sqrt(1 - strength**2) * rng.normal(size=corpora)
        ranks = stats.rankdata(x), stats.rankdata(y)
        low, high = rank_interval(float(np.corrcoef(*ranks)[0, 1]), corpora)
        return low - true, high - true

    assert coverage(draw, trials=1500) > 0.92  # standard error 0.006
