"""Replay of whole trials: each step is stored once, whole trials are sampled as padded batches with masks."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import get_action_dim, maybe_transpose
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dream.common.trial import TRIAL_KEYS, is_on

#: Within one inner episode these say nothing that the mask does not say.
_FLAGS = frozenset({"exploring", "episode_start", "episode_end"})


@dataclass(frozen=True)
class EpisodeBatch:
    """
    B inner episodes, padded to T transitions. Time comes first, as nn.LSTM wants it.

    Where a trial's last execution episode ends, its last observation is not stored (nothing is learned from it: no value
    is bootstrapped past the end); the row then repeats the observation before.
    """

    #: each (T + 1, B, *shape): the observation before transition t, and after the last one
    observations: dict[str, th.Tensor]
    #: (T, B), int64
    actions: th.Tensor
    #: (T, B), float32
    rewards: th.Tensor
    #: (B,), int64: the number of transitions of each episode, between 1 and T
    lengths: th.Tensor

    def __post_init__(self) -> None:
        shape = self.actions.shape
        if self.rewards.shape != shape or self.lengths.shape != shape[1:]:
            raise ValueError(f"actions {shape}, rewards {self.rewards.shape} and lengths {self.lengths.shape} do not agree")
        for key, value in self.observations.items():
            if value.shape[:2] != (shape[0] + 1, shape[1]):
                raise ValueError(f"observations[{key!r}] must begin with {(shape[0] + 1, shape[1])}, got {tuple(value.shape)}")

    def _time(self, n_steps: int) -> th.Tensor:
        return th.arange(n_steps, device=self.lengths.device).unsqueeze(1)

    @property
    def mask(self) -> th.Tensor:
        """(T, B), float32: 1 for a transition, 0 for padding."""
        return (self._time(len(self.actions)) < self.lengths).float()

    @property
    def prefix_mask(self) -> th.Tensor:
        """(T + 1, B), float32: 1 for every prefix of the episode, the empty one included."""
        return (self._time(len(self.actions) + 1) <= self.lengths).float()

    @property
    def action_mask(self) -> th.Tensor:
        """(T + 1, B), float32: 1 for every observation that an action answered."""
        return (self._time(len(self.actions) + 1) < self.lengths).float()

    @property
    def dones(self) -> th.Tensor:
        """(T, B), float32: 1 for the transition that ends the episode."""
        return (self._time(len(self.actions)) == self.lengths - 1).float()


@dataclass(frozen=True)
class TrialBatch:
    """B trials: the exploration episode of each, and one of its execution episodes."""

    #: the paper's exploration buffer
    exploration: EpisodeBatch
    #: the paper's execution buffer; entry b comes from the same trial as ``exploration``'s
    execution: EpisodeBatch
    #: (B,) int64 for a Discrete problem space, else (B, d)
    problem_ids: th.Tensor

    def __post_init__(self) -> None:
        sizes = {len(self.exploration.lengths), len(self.execution.lengths), len(self.problem_ids)}
        if len(sizes) != 1:
            raise ValueError(f"A TrialBatch needs as many explorations as executions and problem IDs, got {sizes}")


class TrialReplayBuffer(ReplayBuffer):
    """
    Replay buffer of trials. Every environment writes its steps, each once, in its own column of a ring; a table remembers
    where each finished trial lies. The paper's two buffers (exploration and execution) are two views of the same rows.

    :param buffer_size: number of steps kept, over all environments
    :param observation_space: the space of ``TrialEnv``
    :param action_space: a Discrete space
    :param device: where the sampled tensors go
    :param n_envs: number of environments side by side
    :param optimize_memory_usage: must be False; no observation is stored twice anyway
    :param problem_space: the space of problem IDs
    :param n_execution_episodes: N, execution episodes in each trial
    :raises ValueError: if the spaces are not those of a trial, or no row fits
    """

    observations: dict[str, np.ndarray]  # type: ignore[assignment]
    handle_timeout_termination = False  # a trial only terminates; SB3 asks when it loads a buffer

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
    ):
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        if optimize_memory_usage:
            raise ValueError("TrialReplayBuffer stores each step once already: optimize_memory_usage must be False")
        if not isinstance(observation_space, spaces.Dict) or not set(TRIAL_KEYS) <= set(observation_space.spaces):
            raise ValueError(f"TrialReplayBuffer needs the observation space of a TrialEnv, got {observation_space}")
        self.buffer_size = buffer_size // n_envs
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size must be at least one step for each of {n_envs} environments, got {buffer_size}")
        self.problem_space = problem_space
        self.n_execution_episodes = n_execution_episodes
        shape = (self.buffer_size, n_envs)
        # np.zeros takes memory only as rows are written (enjoy and record_video load full-size buffers).
        self.observations = {
            key: np.zeros((*shape, *space.shape), dtype=space.dtype)  # type: ignore[misc]
            for key, space in observation_space.spaces.items()
        }
        self.actions = np.zeros((*shape, get_action_dim(action_space)), dtype=action_space.dtype)
        self.rewards = np.zeros(shape, dtype=np.float32)
        self.reset()

    def reset(self) -> None:
        """Forget every trial."""
        super().reset()
        #: rows written since the beginning; row r of an environment lies at r % buffer_size
        self.n_rows = 0
        self._trial_start = np.zeros(self.n_envs, dtype=np.int64)
        self._n_table = 0
        self._table = np.zeros(64, dtype=self._table_dtype())

    def _table_dtype(self) -> np.dtype:
        # First row, environment, end of each inner episode counted from the first row, problem ID. The smallest integers
        # that do, as a trial may have only three rows.
        problem: Any = self.problem_space.dtype
        if isinstance(self.problem_space, spaces.Discrete):
            problem = np.min_scalar_type(int(self.problem_space.n) - 1)
        fields = [
            ("start", np.int64),
            ("env", np.min_scalar_type(self.n_envs)),
            ("ends", np.min_scalar_type(self.buffer_size), (self.n_execution_episodes + 1,)),
            ("problem_id", problem, self.problem_space.shape),
        ]
        return np.dtype(fields)

    @property
    def n_trials(self) -> int:
        """Number of whole trials that can be sampled."""
        return len(self._whole_trials())

    def _whole_trials(self) -> np.ndarray:
        """Places in the table of the trials whose every row is still there."""
        return np.flatnonzero(self._table["start"][: self._n_table] >= self.n_rows - self.buffer_size)

    def drop_unfinished_trials(self) -> None:
        """Forget the steps of trials under way: what comes next is the first step of a new trial in each environment."""
        self._trial_start[:] = self.n_rows
        self.pos = self.n_rows % self.buffer_size  # an interrupt can have come in between

    def __getstate__(self) -> dict[str, Any]:
        # Rows that were never written are not saved.
        written = slice(min(self.n_rows, self.buffer_size))
        return {
            **self.__dict__,
            "observations": {key: rows[written] for key, rows in self.observations.items()},
            "actions": self.actions[written],
            "rewards": self.rewards[written],
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.observations = {key: self._with_room(rows) for key, rows in self.observations.items()}
        self.actions, self.rewards = self._with_room(self.actions), self._with_room(self.rewards)

    def _with_room(self, written: np.ndarray) -> np.ndarray:
        rows = np.zeros((self.buffer_size, *written.shape[1:]), dtype=written.dtype)
        rows[: len(written)] = written
        return rows

    def add(  # type: ignore[override]
        self,
        obs: dict[str, np.ndarray],
        next_obs: dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one step of every environment.

        :param obs: the observations before the step, each (n_envs, *shape)
        :param next_obs: not stored: it is the next step's ``obs``
        :param action: (n_envs,) or (n_envs, 1)
        :param reward: (n_envs,)
        :param done: (n_envs,), whether the trial ended with this step
        :param infos: n_envs dicts with ``problem_id`` where ``done``
        :raises ValueError: if a trial ends without a problem ID or is too long for the buffer, or a shape is wrong
        """
        for key, rows in self.observations.items():
            rows[self.pos] = self._as_stored(key, obs[key])
        self.actions[self.pos] = action.reshape(self.n_envs, -1)
        self.rewards[self.pos] = reward
        self.n_rows += 1
        self.pos = self.n_rows % self.buffer_size
        self.full = self.n_rows >= self.buffer_size
        for env in np.flatnonzero(done):
            self._finish_trial(int(env), infos[env])

    def _as_stored(self, key: str, value: np.ndarray) -> np.ndarray:
        """What VecNormalize has kept from before VecTransposeImage gets its channels first."""
        wanted = self.observations[key].shape[1:]
        if value.shape != wanted:
            value = maybe_transpose(value, self.observation_space[key])  # type: ignore[index]
        if value.shape != wanted:
            raise ValueError(
                f"Observation {key!r} to store has shape {value.shape}, but the policy sees {wanted}. VecNormalize must stand "
                "outside of wrappers that change observations: VecNormalize(VecFrameStack(env))"
            )
        return value

    def _finish_trial(self, env: int, info: dict[str, Any]) -> None:
        start = int(self._trial_start[env])
        length = self.n_rows - start
        self._trial_start[env] = self.n_rows
        if "problem_id" not in info:
            raise ValueError("A trial ended without info['problem_id']: learning needs a TrialEnv with training=True")
        if length > self.buffer_size:
            raise ValueError(
                f"A trial of {length} steps does not fit: buffer_size holds {self.buffer_size} steps for each environment"
            )
        rows = np.arange(start, self.n_rows) % self.buffer_size
        starts = np.flatnonzero(is_on(self.observations["episode_start"][rows, env]))
        if len(starts) != self.n_execution_episodes + 1:
            raise ValueError(
                f"A trial has 1 + {self.n_execution_episodes} inner episodes, but the one that environment {env} ended "
                f"has {len(starts)} (episode_start must be 1 at the first observation of each)"
            )
        if self._n_table == len(self._table):
            self._make_room()
        self._table[self._n_table] = (start, env, (*starts[1:], length), info["problem_id"])
        self._n_table += 1

    def _make_room(self) -> None:
        """Drop the overwritten trials from the table; if most are still whole, enlarge it."""
        whole = self._table[self._whole_trials()]
        size = len(self._table) * 9 // 8 if len(whole) > 0.9 * len(self._table) else len(self._table)
        self._table = np.zeros(size, dtype=self._table.dtype)
        self._table[: len(whole)] = whole
        self._n_table = len(whole)

    def sample(  # type: ignore[override]
        self, batch_size: int, env: VecNormalize | None = None, rng: np.random.Generator | None = None
    ) -> TrialBatch:
        """
        Draw whole trials, with replacement, and one execution episode of each.

        :param batch_size: number of trials B
        :param env: the VecNormalize whose statistics normalise the stored raw data
        :param rng: the generator to draw with
        :return: the padded batch, on the buffer's device
        :raises ValueError: if no whole trial is stored
        """
        whole = self._whole_trials()
        if len(whole) == 0:
            raise ValueError("No whole trial to sample from yet")
        rng = rng or np.random.default_rng()
        trials = self._table[whole[rng.integers(len(whole), size=batch_size)]]
        episodes = rng.integers(1, self.n_execution_episodes + 1, size=batch_size)
        return self.batch(trials, episodes, env)

    def batch(self, trials: np.ndarray, episodes: np.ndarray, env: VecNormalize | None = None) -> TrialBatch:
        """
        The given trials as one batch.

        :param trials: (B,) rows of the table
        :param episodes: (B,) which execution episode of each, between 1 and N
        :param env: as in ``sample``
        :return: the padded batch
        """
        columns = np.arange(len(trials))
        ends = trials["ends"].astype(np.int64)
        begin, end = ends[columns, episodes - 1], ends[columns, episodes]
        is_last = (episodes == self.n_execution_episodes).astype(np.int64)  # its last observation is not stored
        return TrialBatch(
            exploration=self._episodes(trials, np.zeros_like(begin), ends[:, 0], 0, env),
            execution=self._episodes(trials, begin, end, is_last, env),
            problem_ids=self.to_torch(trials["problem_id"].astype(self.problem_space.dtype)),
        )

    def _episodes(
        self, trials: np.ndarray, begin: np.ndarray, end: np.ndarray, extra: np.ndarray | int, env: VecNormalize | None
    ) -> EpisodeBatch:
        """The rows ``begin`` to ``end`` (counted within each trial), padded with the last of them."""
        lengths = end - begin - 1 + extra
        n_steps = int(lengths.max())
        steps = np.minimum(begin + np.arange(n_steps + 1)[:, None], end - 1)
        place = ((trials["start"] + steps) % self.buffer_size, trials["env"])
        skipped = _FLAGS if env is None else frozenset()  # VecNormalize wants every key that it normalises
        observations = {key: rows[place] for key, rows in self.observations.items() if key not in skipped}
        transitions = (place[0][:n_steps], place[1])
        normalized: Any = self._normalize_obs(observations, env)
        return EpisodeBatch(
            observations={key: self.to_torch(value, copy=False) for key, value in normalized.items()},
            actions=self.to_torch(self.actions[transitions][..., 0].astype(np.int64), copy=False),
            rewards=self.to_torch(self._normalize_reward(self.rewards[transitions], env), copy=False),
            lengths=self.to_torch(lengths.astype(np.int64), copy=False),
        )
