"""Replay of whole trials: all exploration and execution episodes of each, as padded batches with masks."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dream.common.batches import EpisodeBatch, TrialBatch
from sb3_dream.common.buffers import EpisodeReplayBuffer, seeded_by_numpy
from sb3_dream.common.checks import check_fits, check_whole
from sb3_dream.common.trial import TRIAL_KEYS, is_on

#: Within one inner episode these say nothing that the mask does not say.
_FLAGS = frozenset({"exploring", "episode_start", "episode_end"})


class TrialReplayBuffer(EpisodeReplayBuffer):
    """
    Replay buffer of trials, which to SB3 are episodes. The paper's two buffers (exploration and execution) are two views of
    the same rows.

    :param buffer_size: number of steps kept, over all environments
    :param observation_space: the space of ``TrialEnv``
    :param action_space: a Discrete space
    :param device: where the sampled tensors go
    :param n_envs: number of environments side by side
    :param optimize_memory_usage: must be False; no observation is stored twice anyway
    :param problem_space: the space of problem IDs
    :param n_execution_episodes: N, execution episodes in each trial
    :param n_exploration_episodes: exploration episodes in each trial
    :param n_sampled_executions: execution episodes of a trial that ``sample`` draws, at most N. Where execution is the harder
        part, more of them give it more to learn from beside the same exploration
    :param random_shift: as of ``EpisodeReplayBuffer``; exploration and execution are moved apart
    :raises ValueError: if the spaces are not those of a trial, a number of episodes is out of its range, or no row fits
    """

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        problem_space: spaces.Space,
        n_execution_episodes: int = 1,
        n_exploration_episodes: int = 1,
        n_sampled_executions: int = 1,
        random_shift: int = 0,
    ):
        if not isinstance(observation_space, spaces.Dict) or not set(TRIAL_KEYS) <= set(observation_space.spaces):
            raise ValueError(f"TrialReplayBuffer needs the observation space of a TrialEnv, got {observation_space}")
        check_whole(
            1,
            n_exploration_episodes=n_exploration_episodes,
            n_execution_episodes=n_execution_episodes,
            n_sampled_executions=n_sampled_executions,
        )
        if n_sampled_executions > n_execution_episodes:
            raise ValueError(
                f"n_sampled_executions must be at most the {n_execution_episodes} execution episodes of a trial, "
                f"got {n_sampled_executions}"
            )
        self.problem_space = problem_space
        self.n_exploration_episodes = n_exploration_episodes
        self.n_execution_episodes = n_execution_episodes
        self.n_sampled_executions = n_sampled_executions
        super().__init__(buffer_size, observation_space, action_space, device, n_envs, optimize_memory_usage, random_shift)

    def _table_fields(self) -> list[tuple]:
        # The end of each inner episode counted from the first row, and the problem ID.
        problem: Any = self.problem_space.dtype
        if isinstance(self.problem_space, spaces.Discrete):
            problem = np.min_scalar_type(int(self.problem_space.n) - 1)
        n_episodes = self.n_exploration_episodes + self.n_execution_episodes
        return [self._ends_field(n_episodes), ("problem_id", problem, self.problem_space.shape)]

    def cut_unfinished_episodes(self) -> None:
        """They are dropped: a trial without its end teaches nothing here."""
        self.drop_unfinished_episodes()

    def add(self, *args: Any, **kwargs: Any) -> None:
        """
        Store one step of every environment, as ``EpisodeReplayBuffer.add``.

        :param args: of the base class
        :param kwargs: of the base class
        :raises ValueError: if a shape is wrong, a trial is longer than the buffer, or it has other inner episodes
        """
        check_fits(self.n_steps_under_way.max() + 1, self.buffer_size)
        super().add(*args, **kwargs)

    def _entry(self, start: int, env: int, info: dict[str, Any]) -> tuple:
        length = self.n_rows - start
        if "problem_id" not in info:
            raise ValueError("A trial ended without info['problem_id']: learning needs a TrialEnv with training=True")
        rows = np.arange(start, self.n_rows) % self.buffer_size
        starts = np.flatnonzero(is_on(self.observations["episode_start"][rows, env]))
        n_explored = int(np.count_nonzero(is_on(self.observations["exploring"][rows[starts], env])))
        n_executed = len(starts) - n_explored
        if n_explored != self.n_exploration_episodes or n_executed != self.n_execution_episodes:
            raise ValueError(
                f"A trial has {self.n_exploration_episodes} + {self.n_execution_episodes} inner episodes, but the one that "
                f"environment {env} ended has {n_explored} + {n_executed} (episode_start must be 1 at the first observation "
                "of each, and exploring while it is explored)"
            )
        return start, env, (*starts[1:], length), info["problem_id"]

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None, rng: np.random.Generator | None = None
    ) -> TrialBatch:
        """
        Draw whole trials, with replacement, and of each ``n_sampled_executions`` different execution episodes.

        :param batch_size: number of trials B
        :param env: the VecNormalize whose statistics normalise the stored raw data
        :param rng: the generator to draw with; without one, numpy's global one decides
        :return: the padded batch, on the buffer's device
        :raises ValueError: if no whole trial is stored
        """
        rng = rng or seeded_by_numpy()
        trials = self._draw(batch_size, rng)
        n_sampled, n_stored = self.n_sampled_executions, self.n_execution_episodes
        if n_sampled == 1:
            episodes = rng.integers(1, n_stored + 1, size=(1, batch_size))
        else:
            episodes = 1 + rng.random((n_stored, batch_size)).argsort(axis=0)[:n_sampled]
        batch = self.batch(trials, episodes, env)
        return replace(batch, exploration=self._shifted(batch.exploration, rng), execution=self._shifted(batch.execution, rng))

    def sample_whole(
        self, batch_size: int, env: VecNormalize | None = None, rng: np.random.Generator | None = None
    ) -> tuple[EpisodeBatch, th.Tensor]:
        """
        Draw whole trials, with replacement, each as one episode: exploration, execution and the steps between.

        :param batch_size: number of trials B
        :param env: the VecNormalize whose statistics normalise the stored raw data
        :param rng: the generator to draw with; without one, numpy's global one decides
        :return: the padded trials, and their problem IDs (B,) or (B, d), on the buffer's device
        :raises ValueError: if no whole trial is stored
        """
        rng = rng or seeded_by_numpy()
        trials = self._draw(batch_size, rng)
        lengths = trials["ends"][:, -1].astype(np.int64)
        batch = self._gather(trials["start"], trials["env"], lengths, lengths, env)
        return self._shifted(batch, rng), self._problem_ids(trials)

    def _draw(self, batch_size: int, rng: np.random.Generator) -> np.ndarray:
        """Rows of the table, drawn from those of whole trials."""
        whole = self._whole()
        if len(whole) == 0:
            raise ValueError("No whole trial to sample from yet")
        return self._table[whole[rng.integers(len(whole), size=batch_size)]]

    def _problem_ids(self, trials: np.ndarray) -> th.Tensor:
        return self.to_torch(trials["problem_id"].astype(self.problem_space.dtype))

    def batch(self, trials: np.ndarray, episodes: np.ndarray, env: VecNormalize | None = None) -> TrialBatch:
        """
        The given trials as one batch.

        :param trials: (B,) rows of the table
        :param episodes: (M, B), or (B,) for M = 1: which execution episodes of each, between 1 and N
        :param env: as in ``sample``
        :return: the padded batch
        """
        columns, n_explored = np.arange(len(trials)), self.n_exploration_episodes
        ends = trials["ends"].astype(np.int64)
        explored, executed = ends[:, :n_explored], ends[:, n_explored - 1 :]
        episodes = np.atleast_2d(episodes)
        nothing, explored_end = np.zeros(len(trials), dtype=np.int64), explored[:, -1]
        begin, end = executed[columns, episodes - 1].ravel(), executed[columns, episodes].ravel()
        is_last = (episodes == self.n_execution_episodes).astype(np.int64).ravel()  # its last observation is not stored
        return TrialBatch(
            exploration=self._episodes(trials, nothing, explored_end, 0, env, between=self._between(explored)),
            execution=self._episodes(np.tile(trials, len(episodes)), begin, end, is_last, env),
            problem_ids=self._problem_ids(trials),
        )

    def _between(self, explored: np.ndarray) -> th.Tensor | None:
        """Where exploration goes on in another episode. ``explored`` (B, K) has the ends of the K exploration episodes."""
        n_trials, n_episodes = explored.shape
        if n_episodes == 1:
            return None
        between = np.zeros((explored[:, -1].max() - 1, n_trials), dtype=np.bool_)
        between[explored[:, :-1].T - 1, np.arange(n_trials)] = True
        return self.to_torch(between, copy=False)

    def _episodes(
        self,
        trials: np.ndarray,
        begin: np.ndarray,
        end: np.ndarray,
        extra: np.ndarray | int,
        env: VecNormalize | None,
        between: th.Tensor | None = None,
    ) -> EpisodeBatch:
        """The rows ``begin`` to ``end``, counted within each trial."""
        skipped = _FLAGS if env is None else frozenset()  # VecNormalize wants every key that it normalises
        length = end - begin
        return self._gather(trials["start"] + begin, trials["env"], length, length - 1 + extra, env, skipped, between=between)
