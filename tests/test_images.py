"""DREAM on frames of 80 x 60: stored once as bytes, normalised late, and put through each network once."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_dream import DREAM, TrialEnv, evaluate_problems
from sb3_dream.common import torch_layers
from sb3_dream.common.torch_layers import StandardizedCNN
from sb3_dream.dream.policies import CnnPolicy

SHAPE = (60, 80, 3)
#: bytes that a step may take: 5 % more than a frame and 64 bytes beside it
LIMIT = 1.05 * (60 * 80 * 3 + 64)


class Frames(gym.Env[Any, Any]):
    """A family of noisy frames, as large as MiniWorld's and with as many actions, which does not need OpenGL."""

    observation_space = spaces.Dict(
        {"observation": spaces.Box(0, 255, SHAPE, np.uint8), "instruction": spaces.Box(0, 1, (2,))}
    )
    action_space = spaces.Discrete(4)

    def _observe(self) -> dict[str, np.ndarray]:
        frame = self.np_random.integers(256, size=SHAPE, dtype=np.uint8)
        return {"observation": frame, "instruction": np.eye(2, dtype=np.float32)[0]}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """An episode of 1 to 20 steps."""
        super().reset(seed=seed)
        self._left = int(self.np_random.integers(1, 21))
        return self._observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Action 1 pays."""
        self._left -= 1
        return self._observe(), float(action == 1), self._left == 0, False, {}


def make_model(n_steps: int = 200, buffer_size: int = 2_000, device: str = "cpu", **policy_kwargs: Any) -> DREAM:
    """A model with trials in its replay buffer."""
    env = DummyVecEnv([lambda: TrialEnv(Frames(), [0, 1, 2], set_problem="options")] * 4)
    model = DREAM(
        "CnnPolicy",
        env,
        seed=0,
        learning_starts=10**9,
        buffer_size=buffer_size,
        device=device,
        policy_kwargs={"features_extractor_class": StandardizedCNN, **policy_kwargs},
    )
    return model.learn(n_steps)


def test_a_stored_step_takes_hardly_more_than_its_frame() -> None:
    """Otherwise frames are stored as floats or twice over, and the buffer does not fit in memory."""
    model = make_model(n_steps=480, buffer_size=400)
    buffer = model.replay_buffer
    assert buffer is not None and buffer.full
    arrays = [*buffer.observations.values(), buffer.actions, buffer.rewards, buffer._table]
    n_bytes = sum(array.nbytes for array in arrays) / (buffer.buffer_size * buffer.n_envs)
    assert n_bytes <= LIMIT, f"{n_bytes:.0f} bytes a step"
    stored = buffer.observations["observation"]
    assert stored.dtype == np.uint8 and stored.shape[2:] == (3, 60, 80)


def test_frames_travel_as_bytes_and_are_normalised_where_they_are_used() -> None:
    """Otherwise four times as much goes to the graphics card, or the network sees numbers up to 255."""
    model = make_model()
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(8, rng=np.random.default_rng(0))
    frames = batch.exploration.observations["observation"]
    assert frames.dtype == th.uint8
    steps = model.policy.steps(batch.exploration.observations, batch.exploration.prefix_mask)
    seen = steps.observations
    assert isinstance(seen, th.Tensor) and seen.dtype == th.float32
    assert len(seen) == batch.exploration.prefix_mask.sum()
    kept = frames.flatten(0, 1)[batch.exploration.prefix_mask.flatten() > 0]
    th.testing.assert_close(seen * 255, kept.float())


@pytest.mark.parametrize("share", [False, True])
def test_each_frame_goes_through_each_extractor_once(share: bool) -> None:
    """Otherwise an update takes a multiple of its time: this is nearly all that it does."""
    model = make_model(share_features_extractor=share)
    policy: Any = model.policy
    networks = [f"{name}{kind}" for name in ("trajectory_decoder", "explorer", "executor") for kind in ("", "_target")]
    names = {getattr(policy, name).encoder.features_extractor: name for name in networks}
    calls: list[tuple[str, int]] = []

    def count(extractor: Any, inputs: Any, output: Any) -> None:
        calls.append((names[extractor], len(output)))

    for extractor in names:
        extractor.register_forward_hook(count)
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(16, rng=np.random.default_rng(0))
    model._losses(batch)
    explored, executed = int(batch.exploration.prefix_mask.sum()), int(batch.execution.action_mask.sum())
    if share:
        assert len(names) == 4, "exploration's, execution's, and their targets'"
    expected = {"explorer": explored, "executor": executed} | ({} if share else {"trajectory_decoder": explored})
    targets = {f"{name}_target": n for name, n in expected.items()}
    assert sorted(calls) == sorted({**expected, **targets}.items())
    calls.clear()
    assert isinstance(model._last_obs, dict)
    observation = {key: th.as_tensor(value) for key, value in model._last_obs.items()}
    policy.act(observation, policy.initial_state(4))
    assert all(n == 4 for _, n in calls)
    assert len(calls) == len(set(calls)) <= 3


def test_sharing_an_extractors_work_changes_no_gradient() -> None:
    """Otherwise what the two losses say to the shared part would not add up."""
    model = make_model(share_features_extractor=True)
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(4, rng=np.random.default_rng(0))
    policy = model.policy
    extractor = policy.explorer.encoder.features_extractor

    def gradients(one_call: bool) -> list[th.Tensor]:
        model.policy.zero_grad()
        steps = policy.steps(batch.exploration.observations, batch.exploration.prefix_mask)
        (q_values,), _ = policy.explorer(steps)
        if not one_call:
            steps = policy.steps(batch.exploration.observations, batch.exploration.prefix_mask)
        guesses, _ = policy.trajectory_decoder(steps)
        (q_values.pow(2).sum() + guesses.pow(2).sum()).backward()
        return [parameter.grad.clone() for parameter in extractor.parameters() if parameter.grad is not None]

    for one, other in zip(gradients(True), gradients(False), strict=True):
        th.testing.assert_close(one, other)


def test_brightness_and_contrast_of_a_frame_change_nothing() -> None:
    """Otherwise frames of a dull room, which differ in a few pixels, all look the same for the first 100,000 steps."""
    space = spaces.Box(0, 255, (3, 60, 80), np.uint8)
    extractor = StandardizedCNN(space, features_dim=7)
    frames = th.rand(5, 3, 60, 80)
    features = extractor(frames)
    assert features.shape == (5, 7)
    th.testing.assert_close(extractor(0.2 * frames + 0.5), features, rtol=1e-2, atol=1e-4)
    th.testing.assert_close(extractor(frames[2:3]), features[2:3])  # by its own pixels, not those of the batch


@pytest.mark.parametrize("has_amx", [True, False])
def test_bfloat16_is_the_same_network_less_exactly(monkeypatch: pytest.MonkeyPatch, has_amx: bool) -> None:
    """
    Faster, but the features must still be those, and float32, as what comes after them is. Without AMX a frame would take 13
    times as long: nothing is changed there.
    """
    monkeypatch.setattr(torch_layers, "_has_amx", lambda: has_amx)
    space = spaces.Box(0, 255, (3, 60, 80), np.uint8)
    extractor, fast = StandardizedCNN(space, 16), StandardizedCNN(space, 16, bfloat16=True)
    fast.load_state_dict(extractor.state_dict())
    frames = th.rand(8, 3, 60, 80)
    features = fast(frames)
    assert features.dtype == th.float32
    th.testing.assert_close(features, extractor(frames), rtol=0, atol=0.1)
    assert th.equal(features, extractor(frames)) != has_amx
    features.sum().backward()
    gradients = [parameter.grad for parameter in fast.parameters()]
    assert all(gradient is not None and gradient.dtype == th.float32 for gradient in gradients)


def test_a_detail_of_dull_frames_is_learned_that_nature_cnn_does_not_see() -> None:
    """Otherwise the sign's word is not read: 300 pixels of 4800, a little darker or a little brighter than the wall."""

    def accuracy(extractor: NatureCNN) -> float:
        network = nn.Sequential(extractor, nn.Linear(16, 2))
        optimizer = th.optim.Adam(network.parameters(), lr=1e-3)
        generator = th.Generator().manual_seed(0)
        for update in range(41):
            marks = th.randint(2, (64,), generator=generator)
            frames = 0.45 + 0.02 * th.randn(64, 3, 60, 80, generator=generator)
            column = int(th.randint(60, (1,), generator=generator))
            frames[:, :, 20:35, column : column + 20] += 0.06 * (marks - 0.5).view(-1, 1, 1, 1)
            logits = network(frames)
            if update == 40:
                return float((logits.argmax(dim=1) == marks).float().mean())
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, marks).backward()
            optimizer.step()
        raise AssertionError

    space = spaces.Box(0, 255, (3, 60, 80), np.uint8)
    th.manual_seed(0)
    assert accuracy(NatureCNN(space, 16)) < 0.75
    assert accuracy(StandardizedCNN(space, 16)) > 0.95
    assert accuracy(StandardizedCNN(space, 16, n_filters=(16, 32, 32))) > 0.95


