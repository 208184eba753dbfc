"""sb3-contrib's RecurrentPPO and SB3's DQN run on the registered ids as they are, and on families of a user."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.env_checker import check_env

from sb3_dream import TrialEnv
from tests.random_families import RandomFamily

IDS = ["MetaBandit-v0", "MetaDistractingBus-v0", "MetaMap-v0", "MetaCooking-v0"]


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(
    ("algorithm", "policy", "kwargs"),
    [
        (RecurrentPPO, "MultiInputLstmPolicy", {"n_steps": 32, "batch_size": 32, "n_epochs": 1}),
        (DQN, "MultiInputPolicy", {"learning_starts": 20, "buffer_size": 200}),
    ],
)
def test_they_learn_on_the_ids(env_id: str, algorithm: Any, policy: str, kwargs: dict[str, Any]) -> None:
    """A user compares DREAM with the name of the rival and the same id, and nothing else: RecurrentPPO used to stop with
    "input_size should be of type int" on every grid."""
    model = algorithm(policy, env_id, seed=0, device="cpu", **kwargs).learn(64)
    assert model.num_timesteps == 64


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
@pytest.mark.parametrize("as_dict", [False, True])
def test_many_kinds_of_things_to_see(dtype: Any, as_dict: bool) -> None:
    """SB3 adds up the sizes of a MultiDiscrete: of 200 + 100 kinds of things, 44 were left in uint8, and the first layer did
    not fit what it was given."""
    seen: spaces.Space = spaces.MultiDiscrete([200, 100], dtype=dtype)
    family = RandomFamily(spaces.Dict({"seen": seen}) if as_dict else seen, 3, spaces.Discrete(2), 5, 0)
    env = TrialEnv(family, [0, 1], set_problem="options")
    check_env(env)
    (space,) = (each for each in env.observation_space.spaces.values() if isinstance(each, spaces.MultiDiscrete))  # type: ignore[attr-defined]
    assert space == seen and space.dtype == dtype
    assert space.contains(space.sample())
    for algorithm, policy in ((RecurrentPPO, "MultiInputLstmPolicy"), (DQN, "MultiInputPolicy")):
        model: Any = algorithm(policy, env, device="cpu")
        extractor = getattr(model.policy, "features_extractor", None) or model.q_net.features_extractor
        assert extractor.features_dim >= 300
        model.predict(env.reset()[0])


def test_the_family_keeps_its_own_space() -> None:
    """A wrapper that changes what it wraps surprises whoever goes on using the family."""
    family: Any = gym.make("MetaMap-v0").unwrapped.env  # type: ignore[attr-defined]
    assert family.observation_space["observation"].nvec.dtype == np.uint8
