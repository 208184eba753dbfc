"""The whole thing learns."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dream import DREAM, TrialEnv, evaluate_problems
from tests.random_families import FLAT_SPACES, RandomFamily


def test_dream_learns_to_explore_and_to_use_what_it_has_seen() -> None:
    """Four arms: which one pays depends on the problem, and the last one tells (while exploring). Without exploring 1/4 is
    the best, and without using it too. If any part of the algorithm is broken, the return stays there."""
    kwargs = {"n_arms": 4}
    env = make_vec_env("MetaBandit-v0", n_envs=16, seed=0, env_kwargs=kwargs)
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=500, train_freq=2, batch_size=32, buffer_size=20_000, device="cpu")
    test_env = make_vec_env("MetaBandit-v0", n_envs=4, env_kwargs={**kwargs, "split": "test"})
    assert evaluate_problems(model, test_env).mean_return < 0.95
    model.learn(6_000)
    results = evaluate_problems(model, test_env)
    assert results.mean_return == pytest.approx(1.0)
    assert [int(actions[0]) for actions in results.exploration_actions] == [3, 3, 3, 3], "the arm that tells"
    assert np.all(results.execution_lengths == 1)


@pytest.mark.parametrize(
    "problem_space",
    [spaces.Discrete(3), spaces.MultiDiscrete([3, 4]), spaces.Box(-1.0, 1.0, (2,), np.float32)],
    ids=["discrete", "multi-discrete", "box"],
)
@pytest.mark.parametrize(
    "observation_space",
    [
        *(space for space in FLAT_SPACES if not is_image_space(space)),
        spaces.Box(0, 255, (36, 36, 1), np.uint8),
        spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1.0, 1.0, (2, 2), np.float32)}),
    ],
    ids=str,
)
def test_every_kind_of_family_and_problem_can_be_learned_on(
    observation_space: spaces.Space, problem_space: spaces.Space
) -> None:
    """Whatever SB3's DQN takes as an observation, and each of the three kinds of problem ID, goes through collecting, every
    loss and evaluation. All four networks move, and nothing becomes NaN."""
    problem_space.seed(0)
    problem_ids: list[Any] = [problem_space.sample() for _ in range(3)]
    envs = [RandomFamily(observation_space, 3, problem_space, 4, seed) for seed in range(2)]
    env = DummyVecEnv([partial(TrialEnv, family, problem_ids, n_execution_episodes=2) for family in envs])
    model = DREAM("MultiInputPolicy", env, seed=0, learning_starts=60, train_freq=10, batch_size=4, device="cpu")
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(200)
    after = dict(model.policy.named_parameters())
    assert all(th.isfinite(value).all() for value in after.values())
    for network in ("explorer", "executor", "problem_encoder", "trajectory_decoder"):
        moved = [not th.equal(before[name], value) for name, value in after.items() if name.startswith(f"{network}.")]
        assert all(moved), network
    assert evaluate_problems(model, env).execution_returns.shape == (3, 2)
