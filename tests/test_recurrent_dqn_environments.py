"""RecurrentDQN takes every environment that DQN takes, one or several, and trials; and it uses its memory."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_dream import RecurrentDQN, TrialEnv, evaluate_problems
from sb3_dream.common.encoders import LSTMEncoder
from sb3_dream.common.trial import TRIAL_KEYS
from tests.random_families import FLAT_SPACES, RandomFamily

SMALL: dict[str, Any] = {
    "learning_starts": 30,
    "train_freq": 8,
    "batch_size": 4,
    "sequence_length": 3,
    "burn_in": 1,
    "buffer_size": 2000,
    "seed": 0,
    "device": "cpu",
}
IMAGE = spaces.Box(0, 255, (36, 36, 1), np.uint8)
MIXED = spaces.Dict({"img": IMAGE, "vec": spaces.Box(-1.0, 1.0, (2,), np.float32), "n": spaces.Discrete(3)})
POLICIES: list[tuple[str, spaces.Space]] = [
    *(("MlpPolicy", space) for space in FLAT_SPACES if not is_image_space(space)),
    ("MlpPolicy", IMAGE),
    ("CnnPolicy", IMAGE),
    ("CnnPolicy", spaces.Box(0, 255, (3, 36, 36), np.uint8)),
    ("MultiInputPolicy", MIXED),
    ("MultiInputPolicy", spaces.Discrete(4)),
]


@pytest.mark.parametrize("n_envs", [1, 4])
@pytest.mark.parametrize(("policy", "space"), POLICIES, ids=str)
def test_every_observation_and_policy(policy: str, space: spaces.Space, n_envs: int) -> None:
    """Vectors, numbers, images and Dicts go through collecting, replay, learning and evaluation, with the features extractor
    that SB3 would take. Everything that can learn does, and nothing becomes NaN."""
    env = DummyVecEnv([lambda seed=seed: RandomFamily(space, 3, spaces.Discrete(1), 6, seed) for seed in range(n_envs)])  # type: ignore[misc]
    model = RecurrentDQN(policy, env, **SMALL)
    extractor = {"MlpPolicy": FlattenExtractor, "CnnPolicy": NatureCNN, "MultiInputPolicy": CombinedExtractor}[policy]
    assert type(model.policy.q_net.encoder.features_extractor) is extractor
    before = {name: value.clone() for name, value in model.policy.named_parameters()}
    model.learn(150)
    assert model._n_updates > 2
    for name, value in model.policy.named_parameters():
        assert th.isfinite(value).all(), name
        assert not th.equal(value, before[name]), name
    assert np.isfinite(evaluate_policy(model, env, n_eval_episodes=2, warn=False)[0])


@pytest.mark.parametrize("policy", ["MlpPolicy", "MultiInputPolicy"])
def test_a_trial_is_one_episode_with_everything_in_it(policy: str) -> None:
    """E-RL²: the network sees the family's observation, instruction, flags, and previous action and reward; a window is the
    whole trial; and no problem ID is asked for, so that it learns where none is shown."""
    env = make_vec_env("MetaMap-v0", n_envs=2, seed=0, env_kwargs={"training": False})
    model = RecurrentDQN(policy, env, **{**SMALL, "sequence_length": 64}).learn(300)
    assert model._n_updates > 2
    buffer = model.replay_buffer
    assert buffer is not None
    batch = buffer.sample(16, sequence_length=64)
    assert batch.terminated is not None and batch.terminated.all()
    for b, length in enumerate(batch.lengths.tolist()):
        exploring, start = (batch.observations[key][:length, b, 0] for key in ("exploring", "episode_start"))
        assert start[0] == exploring[0] == 1
        assert start.sum() == 2 and exploring[-1] == 0
    flat = {key: spaces.flatdim(space) for key, space in env.observation_space.spaces.items()}  # type: ignore[attr-defined]
    assert set(TRIAL_KEYS) < set(flat)
    encoder = model.policy.q_net.encoder
    assert isinstance(encoder, LSTMEncoder)
    assert encoder.lstm.input_size == sum(flat.values())
    assert not hasattr(model, "_problem_ids")
    assert evaluate_problems(model, env, [3, 5]).execution_returns.shape == (2, 1)


def test_stacked_frames() -> None:
    """VecFrameStack, of plain environments and of trials."""
    family = RandomFamily(spaces.Box(-1.0, 1.0, (2,), np.float32), 3, spaces.Discrete(1), 4, 0)
    for env in (make_vec_env("CartPole-v1", n_envs=2), DummyVecEnv([lambda: TrialEnv(family, [0])])):
        model = RecurrentDQN("MlpPolicy", VecFrameStack(env, 3), **SMALL)
        assert model.learn(100)._n_updates > 2


def test_the_target_follows_at_its_interval() -> None:
    """The target moves by tau at target_update_interval, counted in steps of all environments, and not otherwise."""
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    model = RecurrentDQN("MlpPolicy", env, **{**SMALL, "learning_starts": 10, "tau": 1.0, "target_update_interval": 40})
    target = [parameter.clone() for parameter in model._target_parameters]
    model.learn(30)
    assert model.num_timesteps < 40
    assert model._n_updates > 0
    assert all(th.equal(*pair) for pair in zip(target, model._target_parameters, strict=True))
    model._n_calls = 19
    model._on_step()
    assert all(th.equal(*pair) for pair in zip(model._parameters, model._target_parameters, strict=True))


class Recall(gym.Env[Any, Any]):
    """The first observation says which action pays at the end; between them there is nothing to see."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, length: int = 5):
        self.length = length

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Show the answer."""
        super().reset(seed=seed)
        self.left, self.answer = self.length, int(self.np_random.integers(2))
        return np.array([2 * self.answer - 1, 0], dtype=np.float32), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Ask for it at the last step."""
        self.left -= 1
        over = self.left == 0
        return np.array([0, self.left == 1], dtype=np.float32), float(over and action == self.answer), over, False, {}


