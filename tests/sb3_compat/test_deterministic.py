"""A seed is all that a repetition needs."""

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed

from tests.sb3_compat.common import Algorithm, assert_same, parameters


@pytest.mark.parametrize("n_envs", [1, 3])
def test_training_repeats(algorithm: Algorithm, n_envs: int) -> None:
    """SB3's test_deterministic_training_common: two models with the same seed (which seeds the environment too) end with
    the same weights, and with the same returns of the same evaluation; another seed ends elsewhere."""
    weights, returns = [], []
    for seed in (3, 3, 4):
        env = algorithm.make_env(n_envs, seed=99)  # overruled by the model's
        np.random.default_rng().random()
        model = algorithm.make(env, seed=seed).learn(200)
        assert model._n_updates > 5
        weights.append(parameters(model))
        env = model.get_env()  # type: ignore[assignment]
        returns.append(evaluate_policy(model, env, n_eval_episodes=6, deterministic=True, return_episode_rewards=True))
    assert_same(weights[0], weights[1])
    assert returns[0] == returns[1]
    assert any(not value.equal(weights[2][name]) for name, value in weights[0].items())


def test_training_repeats_with_a_global_seed(algorithm: Algorithm) -> None:
    """Who calls set_random_seed instead of passing a seed, as SB3 allows, gets the same run again, too."""
    weights = []
    for seed in (3, 3, 4):
        set_random_seed(seed)
        weights.append(parameters(algorithm.make(algorithm.make_env(1, seed=0), seed=None).learn(200)))
    assert_same(weights[0], weights[1])
    assert any(not value.equal(weights[2][name]) for name, value in weights[0].items())
