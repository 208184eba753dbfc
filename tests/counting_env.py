"""An environment whose observations say which episode and which step they are of, for tests of replay and memory."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv


class Counting(gym.Env[Any, Any]):
    """
    Observations (environment, episode, step); a reward is 1000 · episode + step, whatever the action. Episodes have random
    lengths of up to ``max_length``, and half of them are cut by a time limit. ``ended`` has (length, terminated) of each.
    """

    observation_space = spaces.Box(0.0, 1e6, (3,), np.float32)
    action_space = spaces.Discrete(3)

    def __init__(self, max_length: int = 9, min_length: int = 1, index: int = 0, seed: int = 0):
        self.max_length, self.min_length, self.index = max_length, min_length, index
        self.rng = np.random.default_rng([seed, index])
        self.ended: list[tuple[int, bool]] = []

    def _observe(self) -> np.ndarray:
        return np.array([self.index, len(self.ended), self.n_steps], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode. A VecEnv that is reset gives up the one under way."""
        self.n_steps = 0
        self.length = int(self.rng.integers(self.min_length, self.max_length + 1))
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step."""
        reward = 1000.0 * len(self.ended) + self.n_steps
        self.n_steps += 1
        observation, ends, terminated = self._observe(), self.n_steps == self.length, bool(self.rng.integers(2))
        if ends:
            self.ended.append((self.length, terminated))
        return observation, reward, ends and terminated, ends and not terminated, {}


def counting(n_envs: int, **kwargs: Any) -> DummyVecEnv:
    """Several side by side, each of its own lengths."""
    return DummyVecEnv([lambda index=index: Counting(index=index, **kwargs) for index in range(n_envs)])  # type: ignore[misc]
