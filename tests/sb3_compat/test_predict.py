"""predict() and the environments that it is given."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from tests.random_families import RandomFamily
from tests.sb3_compat.common import Algorithm, Noise, shake, trials
from tests.test_bad_input import Family


def test_an_environment_is_wrapped_by_itself(algorithm: Algorithm) -> None:
    """SB3's test_auto_wrap: a plain environment and an id both become a monitored VecEnv of one."""
    for env in (gym.make(algorithm.env_id), algorithm.env_id):
        model = algorithm.make(env).learn(80)
        assert model.n_envs == 1
        assert model.ep_info_buffer, "there is no Monitor"


@pytest.mark.parametrize("device", ["cpu", "auto"])
def test_one_observation_and_many(algorithm: Algorithm, device: str) -> None:
    """SB3's test_predict: one observation gets one action that the environment takes, and many get as many. The state that
    comes back fits the next call, and so does the state of recurrent policies in SB3-contrib's manner."""
    model = algorithm.make(device=device)
    env, vec_env = gym.make(algorithm.env_id), algorithm.make_env(n_envs=2)
    observation, _ = env.reset(seed=0)
    observations: Any = vec_env.reset()
    state: Any = None
    states: Any = None
    for deterministic in (True, False):
        action, state = model.predict(observation, state=state, episode_start=np.ones(1), deterministic=deterministic)
        assert isinstance(action, np.ndarray | np.integer)
        assert np.shape(action) == env.action_space.shape
        assert env.action_space.contains(action)
        observation, *_ = env.step(action)
        actions, states = model.predict(observations, state=states, episode_start=np.ones(2), deterministic=deterministic)
        assert actions.shape == (2,)
        observations, *_ = vec_env.step(actions)
    policy_actions, _ = model.policy.predict(observations, states, np.zeros(2), deterministic=True)
    np.testing.assert_array_equal(policy_actions, model.predict(observations, states, np.zeros(2), deterministic=True)[0])


def test_memory(algorithm: Algorithm) -> None:
    """As sb3-contrib's recurrent policies: the state that is passed back is what is remembered, and episode_start, or no
    state, forgets it."""
    env = trials(Noise())
    model = shake(algorithm.make(env))
    first, second = (trials(Noise()).reset(seed=seed)[0] for seed in (0, 1))
    second["episode_start"][:] = 0.0
    _, state = model.predict(first, deterministic=True)
    _, fresh = model.predict(second, deterministic=True)
    _, kept = model.predict(second, state=state, episode_start=np.zeros(1), deterministic=True)
    _, cleared = model.predict(second, state=state, episode_start=np.ones(1), deterministic=True)
    assert fresh is not None and kept is not None and cleared is not None
    assert any(not np.allclose(one, other) for one, other in zip(kept, fresh, strict=True))
    for one, other in zip(cleared, fresh, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_epsilon_greedy(algorithm: Algorithm) -> None:
    """SB3's test_dqn_epsilon_greedy: with ε = 1 the action is random, for one observation and for many, in both phases."""
    model: Any = shake(algorithm.make())
    env = algorithm.make_env(n_envs=2)
    observations: Any = env.reset()
    model.exploration_rate = 1.0
    every_action = set(range(model.action_space.n))
    for exploring in (1.0, 0.0):
        observations["exploring"][:] = exploring
        one = {key: value[0] for key, value in observations.items()}
        drawn = np.array([model.predict(observations, deterministic=False)[0] for _ in range(100)])
        assert drawn.shape == (100, 2)
        assert set(drawn.ravel()) == every_action
        assert (drawn[:, 0] != drawn[:, 1]).any(), "one action for all"
        assert {int(model.predict(one, deterministic=False)[0]) for _ in range(100)} == every_action
        assert len({int(model.predict(one, deterministic=True)[0]) for _ in range(20)}) == 1


class MyBox(spaces.Box):
    """A user's own kind of Box."""


class MyDiscrete(spaces.Discrete):
    """A user's own kind of Discrete."""


def test_subclassed_spaces(algorithm: Algorithm) -> None:
    """SB3's test_subclassed_space_env: spaces are known by isinstance, not by their exact type."""
    family = RandomFamily(MyBox(-1.0, 1.0, (2,), np.float32), 3, spaces.Discrete(2), 4, seed=0)
    family.action_space = MyDiscrete(3)
    env = trials(family)
    model = algorithm.make(env).learn(80)
    observation, _ = env.reset()
    assert env.action_space.contains(model.predict(observation)[0])


def test_observations_of_another_space(algorithm: Algorithm) -> None:
    """SB3's obs_to_tensor: what the policy was not made for is an error, not a broadcast."""
    model = algorithm.make()
    observation, _ = gym.make(algorithm.env_id).reset(seed=0)
    with pytest.raises((ValueError, KeyError)):
        model.predict(trials(Family()).reset()[0])
    with pytest.raises((ValueError, KeyError)):
        model.predict({**observation, "instruction": np.zeros(9, dtype=np.float32)})
