"""The curve of a run: a row of figures each evaluation, in a csv file."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm

from benchmarks.records import Row, write_curve

#: what the models themselves log and the curve keeps
LOGGED = {
    "dream": ("train/problem_norm", "train/decoder_distance_start", "train/decoder_distance_end", "train/exploration_reward"),
    "recurrent_dqn": ("train/loss",),
    "import": ("train/td_belief", "train/td_problem", "train/belief"),
    "varibad": ("train/td", "train/rewards", "train/observations", "train/kl"),
    "ppo_lstm": ("train/value_loss", "train/entropy_loss", "train/explained_variance"),
    "dqn": ("train/loss",),
}


class CurveCallback(BaseCallback):
    """
    Evaluate at equal distances and write a row at once, so that an interrupted run keeps its curve. A run that goes on adds
    to the rows that it has.

    :param evaluations: each takes the model and returns columns of the row, e.g. ``SplitEvaluation``
    :param n_evaluations: how often
    :param total_timesteps: of the run
    :param path: the csv file
    :param logged: what of the model's own log goes beside them
    :param rows: of the run until now
    :param clocks: seconds and processor seconds of the run until now
    :param save: called between two rollouts when there are new rows, and in the end, with the model, the rows and the clocks
    """

    def __init__(
        self,
        evaluations: Sequence[Callable[[Any], dict[str, float]]],
        n_evaluations: int,
        total_timesteps: int,
        path: Path,
        logged: Sequence[str] = (),
        rows: Sequence[Row] = (),
        clocks: Sequence[float] = (0.0, 0.0),
        save: Callable[[Any, list[Row], list[float]], None] | None = None,
    ):
        super().__init__()
        self.evaluations = evaluations
        self.logged = logged
        self.path = path
        self.rows = list(rows)
        # the last one is at the end, wherever that falls
        self._marks = [total_timesteps * i / n_evaluations for i in range(1, n_evaluations)]
        self._before = np.array(clocks)
        self._save = save
        self._n_saved = len(self.rows)
        self._untimed = np.zeros(2)

    @property
    def _clocks(self) -> np.ndarray:
        """Seconds on the wall, and of processor time: what the run would take with a core to itself."""
        return np.array([time.perf_counter(), time.process_time()])

    @property
    def _timed(self) -> np.ndarray:
        """The same of training alone, since the run began."""
        return self._before + self._clocks - self._start - self._untimed

    def _on_training_start(self) -> None:
        self._start = self._clocks
        self._pass_marks()

    def _on_step(self) -> bool:
        if isinstance(self.model, OnPolicyAlgorithm):  # its rollouts are long, and its policy is the same all along one
            self._evaluate_if_due()
        return True

    def _on_rollout_start(self) -> None:
        self._evaluate_if_due()
        self._save_new_rows()

    def _on_training_end(self) -> None:
        if not self.rows or self.rows[-1]["timesteps"] < self.num_timesteps:
            self._evaluate()
        self._save_new_rows()

    def _pass_marks(self) -> None:
        done = self.rows[-1]["timesteps"] if self.rows else 0
        self._marks = [mark for mark in self._marks if mark > done]

    def _evaluate_if_due(self) -> None:
        if self._marks and self.num_timesteps >= self._marks[0]:
            self._evaluate()
            self._pass_marks()

    def _evaluate(self) -> None:
        begin = self._clocks
        seconds, cpu_seconds = self._timed
        row: Row = {"timesteps": self.num_timesteps, "seconds": seconds, "cpu_seconds": cpu_seconds}
        for evaluation in self.evaluations:
            row.update(evaluation(self.model))
        for key in self.logged:
            row[key] = self.logger.name_to_value[key]
        self.rows.append({key: round(float(value), 5) for key, value in row.items()})
        write_curve(self.path, self.rows)
        self._untimed += self._clocks - begin

    def _save_new_rows(self) -> None:
        if self._save is not None and self._n_saved < len(self.rows):
            begin = self._clocks
            self._save(self.model, self.rows, self._timed.tolist())
            self._n_saved = len(self.rows)
            self._untimed += self._clocks - begin