@pytest.mark.parametrize("n_filters", [(16, 32), (16, 0, 32), (16.0, 32, 32)])
def test_numbers_of_filters_that_make_no_network_are_refused(n_filters: Any) -> None:
    """The error names the argument, and which of the three."""
    with pytest.raises(ValueError, match="n_filters"):
        StandardizedCNN(spaces.Box(0, 255, (3, 60, 80), np.uint8), n_filters=n_filters)


@pytest.mark.usefixtures("gl")
def test_dream_learns_saves_and_acts_on_the_sign_family(tmp_path: Path) -> None:
    """`DREAM("CnnPolicy", "MetaSign-v0")` from the first frame to an evaluation, as the README says."""
    env = make_vec_env("MetaSign-v0", n_envs=4, seed=0)
    model = DREAM(
        "CnnPolicy", env, seed=0, learning_starts=200, buffer_size=1_000, batch_size=4, train_freq=16, exploration_cost=0.0
    )
    assert isinstance(model.policy, CnnPolicy)
    before = [parameter.clone() for parameter in model.policy.explorer.encoder.features_extractor.parameters()]
    model.learn(400)
    after = list(model.policy.explorer.encoder.features_extractor.parameters())
    assert all((one != other).any() and other.isfinite().all() for one, other in zip(before, after, strict=True))
    assert model._n_updates >= 3
    model.save(tmp_path / "model")
    loaded = DREAM.load(tmp_path / "model", device="cpu")
    test_env = make_vec_env("MetaSign-v0", n_envs=3, seed=1, env_kwargs={"split": "test", "n_execution_episodes": 2})
    observation: Any = test_env.reset()
    np.testing.assert_array_equal(
        model.predict(observation, deterministic=True)[0], loaded.predict(observation, deterministic=True)[0]
    )
    results = evaluate_problems(loaded, test_env, [0, 1, 2], instructions=[0, 1])
    assert results.execution_returns.shape == (3, 2)
    assert {float(value) for value in results.execution_returns.flatten()} <= {-1.0, 0.0, 1.0}
    family = test_env.get_attr("unwrapped")[0].env.unwrapped
    described = family.describe_exploration(results.problem_ids, results.exploration_observations, results.exploration_actions)
    assert 0.0 <= described["sign_in_view"] <= 1.0