@pytest.mark.parametrize("n_envs", [1, 4])
def test_it_learns_to_remember(n_envs: int) -> None:
    """Without memory the return is 0.5 at best. If a part were broken (state, masks, targets), it would stay there."""
    env = make_vec_env(Recall, n_envs=n_envs, seed=0)
    arguments: dict[str, Any] = {
        "learning_starts": 200,
        "train_freq": 8 // n_envs,
        "target_update_interval": 8,
        "exploration_fraction": 0.5,
    }
    model = RecurrentDQN("MlpPolicy", env, learning_rate=3e-3, seed=0, device="cpu", **arguments)
    model.learn(4000)
    assert evaluate_policy(model, env, n_eval_episodes=40, warn=False)[0] == 1.0


def test_it_learns_to_explore_first_and_then_to_act_on_it() -> None:
    """E-RL² on the bandit with two arms, one of which tells while exploring: 0.5 without exploring or without remembering."""
    env = make_vec_env("MetaBandit-v0", n_envs=8, seed=0, env_kwargs={"n_arms": 2})
    arguments: dict[str, Any] = {
        "learning_starts": 200,
        "train_freq": 2,
        "target_update_interval": 16,
        "exploration_fraction": 0.5,
    }
    model = RecurrentDQN("MlpPolicy", env, learning_rate=3e-3, seed=0, device="cpu", **arguments)
    model.learn(8000)
    test_env = make_vec_env("MetaBandit-v0", n_envs=2, env_kwargs={"n_arms": 2, "split": "test"})
    assert evaluate_problems(model, test_env).mean_return == 1.0


def test_a_trial_without_a_family_to_see() -> None:
    """TrialEnv's keys beside nothing: there is nothing that a features extractor could be made for."""
    family = RandomFamily(spaces.Dict({"instruction": spaces.Box(0.0, 1.0, (2,), np.float32)}), 2, spaces.Discrete(1), 3, 0)
    model = RecurrentDQN("MultiInputPolicy", TrialEnv(family, [0]), **SMALL).learn(80)
    assert model._n_updates > 2
