"""Replay of whole episodes: each step is stored once; episodes are sampled, whole or in windows, as padded batches."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer
from stable_baselines3.common.preprocessing import get_action_dim, is_image_space, maybe_transpose
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dream.common.batches import EpisodeBatch, shift_images
from sb3_dream.common.checks import check_whole


def as_dict(observation: Any) -> dict[str, Any]:
    """
    :param observation: of any space
    :return: itself if it is a Dict, else a Dict of one
    """
    return observation if isinstance(observation, dict) else {"observation": observation}


def seeded_by_numpy() -> np.random.Generator:
    """
    :return: a generator that numpy's global one seeds: where no other is given, ``set_random_seed`` decides, as in SB3
    """
    return np.random.default_rng(np.random.randint(2**31))  # noqa: NPY002


class EpisodeReplayBuffer(ReplayBuffer):
    """
    Replay buffer of episodes. Every environment writes its steps, each once, in its own column of a ring; a table remembers
    where each finished episode lies. Only of an episode that was cut by a time limit the last observation is kept apart: the
    value of what would have come is bootstrapped from it.

    :param buffer_size: number of steps kept, over all environments
    :param observation_space: any space that SB3 has policies for; a Dict must be flat
    :param action_space: a Discrete space
    :param device: where the sampled tensors go
    :param n_envs: number of environments side by side
    :param optimize_memory_usage: must be False; no observation is stored twice anyway
    :param random_shift: images are sampled moved by up to so many pixels, the same for all of a batch, their edges repeated
        (DrQ, Kostrikov et al. 2021). Where frames are few, what is learned from them holds for others sooner
    :raises ValueError: if no row fits, or there is no image that can be moved so far
    """

    observations: dict[str, np.ndarray]  # type: ignore[assignment]
    handle_timeout_termination = False  # it is always done; SB3 asks when it loads a buffer

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        random_shift: int = 0,
    ):
        BaseBuffer.__init__(self, buffer_size, observation_space, action_space, device, n_envs=n_envs)
        if optimize_memory_usage:
            raise ValueError(f"{type(self).__name__} stores each step once already: optimize_memory_usage must be False")
        self.buffer_size = buffer_size // n_envs
        if self.buffer_size < 1:
            raise ValueError(f"buffer_size must be at least one step for each of {n_envs} environments, got {buffer_size}")
        check_whole(0, random_shift=random_shift)
        self.random_shift = random_shift
        self._images = [key for key, space in self._observation_spaces.items() if is_image_space(space)]
        sides = [side for key in self._images for side in self._observation_spaces[key].shape[-2:]]  # type: ignore[index]
        if random_shift > 0 and random_shift >= min(sides, default=0):
            raise ValueError(
                f"random_shift must be less than the sides of the images in {observation_space}, got {random_shift}"
            )
        shape = (self.buffer_size, n_envs)
        # np.zeros takes memory only as rows are written (enjoy and record_video load full-size buffers).
        self.observations = {
            key: np.zeros((*shape, *space.shape), dtype=space.dtype)  # type: ignore[misc]
            for key, space in self._observation_spaces.items()
        }
        self.actions = np.zeros((*shape, get_action_dim(action_space)), dtype=action_space.dtype)
        self.rewards = np.zeros(shape, dtype=np.float32)
        self.reset()

    @property
    def _observation_spaces(self) -> dict[str, spaces.Space]:
        return as_dict(getattr(self.observation_space, "spaces", self.observation_space))

    def reset(self) -> None:
        """Forget every episode."""
        super().reset()
        #: rows written since the beginning; row r of an environment lies at r % buffer_size
        self.n_rows = 0
        self._episode_start = np.zeros(self.n_envs, dtype=np.int64)
        self._n_table = 0
        # first row, environment and more; the smallest integers that do, as an episode may have very few rows
        fields = [("start", np.int64), ("env", np.min_scalar_type(self.n_envs)), *self._table_fields()]
        self._table = np.zeros(64, dtype=np.dtype(fields))

    def _ends_field(self, n_parts: int) -> tuple:
        # the end of each part of an episode counted from its first row
        return "ends", np.min_scalar_type(self.buffer_size), (n_parts,)

    def _table_fields(self) -> list[tuple]:
        # where the episode ends, whether it came to an end of its own, and if not, its last observation
        last = [(key, space.dtype, space.shape) for key, space in self._observation_spaces.items()]
        return [self._ends_field(1), ("terminated", np.bool_), ("last", np.dtype(last))]

    @property
    def n_episodes(self) -> int:
        """Number of finished episodes that are still there from their beginning to their end."""
        return len(self._whole())

    @property
    def n_steps_under_way(self) -> np.ndarray:
        """(n_envs,), how many steps the episode under way has so far."""
        return self.n_rows - self._episode_start

    def _whole(self) -> np.ndarray:
        """Places in the table of the finished episodes whose every row is still there."""
        return np.flatnonzero(self._table["start"][: self._n_table] >= self.n_rows - self.buffer_size)

    def drop_unfinished_episodes(self) -> None:
        """Forget the episodes under way: what comes next is the first step of a new one in each environment."""
        self._episode_start[:] = self.n_rows
        self.pos = self.n_rows % self.buffer_size  # an interrupt can have come in between

    def cut_unfinished_episodes(self) -> None:
        """End the episodes under way as a time limit does, before their last row: what came before it stays to be learned."""
        newest = self.n_rows - 1
        first = np.maximum(self._episode_start, self.n_rows - self.buffer_size)
        for env in np.flatnonzero(first < newest):
            last = np.zeros((), dtype=self._table.dtype["last"])
            for key, rows in self.observations.items():
                last[key] = rows[newest % self.buffer_size, env]
            self._append((first[env], env, (newest - first[env],), False, last))
        self.drop_unfinished_episodes()

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

    def add(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        next_obs: np.ndarray | dict[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        done: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        """
        Store one step of every environment.

        :param obs: the observations before the step, (n_envs, *shape) or a dict of them
        :param next_obs: not stored: it is the next step's ``obs``
        :param action: (n_envs,) or (n_envs, 1)
        :param reward: (n_envs,)
        :param done: (n_envs,), whether the episode ended with this step
        :param infos: n_envs dicts. Where ``done``, ``TimeLimit.truncated`` says that the episode was cut, and
            ``terminal_observation`` is what was then seen last
        :raises ValueError: if a shape is wrong
        """
        observations = as_dict(obs)
        for key, rows in self.observations.items():
            rows[self.pos] = self._as_stored(key, observations[key], rows.shape[1:])
        self.actions[self.pos] = action.reshape(self.n_envs, -1)
        self.rewards[self.pos] = reward
        self.n_rows += 1
        self.pos = self.n_rows % self.buffer_size
        self.full = self.n_rows >= self.buffer_size
        for env in np.flatnonzero(done):
            start, self._episode_start[env] = int(self._episode_start[env]), self.n_rows
            self._append(self._entry(start, int(env), infos[env]))

    def _as_stored(self, key: str, value: np.ndarray, wanted: tuple[int, ...]) -> np.ndarray:
        """What VecNormalize has kept from before VecTransposeImage gets its channels first."""
        if value.shape != wanted:
            value = maybe_transpose(value, self._observation_spaces[key])
        if value.shape != wanted:
            raise ValueError(
                f"Observation {key!r} to store has shape {value.shape}, but the policy sees {wanted}. VecNormalize must stand "
                "outside of wrappers that change observations: VecNormalize(VecFrameStack(env))"
            )
        return value

    def _entry(self, start: int, env: int, info: dict[str, Any]) -> tuple:
        """The table's row for the episode from row ``start`` that ``env`` has just ended."""
        start = max(start, self.n_rows - self.buffer_size)  # of an episode too long for the ring, what is left
        terminated = not info.get("TimeLimit.truncated", False)
        last = np.zeros((), dtype=self._table.dtype["last"])
        if not terminated:
            for key, value in as_dict(info["terminal_observation"]).items():
                stored = self._as_stored(key, np.asarray(value), last[key].shape)
                # VecNormalize takes back what it did but for the last bits, and 9 would become 8
                last[key] = np.rint(stored) if last[key].dtype.kind in "iu" else stored
        return start, env, (self.n_rows - start,), terminated, last

    def _append(self, entry: tuple) -> None:
        if self._n_table == len(self._table):
            self._make_room()
        self._table[self._n_table] = entry
        self._n_table += 1

    def _make_room(self) -> None:
        """Drop the overwritten episodes from the table; if most are still there, enlarge it."""
        stored = self._table[self._table["start"] + self._table["ends"][:, -1] > self.n_rows - self.buffer_size]
        size = len(self._table) * 9 // 8 if len(stored) > 0.9 * len(self._table) else len(self._table)
        self._table = np.zeros(size, dtype=self._table.dtype)
        self._table[: len(stored)] = stored
        self._n_table = len(stored)

    def _sources(self, sequence_length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """
        Where windows can lie: in what is left of finished episodes, then in the episodes under way. Where the beginning or the
        end is not there, only full windows are taken.

        :return: first row, environment, number of transitions and of windows of each
        """
        table, oldest = self._table[: self._n_table], self.n_rows - self.buffer_size
        start = np.append(table["start"], self._episode_start)
        # what comes after the last transition: of an episode under way, the last row that is stored
        end = np.append(table["start"] + table["ends"][:, -1], np.full(self.n_envs, self.n_rows - 1))
        first = np.maximum(start, oldest)
        whole = (start >= oldest) & (np.arange(len(start)) < self._n_table)
        n_windows = np.where(whole | (end - first >= sequence_length), -(-(end - first) // sequence_length), 0)
        return first, np.append(table["env"], np.arange(self.n_envs)), end - first, n_windows

    def _fitting(self, sequence_length: int) -> int:
        """A window that fits into the ring, with the row after it."""
        return min(sequence_length, max(self.buffer_size - 1, 1))

    def n_windows(self, sequence_length: int) -> int:
        """
        :param sequence_length: transitions in a window
        :return: how many windows there are to sample from, not counting that they may overlap
        """
        return int(self._sources(self._fitting(sequence_length))[-1].sum())

    def sample(  # type: ignore[override]
        self,
        batch_size: int,
        env: VecNormalize | None = None,
        rng: np.random.Generator | None = None,
        *,
        sequence_length: int,
        burn_in: int = 0,
    ) -> EpisodeBatch:
        """
        Draw windows of episodes, with replacement: an episode of up to ``sequence_length`` transitions whole, and a longer one
        from anywhere, as often as it has windows.

        :param batch_size: number of windows B
        :param env: the VecNormalize whose statistics normalise the stored raw data
        :param rng: the generator to draw with; without one, numpy's global one decides
        :param sequence_length: transitions in a window, at least 1; fewer where an episode is shorter
        :param burn_in: so many transitions come before them, as far as the episode has them, to bring up the memory
        :return: the padded batch, on the buffer's device
        :raises ValueError: if nothing can be sampled yet
        """
        rng = rng or seeded_by_numpy()
        sequence_length = self._fitting(sequence_length)
        first, envs, length, n_windows = self._sources(sequence_length)
        until = n_windows.cumsum()
        if until[-1] == 0:
            raise ValueError("No whole episode and no window of one to sample from yet")
        chosen = np.searchsorted(until, rng.integers(until[-1], size=batch_size), side="right")
        first, envs, length = first[chosen], envs[chosen], length[chosen]
        # begins and ends of episodes are rare enough: windows that would stick out are moved back in
        begin = np.clip(rng.integers(1 - sequence_length, length), 0, np.maximum(length - sequence_length, 0))
        end = np.minimum(begin + sequence_length, length)
        before = np.minimum(burn_in, begin)

        finished = np.flatnonzero((end == length) & (chosen < self._n_table))
        entries = self._table[chosen[finished]]
        terminated = np.zeros(batch_size, dtype=np.bool_)
        terminated[finished] = entries["terminated"]
        n_rows = before + end - begin + 1  # with the one that values are bootstrapped from
        n_rows[finished] -= 1
        batch = self._gather(
            first + begin - before,
            envs,
            n_rows,
            before + end - begin,
            env,
            last=(finished[~entries["terminated"]], entries["last"][~entries["terminated"]]),
            terminated=self.to_torch(terminated),
            burn_in=self.to_torch(before) if burn_in else None,
        )
        return self._shifted(batch, rng)

    def _shifted(self, batch: EpisodeBatch, rng: np.random.Generator) -> EpisodeBatch:
        """Its images moved by up to ``random_shift`` pixels."""
        if self.random_shift == 0:
            return batch
        down, right = map(int, rng.integers(-self.random_shift, self.random_shift + 1, size=2))
        moved = {key: shift_images(batch.observations[key], down, right) for key in self._images}
        return replace(batch, observations={**batch.observations, **moved})

    def _gather(
        self,
        start: np.ndarray,
        envs: np.ndarray,
        n_rows: np.ndarray,
        lengths: np.ndarray,
        normalizer: VecNormalize | None,
        skipped: frozenset[str] = frozenset(),
        last: tuple[np.ndarray, np.ndarray] | None = None,
        **marks: th.Tensor | None,
    ) -> EpisodeBatch:
        """``n_rows`` rows of each environment from row ``start``, padded with the last of them."""
        n_steps = int(lengths.max())
        rows = start + np.minimum(np.arange(n_steps + 1)[:, None], n_rows - 1)
        place = (rows % self.buffer_size, envs)
        observations = {key: stored[place] for key, stored in self.observations.items() if key not in skipped}
        if last is not None:
            columns, values = last
            for key, value in observations.items():
                value[lengths[columns], columns] = values[key]
        transitions = (place[0][:n_steps], envs)
        if isinstance(self.observation_space, spaces.Dict):
            normalized: Any = self._normalize_obs(observations, normalizer)
        else:
            normalized = as_dict(self._normalize_obs(observations["observation"], normalizer))
        return EpisodeBatch(
            observations={key: self.to_torch(value, copy=False) for key, value in normalized.items()},
            actions=self.to_torch(self.actions[transitions][..., 0].astype(np.int64), copy=False),
            rewards=self.to_torch(self._normalize_reward(self.rewards[transitions], normalizer), copy=False),
            lengths=self.to_torch(lengths.astype(np.int64), copy=False),
            **marks,
        )
