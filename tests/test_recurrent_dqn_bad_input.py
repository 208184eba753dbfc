"""Bad input to RecurrentDQN gets a clear error, at once, that names what is wrong."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_dream import EpisodeReplayBuffer, RecurrentDQN
from tests.test_bad_input import Family


def made(env: Any = "CartPole-v1", policy: str = "MlpPolicy", **kwargs: Any) -> RecurrentDQN:
    """A model that is never trained."""
    return RecurrentDQN(policy, env, device="cpu", **kwargs)


def test_continuous_actions() -> None:
    """There is no Q-value of each action."""
    with pytest.raises((ValueError, AssertionError), match="Discrete"):
        made("Pendulum-v1")


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("sequence_length", 0, "sequence_length must be a whole number of at least 1, got 0"),
        ("sequence_length", -3, "sequence_length must be a whole number of at least 1, got -3"),
        ("burn_in", -1, "burn_in must be a whole number of at least 0, got -1"),
        ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
        ("sequence_length", 2.5, "sequence_length must be a whole number of at least 1, got 2.5"),
        ("burn_in", "16", "burn_in must be a whole number of at least 0, got '16'"),
        ("buffer_size", 31, "buffer_size of 31 steps is smaller than one batch of 32 windows"),
        ("gamma", 1.1, "gamma must be between 0 and 1, got 1.1"),
        ("tau", -0.1, "tau must be between 0 and 1"),
        ("exploration_initial_eps", 5, "exploration_initial_eps must be between 0 and 1, got 5"),
        ("exploration_final_eps", float("nan"), "exploration_final_eps must be between 0 and 1, got nan"),
        ("optimize_memory_usage", True, "EpisodeReplayBuffer stores each step once already"),
    ],
)
def test_arguments_out_of_range(argument: str, value: Any, message: str) -> None:
    """They would fail deep inside numpy, or run and learn nothing."""
    with pytest.raises((ValueError, TypeError), match=message):
        made(**{argument: value})


def test_no_whole_row() -> None:
    """buffer_size is over all environments."""
    with pytest.raises(ValueError, match="buffer_size must be at least one step for each of 8 environments, got 7"):
        EpisodeReplayBuffer(7, spaces.Discrete(2), spaces.Discrete(2), n_envs=8)


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_the_wrong_policy_for_a_dict(policy: str) -> None:
    """SB3's hint, with the keys."""
    family = Family(spaces.Dict({"a": spaces.Discrete(2), "b": spaces.Discrete(2)}))
    with pytest.raises(ValueError, match=r"the environment's has the keys \['a', 'b'\]: use 'MultiInputPolicy'"):
        made(family, policy)


def test_a_cnn_for_a_vector() -> None:
    """SB3's own hint, in an error that says which observation."""
    with pytest.raises(ValueError, match=r"(?s)NatureCNN.*does not suit the environment's observation Box.*only with images"):
        made("CartPole-v1", "CnnPolicy")


def test_an_unknown_policy() -> None:
    """SB3's own message names what there is."""
    with pytest.raises(ValueError, match="MlpPolciy"):
        made(policy="MlpPolciy")


@pytest.mark.parametrize(
    ("policy_kwargs", "error", "message"),
    [
        ({"net_arhc": [8]}, TypeError, "net_arhc"),
        ({"net_arch": 64}, TypeError, "net_arch must be a list of whole numbers, got 64"),
        ({"net_arch": [0]}, ValueError, "net_arch must be made of whole numbers of at least 1"),
        ({"lstm_hidden_size": 0}, ValueError, "lstm_hidden_size must be"),
        ({"n_lstm_layers": 1.5}, ValueError, "n_lstm_layers must be"),
        ({"activation_fn": "relu"}, TypeError, "activation_fn must be a class"),
        ({"optimizer_class": "Adam"}, TypeError, "optimizer_class must be a class"),
    ],
)
def test_wrong_policy_kwargs(policy_kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    """The error names the argument, not a line deep inside torch."""
    with pytest.raises(error, match=message):
        made(policy_kwargs=policy_kwargs)


def test_set_env_with_other_spaces() -> None:
    """A network of one environment cannot act in another."""
    with pytest.raises(ValueError, match="spaces do not match"):
        made().set_env(gym.make("Acrobot-v1"))


def test_the_callers_dicts_are_left_alone() -> None:
    """One dict of settings for several models is common."""
    policy_kwargs: dict[str, Any] = {"features_extractor_kwargs": {"features_dim": 8}, "normalize_images": False}
    image = Family(spaces.Box(0, 255, (1, 36, 36), np.uint8))
    made(image, "CnnPolicy", policy_kwargs=policy_kwargs)
    assert policy_kwargs == {"features_extractor_kwargs": {"features_dim": 8}, "normalize_images": False}
