"""Small models that have collected a few trials and learned nothing yet; and OpenGL, for the tests that draw."""

import importlib
import os
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import settings
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import set_random_seed

from sb3_dream import DREAM, TrialBatch
from sb3_dream.envs.sign import SignEnv, load_world

th.set_num_threads(1)
# A test says the same each time: what it draws does not depend on the clock, nor on the tests before it.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """For what a test does not seed itself."""
    set_random_seed(0)


def collect(
    env_id: str = "MetaMap-v0", n_envs: int = 4, n_steps: int = 800, env_kwargs: dict | None = None, **kwargs: Any
) -> DREAM:
    """A model with trials in its replay buffer, whose networks are as they were made."""
    env = make_vec_env(env_id, n_envs=n_envs, seed=0, env_kwargs=env_kwargs)
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=10**9, buffer_size=20_000, device="cpu", **kwargs)
    return model.learn(n_steps)


#: policy_kwargs of a policy that remembers by peaks alone
WITHOUT_LSTMS: dict[str, Any] = {"enable_exploration_lstm": False, "enable_execution_lstm": False}


@pytest.fixture(params=[{}, {**WITHOUT_LSTMS, "enable_execution_gate": True}], ids=["LSTM", "transitions, gate"])
def model(request: pytest.FixtureRequest) -> DREAM:
    """Map trials with one execution episode."""
    return collect(policy_kwargs=request.param)


def keep_exploring(model: DREAM) -> None:
    """An exploration episode goes on to its time limit: the action that ends it looks worst."""
    end = 6
    with th.no_grad():
        model.policy.explorer.head.streams.bias[1 + end] = -100.0


@pytest.fixture
def batch(model: DREAM) -> TrialBatch:
    """Eight of its trials, of different lengths."""
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(8, rng=np.random.default_rng(0))
    assert len(set(batch.exploration.lengths.tolist())) > 1, "the tests on padding need episodes of different lengths"
    return batch


@pytest.fixture(scope="session")
def gl() -> None:
    """MiniWorld can draw here. Where it cannot, the test is skipped; but not where ``.ci/run`` says that it must."""
    try:
        load_world()
    except RuntimeError as error:
        if os.environ.get("SB3_DREAM_TESTS_NEED_GL"):
            raise
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _gl_where_a_family_draws(request: pytest.FixtureRequest) -> None:
    """Tests of all families need OpenGL for one of them."""
    parameters = getattr(getattr(request.node, "callspec", None), "params", {})
    if parameters.get("family") is SignEnv or parameters.get("env_id") == "MetaSign-v0":
        request.getfixturevalue("gl")


@pytest.fixture(scope="session")
def zoo() -> ModuleType:
    """``sb3_dream.zoo``. rl_zoo3 puts its own TimeLimit into Gymnasium; all other tests are to meet Gymnasium's."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        for module in (gym.wrappers, gym.wrappers.common):
            monkeypatch.setattr(module, "TimeLimit", module.TimeLimit)
        return importlib.import_module("sb3_dream.zoo")
