"""Families whose observation is a Dict, or one that could be."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecNormalize

from tests.random_families import RandomFamily
from tests.sb3_compat.common import Algorithm, Noise, assert_same, parameters, random_trials, trials

SMALL_CNN = {"features_extractor_kwargs": {"cnn_output_dim": 8}}


def mixed(channels_last: bool, discrete: bool = True) -> spaces.Dict:
    """An image, a vector and a number."""
    image: dict[str, spaces.Space] = {"img": spaces.Box(0, 255, (40, 36, 2) if channels_last else (2, 40, 36), np.uint8)}
    return spaces.Dict(
        {**image, "vec": spaces.Box(-1.0, 1.0, (2,), np.float32), **({"n": spaces.Discrete(4)} if discrete else {})}
    )


class AsDict(gym.ObservationWrapper):
    """The same observation as the only key of a Dict."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.observation_space = spaces.Dict({"vec": env.observation_space})

    def observation(self, observation: Any) -> dict[str, Any]:
        """In a Dict."""
        return {"vec": observation}


def test_a_dict_of_one_is_the_same_as_what_is_in_it(algorithm: Algorithm) -> None:
    """SB3's test_consistency: MlpPolicy on a vector and MultiInputPolicy on a Dict of that vector are the same networks, and
    learn the same to the last bit. So is MultiInputPolicy on the bare vector, as a trial's observation is a Dict anyway."""
    plain = algorithm.make(trials(Noise()), "MlpPolicy").learn(120)
    assert plain._n_updates > 5
    assert_same(parameters(plain), parameters(algorithm.make(trials(AsDict(Noise())), "MultiInputPolicy").learn(120)))
    assert_same(parameters(plain), parameters(algorithm.make(trials(Noise()), "MultiInputPolicy").learn(120)))


@pytest.mark.parametrize("channels_last", [True, False])
def test_mixed_observations(algorithm: Algorithm, channels_last: bool) -> None:
    """SB3's test_dict_spaces: images (channels first or last), vectors and numbers side by side."""
    env = random_trials(mixed(channels_last), n_envs=2)
    model = algorithm.make(env, "MultiInputPolicy", SMALL_CNN).learn(100)
    assert model._n_updates > 5
    assert model.observation_space["img"].shape == (2, 40, 36)  # type: ignore[index]
    evaluate_policy(model, env, n_eval_episodes=3)


def test_mixed_observations_from_subprocesses(algorithm: Algorithm) -> None:
    """SB3's test_multiprocessing: environments in processes of their own give the same model, to the last bit."""

    def make() -> Any:
        return trials(RandomFamily(mixed(False), 3, spaces.Discrete(2), 4, 0))

    models = []
    for vec_env_class in (DummyVecEnv, SubprocVecEnv):
        env = vec_env_class([make, make])
        model = algorithm.make(env, "MultiInputPolicy", SMALL_CNN).learn(64)
        assert model._n_updates > 2
        models.append(parameters(model))
        env.close()
    assert_same(*models)


@pytest.mark.parametrize("channels_last", [True, False])
def test_stacked_frames_of_mixed_observations(algorithm: Algorithm, channels_last: bool) -> None:
    """SB3's test_dict_vec_framestack: images along their channels, all else along the last axis; the order may be told."""
    order = {"img": "last" if channels_last else "first"}
    stacked = random_trials(mixed(channels_last, discrete=False), n_envs=2)
    channels_order: Any = {key: order.get(key) for key in stacked.observation_space.spaces}  # type: ignore[attr-defined]
    env = VecFrameStack(stacked, n_stack=3, channels_order=channels_order)
    model = algorithm.make(env, "MultiInputPolicy", SMALL_CNN).learn(60)
    assert model._n_updates > 2
    assert model.observation_space["img"].shape == (6, 40, 36)  # type: ignore[index]
    assert model.observation_space["vec"].shape == (6,)  # type: ignore[index]
    evaluate_policy(model, env, n_eval_episodes=3)


@pytest.mark.parametrize("channels_last", [True, False])
def test_one_key_normalised(algorithm: Algorithm, channels_last: bool) -> None:
    """SB3's test_vec_normalize: the images beside the normalised vector reach the networks as they were, channels last too:
    VecNormalize keeps raw images from before they were transposed, and learning from these would be learning from noise."""
    env = VecNormalize(random_trials(mixed(channels_last), n_envs=2), norm_obs_keys=["vec"])
    model: Any = algorithm.make(env, "MultiInputPolicy", SMALL_CNN)
    seen: list[np.ndarray] = []
    sample_action = model._sample_action

    def spy(*args: Any, **kwargs: Any) -> Any:
        seen.append(model._last_obs["img"].copy())
        return sample_action(*args, **kwargs)

    model._sample_action = spy
    model.learn(100)
    assert model._n_updates > 5
    np.testing.assert_array_equal(model.replay_buffer.observations["img"][: len(seen)], np.array(seen))
    evaluate_policy(model, env, n_eval_episodes=3)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_the_wrong_policy_for_a_dict(algorithm: Algorithm, policy: str) -> None:
    """SB3's test_policy_hint: the message names the right one."""
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        algorithm.make(random_trials(mixed(False)), policy)


def test_nested_dicts(algorithm: Algorithm) -> None:
    """SB3's test_dict_nested: they are refused, by the trial already."""
    space = spaces.Dict({"inner": spaces.Dict({"x": spaces.Discrete(2)})})
    with pytest.raises(ValueError, match="flat observation space, but 'inner' is Dict"):
        algorithm.make(DummyVecEnv([lambda: trials(RandomFamily(space, 3, spaces.Discrete(2), 4, 0))]), "MultiInputPolicy")
