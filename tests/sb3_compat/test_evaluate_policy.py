"""evaluate_policy on trials."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

from tests.sb3_compat.common import Algorithm, Noise, shake, trials


def by_hand(model: Any, env: gym.Env, n_trials: int, seed: int) -> tuple[list[float], list[int]]:
    """Return and length of trials, with the memory that predict asks for."""
    returns, lengths = [], []
    for trial in range(n_trials):
        observation, _ = env.reset(seed=seed if trial == 0 else None)
        state: Any = None
        over, total, length = False, 0.0, 0
        while not over:
            action, state = model.predict(observation, state=state, deterministic=True)
            observation, reward, over, _, _ = env.step(action)
            total, length = total + float(reward), length + 1
        returns.append(total)
        lengths.append(length)
    return returns, lengths


def noise() -> Monitor:
    """Monitored trials on which a return shows all that was done."""
    return trials(Noise())


def unmonitored() -> gym.Env:
    """The same without a Monitor."""
    return noise().env


def test_it_does_what_a_loop_does(algorithm: Algorithm) -> None:
    """SB3's test_evaluate_policy: the memory is passed from step to step and is cleared between trials; return and length
    are the trial's; the callback is called at every step."""
    model = shake(algorithm.make(noise()))
    expected = by_hand(model, noise(), 8, seed=7)
    assert len(set(expected[0])) == 8 and len(set(expected[1])) > 4
    vec_env = DummyVecEnv([noise])
    vec_env.seed(7)
    seen: list[bool] = []
    evaluated = evaluate_policy(
        model, vec_env, 8, return_episode_rewards=True, callback=lambda locals_, _: seen.append(locals_["done"])
    )
    np.testing.assert_allclose(evaluated[0], expected[0], atol=1e-5)
    assert evaluated[1] == expected[1]
    assert len(seen) == sum(expected[1])
    assert sum(seen) == 8


def test_a_threshold(algorithm: Algorithm) -> None:
    """SB3's test_evaluate_policy: a reward_threshold that is not reached is an error."""
    model = algorithm.make()
    mean: Any = evaluate_policy(model, algorithm.make_env(), 3, reward_threshold=-100.0)[0]
    assert -100.0 < mean < 1.1
    with pytest.raises(AssertionError, match="below threshold"):
        evaluate_policy(model, algorithm.make_env(), 3, reward_threshold=100.0)


@pytest.mark.parametrize("n_envs", [1, 2, 5, 7])
def test_each_environment_gives_its_share(algorithm: Algorithm, n_envs: int) -> None:
    """SB3's test_evaluate_vector_env: with trials of different lengths, taking the first to finish would favour short ones.
    Environments that have done their share run on without being counted, and must not disturb the others' memory."""
    model = shake(algorithm.make(noise()))
    env = DummyVecEnv([noise] * n_envs)
    counts = np.zeros(n_envs, dtype=int)

    def count(locals_: dict[str, Any], _: Any) -> None:
        counts[locals_["i"]] += locals_["done"]

    env.seed(11)
    returns, lengths = evaluate_policy(model, env, 12, return_episode_rewards=True, callback=count)
    assert len(returns) == len(lengths) == 12  # type: ignore[arg-type]
    np.testing.assert_array_equal(counts, [(12 + index) // n_envs for index in range(n_envs)])

    alone = [by_hand(model, single, int(counts[index]), 11 + index) for index, single in enumerate(env.envs)]
    assert sorted(lengths) == sorted(length for _, each in alone for length in each)  # type: ignore[arg-type]
    np.testing.assert_allclose(sorted(returns), sorted(r for each, _ in alone for r in each), atol=1e-5)  # type: ignore[arg-type]


class AddOne(gym.RewardWrapper):
    """Changes the reward outside of the Monitor."""

    def reward(self, reward: Any) -> float:
        """One more a step."""
        return float(reward) + 1.0


def test_monitors(algorithm: Algorithm) -> None:
    """SB3's test_evaluate_policy_monitors: without a Monitor there is a warning and the wrapped reward is what counts; with
    one, or a VecMonitor, the return is the trial's own."""
    model = shake(algorithm.make(noise()))

    def evaluate(env: Any) -> tuple[list[float], list[int]]:
        vec_env = env if isinstance(env, VecMonitor) else DummyVecEnv([lambda: env])
        vec_env.seed(5)
        returns, lengths = evaluate_policy(model, vec_env, 4, return_episode_rewards=True)
        return returns, lengths  # type: ignore[return-value]

    monitored, lengths = evaluate(noise())
    assert evaluate(AddOne(noise())) == (monitored, lengths)
    by_vec_monitor = evaluate(VecMonitor(DummyVecEnv([unmonitored])))
    np.testing.assert_allclose(by_vec_monitor, (monitored, lengths), atol=1e-5)
    with pytest.warns(UserWarning, match="not wrapped with a ``Monitor``"):
        changed, _ = evaluate(AddOne(unmonitored()))
    np.testing.assert_allclose(changed, np.add(monitored, lengths), atol=1e-5)
