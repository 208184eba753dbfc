"""
``python -m benchmarks.cartpole``: CartPole without velocities, which an agent has to remember positions for. RecurrentDQN and
sb3-contrib's RecurrentPPO, five seeds each, one after the other on one thread. Writes a curve and a record for each run, and a
table of all, to ``benchmarks/results/recurrent_dqn/CartPole``.

Needs sb3-contrib. A run that is there already is not run again.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from benchmarks.run import RESULTS, describe_source, describe_versions
from benchmarks.settings import load_settings, make_model

ENV_ID = "CartPole-v1"
FOLDER = RESULTS / "recurrent_dqn" / "CartPole"
_N_EPISODES = 100


class PositionOnly(gym.ObservationWrapper):
    """CartPole as a camera sees it: where the cart is and how the pole leans, but not how fast they move."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        space = env.observation_space
        assert isinstance(space, spaces.Box)
        self.observation_space = spaces.Box(space.low[::2], space.high[::2])

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Position and angle of (position, velocity, angle, angular velocity)."""
        return observation[::2]


def make_env(n_envs: int, seed: int) -> Any:
    """
    :param n_envs: side by side
    :param seed: of the first
    :return: CartPole without velocities
    """
    return make_vec_env(ENV_ID, n_envs=n_envs, seed=seed, wrapper_class=PositionOnly)


class Curve(BaseCallback):
    """
    Evaluate greedily at equal distances, and say how much processor time learning took until then.

    :param total_timesteps: of the run
    :param n_evaluations: how often
    """

    def __init__(self, total_timesteps: int, n_evaluations: int):
        super().__init__()
        self.every = total_timesteps / n_evaluations
        self.rows: list[dict[str, float]] = []
        self.env = make_env(n_envs=20, seed=10_000)
        self._evaluating = 0.0

    def _on_training_start(self) -> None:
        self._start = time.process_time()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.every * (len(self.rows) + 1):
            self.evaluate(20)

    def _on_training_end(self) -> None:
        self.evaluate(_N_EPISODES)

    def evaluate(self, n_episodes: int) -> None:
        """Add a row."""
        begin = time.process_time()
        returns, _ = evaluate_policy(self.model, self.env, n_episodes, deterministic=True, return_episode_rewards=True)
        row = {
            "timesteps": self.num_timesteps,
            "cpu_seconds": begin - self._start - self._evaluating,
            "return": float(np.mean(returns)),
            "worst": float(np.min(returns)),
        }
        self.rows.append({key: round(value, 3) for key, value in row.items()})
        self._evaluating += time.process_time() - begin
        if self.verbose:
            print(self.rows[-1], flush=True)


ALGORITHMS = {"recurrent_dqn": None, "ppo_lstm": RecurrentPPO}
