"""
The algorithms that have to keep SB3's contract, and small trials to try them on.

Another algorithm is one more line in ``ALGORITHMS``. Each test names the test of SB3 that it answers to, if there is one.

What SB3 has and these algorithms do not, so that its tests have no answer here: continuous and multi-discrete actions (and
with them action noise and gSDE), hindsight replay (HER), n-step returns, ``optimize_memory_usage`` (each step is stored once
anyway), ``VecExtractDictObs`` (the flags of a trial are part of its observation), files of SB3's older releases.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dream import DREAM, IMPORT, EpisodeBatch, RecurrentDQN, TrialBatch, TrialEnv, VariBAD
from tests.random_families import RandomFamily


@dataclass(frozen=True)
class Algorithm:
    """An algorithm, with arguments that make it small and quick."""

    cls: Callable[..., OffPolicyAlgorithm]
    kwargs: dict[str, Any]
    policy_kwargs: dict[str, Any]
    #: whether it has several networks that could share a features extractor, and policy_kwargs to say so
    can_share: bool = True
    #: what it calls of its replay buffer, and with which arguments
    sampler: str = "sample"
    sample_kwargs: dict[str, Any] = field(default_factory=dict)
    #: trials of different lengths
    env_id: str = "MetaMap-v0"

    def make(
        self,
        env: gym.Env | VecEnv | str | None = None,
        policy: str = "MlpPolicy",
        policy_kwargs: dict | None = None,
        **kwargs: Any,
    ) -> OffPolicyAlgorithm:
        """A new model, by default on one environment of ``env_id``."""
        merged = {**self.policy_kwargs, **(policy_kwargs or {})}
        if not self.can_share:
            merged.pop("share_features_extractor", None)
        return self.cls(policy, self.env_id if env is None else env, policy_kwargs=merged, **{**self.kwargs, **kwargs})

    def load(self, *args: Any, **kwargs: Any) -> OffPolicyAlgorithm:
        """A saved model."""
        return self.cls.load(*args, **{"device": "cpu", **kwargs})  # type: ignore[attr-defined]

    def sample(self, model: Any, batch_size: int, **kwargs: Any) -> list[EpisodeBatch]:
        """What the model would learn from."""
        return episodes_of(getattr(model.replay_buffer, self.sampler)(batch_size, **self.sample_kwargs, **kwargs))

    def make_env(self, n_envs: int = 1, seed: int = 0, split: str = "train", **kwargs: Any) -> VecEnv:
        """``n_envs`` environments of ``env_id`` side by side."""
        return make_vec_env(self.env_id, n_envs=n_envs, seed=seed, env_kwargs={"split": split, **kwargs})


SMALL = {"learning_starts": 20, "train_freq": 8, "batch_size": 4, "buffer_size": 2000, "seed": 0, "device": "cpu"}
SMALL_NETWORKS = {"net_arch": [8], "lstm_hidden_size": 4}

ALGORITHMS = (
    Algorithm(DREAM, SMALL, {**SMALL_NETWORKS, "embedding_dim": 2}),
    Algorithm(RecurrentDQN, SMALL, SMALL_NETWORKS, can_share=False, sample_kwargs={"sequence_length": 64}),
    Algorithm(IMPORT, SMALL, {**SMALL_NETWORKS, "embedding_dim": 2}, can_share=False, sampler="sample_whole"),
    Algorithm(VariBAD, SMALL, {**SMALL_NETWORKS, "latent_dim": 2}, can_share=False, sample_kwargs={"sequence_length": 64}),
)


class Noise(gym.Env[np.ndarray, Any]):
    """
    Observations are noise, an action pays its number and some noise, and an episode ends with a chance of 1/4 after each
    step: what a policy sees, remembers and does all shows in its return, and no two trials are alike. All of it follows the
    seed.
    """

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Discrete(3)
    render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        return self._observe(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One step. Whether an episode was a success is its last observation's to say."""
        observation = self._observe()
        ended, info = bool(self.np_random.random() < 0.25), {"is_success": bool(observation[0] > 0)}
        return observation, float(action + 0.1 * observation[1]), ended, False, info

    def _observe(self) -> np.ndarray:
        return self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)

    def render(self) -> Any:
        """A picture in one colour."""
        return np.full((32, 48, 3), 200, dtype=np.uint8)


def trials(family: gym.Env, training: bool = True) -> Monitor:
    """Trials in two problems of a family (alike, if it does not look), of one exploration and one execution episode."""
    return Monitor(TrialEnv(family, [0, 1], set_problem="options", training=training))


def episodes_of(batch: EpisodeBatch | TrialBatch | tuple[EpisodeBatch, th.Tensor]) -> list[EpisodeBatch]:
    """Whole trials, with or without problem IDs, or one inner episode of each phase."""
    if isinstance(batch, tuple):
        return [batch[0]]
    return [batch.exploration, batch.execution] if isinstance(batch, TrialBatch) else [batch]


def images(*shape: int) -> spaces.Box:
    """The space of images of bytes."""
    return spaces.Box(0, 255, shape, np.uint8)


def random_trials(space: spaces.Space, n_envs: int = 1, seed: int = 0, max_length: int = 4) -> DummyVecEnv:
    """Trials in families with any observation space, which observe and pay at random."""
    families = [RandomFamily(space, 3, spaces.Discrete(2), max_length, seed + index) for index in range(n_envs)]
    return DummyVecEnv([partial(trials, family) for family in families])


def parameters(model: OffPolicyAlgorithm) -> dict[str, th.Tensor]:
    """Everything that the policy's networks and their targets hold, copied."""
    return {name: value.clone() for name, value in model.policy.state_dict().items()}


def assert_same(first: dict[str, th.Tensor], second: dict[str, th.Tensor]) -> None:
    """To the last bit."""
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert th.equal(value, second[name]), name


def shake(model: OffPolicyAlgorithm, seed: int = 1) -> OffPolicyAlgorithm:
    """Weights so large that everything that is observed and remembered shows in the actions."""
    generator = th.Generator().manual_seed(seed)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.5 * th.randn(parameter.shape, generator=generator))
    return model


def actions_on(model: Any, env: VecEnv, n_steps: int = 60) -> np.ndarray:
    """(n_steps, n_envs): the greedy actions of a model or policy, on observations that do not depend on them."""
    rng, state, taken = np.random.default_rng(0), None, []
    observations: Any = env.reset()
    starts = np.ones(env.num_envs, dtype=bool)
    for _ in range(n_steps):
        actions, state = model.predict(observations, state=state, episode_start=starts, deterministic=True)
        taken.append(actions)
        observations, _, starts, _ = env.step(rng.integers(env.action_space.n, size=env.num_envs))  # type: ignore[attr-defined]
    return np.array(taken)
