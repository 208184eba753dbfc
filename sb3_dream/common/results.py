"""What an evaluation came to: means with their intervals, read against the exact limits of the family."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

_N_RESAMPLES = 5000
_UNKNOWN = float("nan")


def _share(achieved: np.ndarray, optimal: np.ndarray, unexplored: float) -> np.ndarray:
    """(R − R₀) / (R* − R₀); NaN where a limit is not known, or where exploring brings nothing."""
    gain = np.asarray(optimal - unexplored)
    return np.divide(achieved - unexplored, gain, out=np.full(gain.shape, np.nan), where=gain > 1e-9)


@dataclass(frozen=True)
class TrialResults:
    """
    What T trials of N execution episodes came to. ``print(results)`` shows the means with their intervals.

    *Share of optimal* is (R − R₀) / (R* − R₀): R the mean return, R* the best mean return with the problem known, and R₀
    the best that an agent can expect which has not explored. It says how much was gained of what exploring can bring: 1 is
    optimal, 0 is no better than not to explore, and below 0 is worse than that. Unlike R / R* it means the same where
    returns are negative, and does not change when every reward is shifted or scaled. It is the share of the means, not the
    mean of the problems' shares, for R₀ is a mean over the family. If instructions are drawn, chance can bring it above 1.
    It is NaN if the family does not know its limits, or if exploring cannot bring anything.
    """

    #: (T,), or (T, d) if IDs are vectors
    problem_ids: np.ndarray
    #: (T, N)
    execution_returns: np.ndarray
    #: (T, N)
    execution_lengths: np.ndarray
    #: (T,): the steps of all exploration episodes of a trial
    exploration_lengths: np.ndarray
    #: for each trial the family's own observations while exploring, as the environment gave them (not normalised or stacked),
    #: the first and the last of each exploration episode included: an array, or a dict of arrays if the family has other keys
    #: than ``observation``
    exploration_observations: list[Any] = field(repr=False)
    #: for each trial the actions taken while exploring, one fewer than the observations: from the last observation of an
    #: exploration episode to the first of the next one there is none, and -1 stands for it (NaN if actions are real numbers)
    exploration_actions: list[np.ndarray] = field(repr=False)
    #: (T,): R*, the family's ``optimal_return`` of each trial's problem; NaN if not known
    optimal_returns: np.ndarray
    #: R₀, the family's ``no_exploration_return``; NaN if not known
    no_exploration_return: float

    @property
    def mean_return(self) -> float:
        """R: mean return of an execution episode."""
        return float(self.execution_returns.mean())

    @property
    def mean_exploration_length(self) -> float:
        """Mean number of steps of a trial's exploration."""
        return float(self.exploration_lengths.mean())

    @property
    def mean_optimal_return(self) -> float:
        """R*: the best mean return with the problem known; NaN if not known."""
        return float(self.optimal_returns.mean())

    @property
    def share_of_optimal(self) -> float:
        """(R − R₀) / (R* − R₀), see above."""
        return float(_share(self.execution_returns.mean(), self.optimal_returns.mean(), self.no_exploration_return))

    def _problems(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each problem the first trial (P,), in the order of the trials; and of each trial the problem's place (T,)."""
        _, first, place = np.unique(self.problem_ids, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first)
        return first[order], np.argsort(order)[place.reshape(-1)]

    def per_problem(self) -> list[dict[str, Any]]:
        """
        The rows of a table, one for each problem: ``csv.DictWriter`` and ``pandas.DataFrame`` take them as they are.

        :return: for each problem its ``problem_id``, number of ``trials``, mean ``return``, mean return of each execution
            episode (``return_1`` to ``return_N``), mean ``exploration_length``, ``optimal_return`` (NaN if not known) and
            ``share_of_optimal`` (of this problem's R and R*, against the family's R₀)
        """
        first, place = self._problems()
        rows = []
        for index, trial in enumerate(first):
            mine = place == index
            returns = self.execution_returns[mine]
            rows.append(
                {
                    "problem_id": self.problem_ids[trial].tolist(),
                    "trials": int(mine.sum()),
                    "return": float(returns.mean()),
                    **self._by_episode(returns),
                    "exploration_length": float(self.exploration_lengths[mine].mean()),
                    "optimal_return": float(self.optimal_returns[trial]),
                    "share_of_optimal": float(_share(returns.mean(), self.optimal_returns[trial], self.no_exploration_return)),
                }
            )
        return rows

    @staticmethod
    def _by_episode(returns: np.ndarray) -> dict[str, float]:
        return {f"return_{n}": float(mean) for n, mean in enumerate(returns.mean(axis=0), start=1)}

    def confidence_interval(self, of: str = "return", level: float = 0.95) -> tuple[float, float]:
        """
        Percentile bootstrap interval of the mean over problems like these: problems are drawn again with replacement, each
        with all its trials (and if there is only one problem, its trials are), 5000 times, from a generator of fixed seed.
        It is too narrow for fewer than about ten problems, and says nothing of how models of other seeds would do.

        :param of: ``"return"`` or ``"share_of_optimal"``
        :param level: between 0 and 1
        :return: its ends; NaN if there is one trial only
        :raises ValueError: for another ``of`` or ``level``
        """
        if of not in ("return", "share_of_optimal"):
            raise ValueError(f"of must be 'return' or 'share_of_optimal', got {of!r}")
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, got {level}")
        n_trials = len(self.execution_returns)
        first, place = self._problems()
        if len(first) == 1:
            place = np.arange(n_trials)
        n_units = int(place.max()) + 1
        if n_units == 1:
            return _UNKNOWN, _UNKNOWN
        # summed over the trials of each problem: R, R* and 1, so that problems weigh as their trials do
        sums = np.zeros((n_units, 3))
        of_trials = np.stack([self.execution_returns.mean(axis=1), self.optimal_returns, np.ones(n_trials)], axis=1)
        np.add.at(sums, place, of_trials)
        rng = np.random.default_rng(0)
        drawn = np.array([sums[rng.integers(n_units, size=n_units)].sum(axis=0) for _ in range(_N_RESAMPLES)])
        achieved, optimal = drawn[:, 0] / drawn[:, 2], drawn[:, 1] / drawn[:, 2]
        values = achieved if of == "return" else _share(achieved, optimal, self.no_exploration_return)
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def summary(self, level: float = 0.95) -> dict[str, float]:
        """
        One row of a table.

        :param level: of the confidence intervals
        :return: number of ``problems`` and ``trials``; mean ``return`` with the ends of its interval (``return_low``,
            ``return_high``), and of each execution episode (``return_1`` to ``return_N``); ``share_of_optimal``, with its
            interval too; ``exploration_length``; and the limits ``optimal_return`` and ``no_exploration_return``
        """
        low, high = self.confidence_interval("return", level)
        share_low, share_high = self.confidence_interval("share_of_optimal", level)
        return {
            "problems": len(self._problems()[0]),
            "trials": len(self.execution_returns),
            "return": self.mean_return,
            "return_low": low,
            "return_high": high,
            **self._by_episode(self.execution_returns),
            "share_of_optimal": self.share_of_optimal,
            "share_of_optimal_low": share_low,
            "share_of_optimal_high": share_high,
            "exploration_length": self.mean_exploration_length,
            "optimal_return": self.mean_optimal_return,
            "no_exploration_return": self.no_exploration_return,
        }

    def __str__(self) -> str:
        """The summary as a table; what is not known is left out."""
        row = self.summary()
        counts = f"{row['problems']} problems, {row['trials']} trials"
        lines = [f"{counts:<30}{'mean':>8}   95 % interval"]
        n_episodes = self.execution_returns.shape[1]
        labels = {
            "return": "execution return",
            **({f"return_{n}": f"  execution episode {n}" for n in range(1, n_episodes + 1)} if n_episodes > 1 else {}),
            "share_of_optimal": "share of optimal",
            "exploration_length": "exploration length",
            "optimal_return": "best return, problem known",
            "no_exploration_return": "best return, not exploring",
        }
        for key, label in labels.items():
            low, high = row.get(f"{key}_low", _UNKNOWN), row.get(f"{key}_high", _UNKNOWN)
            interval = "" if np.isnan(low) else f"   [{low:.3f}, {high:.3f}]"
            if not np.isnan(row[key]):
                lines.append(f"{label:<30}{row[key]:>8.3f}{interval}")
        return "\n".join(lines)
