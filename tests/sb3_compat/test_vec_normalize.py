"""VecNormalize through a whole run."""

from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.sb3_compat.common import Algorithm, Noise, actions_on, episodes_of, shake, trials


class Shifted(Noise):
    """Observations around 100, and rewards in hundreds."""

    def step(self, action: int) -> Any:
        """One step."""
        observation, reward, *rest = super().step(action)
        return observation, 100.0 * reward, *rest

    def _observe(self) -> np.ndarray:
        return super()._observe() + 100.0

    observation_space = type(Noise.observation_space)(99.0, 101.0, (2,), np.float32)


def shifted() -> Any:
    """Monitored trials of it."""
    return trials(Shifted())


def test_a_whole_run(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_offpolicy_normalization: the model acts on what is normalised; the replay buffer keeps raw observations and
    rewards, and samples with today's statistics; EvalCallback hands them to the evaluation environment, where they stay and
    returns are raw; and model and statistics from their files act as before."""
    env = VecNormalize(DummyVecEnv([shifted] * 2), norm_reward=True)
    eval_env = VecNormalize(DummyVecEnv([shifted]), training=False, norm_reward=False)
    model: Any = algorithm.make(env)
    sample, largest = getattr(model.replay_buffer, algorithm.sampler), 0.0

    def spy(*args: Any, **kwargs: Any) -> Any:
        nonlocal largest
        batch = sample(*args, **kwargs)
        largest = max(largest, *(each.observations["observation"].abs().max().item() for each in episodes_of(batch)))
        return batch

    setattr(model.replay_buffer, algorithm.sampler, spy)
    callback = EvalCallback(eval_env, eval_freq=40, n_eval_episodes=3, warn=False)
    model.learn(240, callback=callback)
    assert model._n_updates > 10
    assert 0 < largest <= 10, "learning sees what acting sees"

    buffer = model.replay_buffer
    delattr(buffer, algorithm.sampler)
    raw = buffer.observations["observation"][: buffer.n_rows]
    assert (np.abs(raw - 100) <= 1).all()
    assert np.abs(buffer.rewards[: buffer.n_rows]).max() > 50
    *_, normal = algorithm.sample(model, 32, env=env, rng=np.random.default_rng(0))
    assert np.abs(normal.observations["observation"].numpy()).max() < 10
    assert normal.rewards.abs().max() < 30
    *_, plain = algorithm.sample(model, 32, rng=np.random.default_rng(0))
    np.testing.assert_allclose(normal.rewards, env.normalize_reward(plain.rewards.numpy()), rtol=1e-4, atol=1e-5)

    assert callback.last_mean_reward > 20, "evaluation counts raw rewards"
    statistics: Any = eval_env.obs_rms
    np.testing.assert_allclose(statistics["observation"].mean, 100.0, atol=0.5)
    count = statistics["observation"].count
    expected = actions_on(shake(model), eval_env, 30)
    assert statistics["observation"].count == count, "training=False keeps statistics"
    assert len(np.unique(expected)) > 1

    model.save(tmp_path / "model")
    eval_env.save(str(tmp_path / "statistics"))
    loaded_env = VecNormalize.load(str(tmp_path / "statistics"), DummyVecEnv([shifted]))
    for each in (eval_env, loaded_env):
        each.seed(0)
    np.testing.assert_array_equal(
        actions_on(algorithm.load(tmp_path / "model"), loaded_env, 30), actions_on(model, eval_env, 30)
    )
