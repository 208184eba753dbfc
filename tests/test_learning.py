"""The whole thing learns."""

import numpy as np
import pytest
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import DREAM, evaluate_problems


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
