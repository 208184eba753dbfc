"""
The algorithms beside each other: interquartile means and probabilities of improvement with their bootstrap intervals (by
rliable), and how long it took to get somewhere.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import trim_mean
from stable_baselines3.common.utils import set_random_seed

from benchmarks.families import NAMES, Family

try:
    from rliable import library, metrics
except ModuleNotFoundError as error:
    raise ImportError(f"The comparison needs rliable (there is no {error.name}): pip install '.[comparison]'") from error

N_RESAMPLES = 2000
OURS = "dream"
ALL = "all families"


class Estimate(NamedTuple):
    """With the ends of its 95 % interval."""

    value: float
    low: float
    high: float


def _estimates(samples: Sequence[np.ndarray], function: Callable[..., np.ndarray]) -> list[Estimate]:
    """
    :param samples: of each family (and algorithm) the values of its seeds
    :param function: takes one (n_seeds, 1) array for each of them, and returns figures
    :return: each figure, the seeds of each sample drawn again by themselves
    """
    set_random_seed(0)  # rliable draws with NumPy's own generator
    arrays = [np.asarray(sample)[:, None] for sample in samples]
    points, intervals = library.get_interval_estimates({"": arrays}, function, reps=N_RESAMPLES)
    return [Estimate(*map(float, row)) for row in np.stack([points[""], *intervals[""]], axis=1)]


def interquartile_means(samples: Sequence[np.ndarray]) -> list[Estimate]:
    """
    :param samples: of each family the values of its seeds
    :return: the mean of the families' interquartile means, and each of these. (rliable's own pools all runs first: of four
        families the quarters that it cuts may be whole ones)
    """

    def function(*arrays: np.ndarray) -> np.ndarray:
        each = [metrics.aggregate_iqm(array) for array in arrays]
        return np.array([np.mean(each), *each])

    return _estimates(samples, function)


def probabilities_of_improvement(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[Estimate]:
    """
    :param pairs: of each family the values of our seeds and of the rival's
    :return: how likely a seed of ours is better than one of the rival's (half for a tie), the mean over families; and of each
    """

    def function(*arrays: np.ndarray) -> np.ndarray:
        # rliable's own probability_of_improvement is the same, by way of a rank test that takes most of a minute
        each = [np.mean(1 + np.sign(x - y.T)) / 2 for x, y in zip(arrays[::2], arrays[1::2], strict=True)]
        return np.array([np.mean(each), *each])

    return _estimates([sample for pair in pairs for sample in pair], function)


class Band(NamedTuple):
    """
    Runs of one algorithm on a common grid.

    :param x: steps or seconds
    :param value: interquartile mean over seeds
    :param low: of the 95 % interval at each point
    :param high: the same
    """

    x: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray


def band(runs: Sequence[dict[str, Any]], x_key: str, y_key: str, n_points: int = 60) -> Band:
    """
    :param runs: of one algorithm
    :param x_key: column of the curve: ``timesteps``, ``seconds`` or ``cpu_seconds``
    :param y_key: column of the curve, e.g. ``test/return``
    :param n_points: of the grid. It begins when all runs have been evaluated; one that is over keeps its last return
    :return: the runs, interpolated in straight lines
    """
    columns = [[[row[key] for row in run["curve"]] for key in (x_key, y_key)] for run in runs]
    grid = np.linspace(max(x[0] for x, _ in columns), max(x[-1] for x, _ in columns), n_points)
    curves = np.array([np.interp(grid, x, y) for x, y in columns])[:, None, :]
    set_random_seed(0)
    value, interval = library.get_interval_estimates(
        {"": curves}, lambda drawn: trim_mean(drawn[:, 0], 0.25, axis=0), reps=N_RESAMPLES // 2
    )
    return Band(grid, value[""], *interval[""])


def first_above(run: dict[str, Any], key: str, threshold: float) -> dict[str, float]:
    """
    :param run: with its ``curve``
    :param key: column of the curve
    :param threshold: to be reached
    :return: the first evaluation that reaches it and whose successor does too; never is infinite steps and seconds
    """
    for row, after in pairwise(run["curve"]):
        if min(row[key], after[key]) >= threshold:
            return row
    return dict.fromkeys(run["curve"][0], inf)


class Reached(NamedTuple):
    """
    When a threshold was first reached, median over all seeds (infinite if half of them never did).

    :param n_seeds: that did
    """

    n_seeds: int
    timesteps: float
    cpu_seconds: float
    seconds: float


def reached(family: Family, algo: str, threshold: float) -> Reached:
    """
    :param family: what was learned
    :param algo: one of its ``runs``
    :param threshold: a return
    :return: when
    """
    rows = [first_above(run, f"{family.split}/return", threshold) for run in family.runs[algo]]
    n_seeds = sum(row["timesteps"] < inf for row in rows)
    return Reached(n_seeds, *(float(np.median([row[key] for row in rows])) for key in ("timesteps", "cpu_seconds", "seconds")))


def thresholds(family: Family) -> tuple[float, float]:
    """
    :param family: what was learned
    :return: what is above the best return without exploring (by more than the curves' rounding), and 95 % of the optimum
    """
    return family.unexplored + 1e-4, 0.95 * family.optimum


@dataclass(frozen=True)
class Comparison:
    """
    What more than one algorithm has results on.

    :param families: all of them
    :param averaged: those in which exploring brings something, each once
    :param shares: of each algorithm the interquartile mean of ``Family.shares`` in each of ``averaged``, under its title, and
        the mean of these, under ``ALL``. An algorithm without results on a family is averaged over the others
    :param improvements: of each rival how likely DREAM is better, in the same way
    """

    families: list[Family]
    averaged: list[Family]
    shares: dict[str, dict[str, Estimate]]
    improvements: dict[str, dict[str, Estimate]]


def compare(families: Sequence[Family]) -> Comparison:
    """
    :param families: from ``read_families``
    :return: their comparison
    """
    compared = [family for family in families if len(family.runs) > 1]
    averaged = [family for family in compared if family.rewards_exploring and family.represents_problems]
    shares, improvements = {}, {}
    for algo in NAMES:
        mine = [family for family in averaged if algo in family.runs]
        if mine:
            keys = [ALL, *(family.title for family in mine)]
            shares[algo] = dict(zip(keys, interquartile_means([family.shares(algo) for family in mine]), strict=True))
        both = [family for family in mine if OURS in family.runs and algo != OURS]
        if both:
            keys = [ALL, *(family.title for family in both)]
            pairs = [(family.returns(OURS), family.returns(algo)) for family in both]
            improvements[algo] = dict(zip(keys, probabilities_of_improvement(pairs), strict=True))
    return Comparison(compared, averaged, shares, improvements)
