"""TrialResults: what stands in a paper's table is what was meant."""

from typing import Any

import numpy as np
import pytest

from sb3_dream import TrialResults

NAN = float("nan")


def results(
    returns: Any, problem_ids: Any = None, optimal: Any = NAN, unexplored: float = NAN, lengths: Any = 1.0
) -> TrialResults:
    """Of trials with these returns, (T, N) or (T,)."""
    table = np.asarray(returns, dtype=float).reshape(len(returns), -1)
    n_trials = len(table)
    return TrialResults(
        problem_ids=np.arange(n_trials) if problem_ids is None else np.asarray(problem_ids),
        execution_returns=table,
        execution_lengths=np.ones(table.shape, dtype=int),
        exploration_lengths=np.broadcast_to(lengths, n_trials),
        exploration_observations=[None] * n_trials,
        exploration_actions=[np.zeros(1)] * n_trials,
        optimal_returns=np.broadcast_to(np.asarray(optimal, dtype=float), n_trials),
        no_exploration_return=unexplored,
    )


@pytest.mark.parametrize(
    ("achieved", "share"), [(0.8, 1.0), (0.3, 0.0), (0.55, 0.5), (-0.2, -1.0)], ids=["best", "unexplored", "half", "worse"]
)
@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1.0, -5.0), (10.0, 3.0)])
def test_share_of_optimal(achieved: float, share: float, scale: float, shift: float) -> None:
    """1 at the optimum and 0 without exploring, also where every return is negative: R / R* would call −5 of −4.2 119 %."""
    achieved, optimal, unexplored = (scale * value + shift for value in (achieved, 0.8, 0.3))
    assert results([achieved, achieved], None, optimal, unexplored).share_of_optimal == pytest.approx(share)


def test_the_share_is_of_the_means() -> None:
    """R₀ is a mean over the family. A problem whose optimum happens to lie near it would dominate a mean of shares."""
    both = results([0.5, 0.31], None, [0.9, 0.31001], 0.3)
    assert both.share_of_optimal == pytest.approx((0.405 - 0.3) / (0.605005 - 0.3))
    assert [row["share_of_optimal"] for row in both.per_problem()] == pytest.approx([1 / 3, 0.999], rel=1e-2)


@pytest.mark.parametrize(("optimal", "unexplored"), [(NAN, 0.3), (0.8, NAN), (0.3, 0.3), ([0.8, NAN], 0.3)])
def test_no_share_without_limits(optimal: Any, unexplored: float) -> None:
    """Not known, or nothing to gain: no number is better than a wrong one, and no warning of a division by zero either."""
    unknown = results([0.4, 0.6], None, optimal, unexplored)
    assert np.isnan(unknown.share_of_optimal)
    assert np.isnan(unknown.confidence_interval("share_of_optimal")).all()
    assert "share of optimal" not in str(unknown)
    assert "nan" not in str(unknown)
    assert np.isfinite(unknown.confidence_interval()).all()


def test_interval_of_many_problems() -> None:
    """With many problems it is the textbook's: mean ± 1.96 standard errors."""
    returns = np.random.default_rng(3).normal(2.0, 0.7, size=(400, 2))
    error = returns.mean(axis=1).std() / 20
    for level, z in ((0.95, 1.96), (0.5, 0.674)):
        low, high = results(returns).confidence_interval(level=level)
        assert (low, high) == pytest.approx((returns.mean() - z * error, returns.mean() + z * error), abs=0.15 * error)


def test_more_trials_of_the_same_problems_are_no_new_problems() -> None:
    """Counting the trials of one problem as independent would halve the interval for running each four times."""
    returns = np.random.default_rng(0).normal(size=50)
    once = results(returns, None, 3.0, 0.0)
    often = results(np.repeat(returns, 4), np.repeat(np.arange(50), 4), 3.0, 0.0)
    assert often.confidence_interval() == pytest.approx(once.confidence_interval())
    assert often.confidence_interval("share_of_optimal") == pytest.approx(once.confidence_interval("share_of_optimal"))
    assert often.summary()["problems"] == 50
    assert often.summary()["trials"] == 200


def test_interval_of_the_share() -> None:
    """Where a problem allows more, more is expected of it: here every problem reaches half, so nothing is uncertain."""
    optimal = np.random.default_rng(0).uniform(1.0, 2.0, size=30)
    half = results(0.1 + (optimal - 0.1) / 2, None, optimal, 0.1)
    assert half.confidence_interval("share_of_optimal") == pytest.approx((0.5, 0.5))
    low, high = half.confidence_interval("return")
    assert high - low > 0.05


def test_one_problem() -> None:
    """MetaCooking's test split: its trials are drawn again. One trial says nothing of how much the next may differ."""
    returns = np.random.default_rng(0).normal(size=100)
    assert results(returns, [10] * 100).confidence_interval() == pytest.approx(results(returns).confidence_interval())
    assert np.isnan(results([0.4]).confidence_interval()).all()
    assert "[" not in str(results([0.4]))


def test_the_interval_is_the_same_each_time() -> None:
    """A table that changes from one print to the next cannot be checked."""
    drawn = results(np.random.default_rng(0).normal(size=20))
    assert drawn.confidence_interval() == drawn.confidence_interval()


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_a_level_that_is_none(level: float) -> None:
    """95 is a common slip."""
    with pytest.raises(ValueError, match=f"level must be between 0 and 1, got {level}"):
        results([0.0, 1.0]).confidence_interval(level=level)


def test_an_interval_of_something_else() -> None:
    """Not a KeyError."""
    with pytest.raises(ValueError, match="of must be 'return' or 'share_of_optimal', got 'length'"):
        results([0.0, 1.0]).confidence_interval("length")


@pytest.mark.parametrize("vectors", [False, True])
def test_rows_per_problem(vectors: bool) -> None:
    """In the order of the trials, each problem once, whether IDs are numbers or vectors."""
    ids = [5, 2, 5, 0]
    table = results(
        [[1.0, 2.0], [3.0, 5.0], [5.0, 8.0], [0.0, 1.0]],
        [[i, 7] for i in ids] if vectors else ids,
        [8.0, 8.0, 8.0, 1.0],
        0.0,
        [2, 4, 6, 8],
    )
    rows = table.per_problem()
    assert [row["problem_id"] for row in rows] == ([[5, 7], [2, 7], [0, 7]] if vectors else [5, 2, 0])
    assert rows[0] == {
        "problem_id": [5, 7] if vectors else 5,
        "trials": 2,
        "return": 4.0,
        "return_1": 3.0,
        "return_2": 5.0,
        "exploration_length": 4.0,
        "optimal_return": 8.0,
        "share_of_optimal": 0.5,
    }
    assert [row["return"] for row in rows] == [4.0, 4.0, 0.5]
    assert table.mean_return == pytest.approx(25 / 8)


def test_the_table_that_is_printed() -> None:
    """Read at a glance: counts, means, intervals and limits, each execution episode if there are several."""
    printed = str(results([[0.5, 0.7], [0.6, 0.8]], None, 0.8, 0.3, [10, 12])).splitlines()
    assert printed[0].split() == ["2", "problems,", "2", "trials", "mean", "95", "%", "interval"]
    assert printed[1].split() == ["execution", "return", "0.650", "[0.600,", "0.700]"]
    assert [line.split()[-1] for line in printed[2:4]] == ["0.550", "0.750"]
    assert printed[4].split() == ["share", "of", "optimal", "0.700", "[0.600,", "0.800]"]
    assert [line.split()[-1] for line in printed[5:]] == ["11.000", "0.800", "0.300"]
    assert "execution episode" not in str(results([0.5, 0.6]))
