"""On an NVIDIA GPU (skipped where there is none): learning is what it is on a CPU, and what is saved goes on anywhere."""

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import RecurrentDQN
from sb3_dream.algorithms import ALGORITHMS
from tests.rivals import collected, gradients
from tests.test_images import make_model as make_image_model

pytestmark = pytest.mark.skipif(not th.cuda.is_available(), reason="needs an NVIDIA GPU")

every_algorithm = pytest.mark.parametrize("cls", ALGORITHMS.values(), ids=ALGORITHMS)


@pytest.fixture(autouse=True)
def _float32() -> Iterator[None]:
    """Products of whole float32 numbers: by default, cuDNN rounds what it multiplies to 10 bits."""
    before = th.backends.cudnn.allow_tf32
    th.backends.cudnn.allow_tf32 = False
    yield
    th.backends.cudnn.allow_tf32 = before


def make_model(cls: Any, device: str, **kwargs: Any) -> Any:
    """A model that learns a little."""
    env = make_vec_env("MetaMap-v0", n_envs=4, seed=0)
    arguments = {"learning_starts": 200, "train_freq": 10, "batch_size": 8, "buffer_size": 6000, "seed": 0, **kwargs}
    return cls("MlpPolicy", env, device=device, **arguments)


def losses(model: Any) -> dict[str, th.Tensor]:
    """All that it computes from a batch."""
    model.policy.set_training_mode(True)
    if isinstance(model, RecurrentDQN):
        assert model.replay_buffer is not None
        batch = model.replay_buffer.sample(32, rng=model.rng, sequence_length=10, burn_in=5)
        return {"total": model._loss(batch)}
    found = model._losses(model._sample(32))
    return {**vars(found), "total": found.total}


def devices(model: Any) -> set[str]:
    """Where the networks and what they remember of the environments are."""
    return {tensor.device.type for tensor in [*model.policy.state_dict().values(), *model._acting]}


@every_algorithm
def test_the_same_losses_and_gradients_as_on_a_cpu(cls: Any) -> None:
    """A user who moves to a GPU would learn something else, and see it from a curve at best."""
    on_cpu, on_gpu = (collected(cls, device=device) for device in ("cpu", "cuda"))
    assert devices(on_gpu) == {"cuda"}
    wanted, got = losses(on_cpu), losses(on_gpu)
    for name, loss in wanted.items():
        assert got[name].device.type == "cuda", name
        np.testing.assert_allclose(got[name].item(), loss.item(), rtol=1e-3, atol=1e-4, err_msg=name)
    steps = [gradients(model, loss["total"]) for model, loss in ((on_cpu, wanted), (on_gpu, got))]
    assert any(step.abs().sum() > 0 for step in steps[0])
    for expected, found in zip(*steps, strict=True):
        th.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-3)


@every_algorithm
def test_learned_on_a_gpu_and_taken_to_a_cpu_and_back(cls: Any, tmp_path: Path) -> None:
    """A policy trained on a server must act the same on a laptop, and the training must go on wherever it is taken."""
    model = make_model(cls, "cuda")
    before = copy.deepcopy(model.policy.state_dict())
    model.learn(800)
    assert devices(model) == {"cuda"}
    assert model._n_updates > 0
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())
    assert any(not th.equal(value, before[name]) for name, value in model.policy.state_dict().items())
    model.save(tmp_path / "model")
    for device in ("cpu", "cuda"):
        loaded = cls.load(tmp_path / "model", env=make_vec_env("MetaMap-v0", n_envs=4, seed=1), device=device)
        for name, value in loaded.policy.state_dict().items():
            assert th.equal(value.cpu(), model.policy.state_dict()[name].cpu()), name
        observation = loaded.get_env().reset()
        starts = np.ones(4, dtype=bool)
        here, there = (m.predict(observation, episode_start=starts, deterministic=True)[1] for m in (loaded, model))
        for expected, found in zip(there, here, strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
        for index, moments in model.policy.optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                assert th.equal(loaded.policy.optimizer.state_dict()["state"][index][name].cpu(), value.cpu()), name
        loaded.learn(400)
        assert devices(loaded) == {device}
        assert loaded._n_updates > model._n_updates


@every_algorithm
def test_the_same_seed_gives_the_same_curve(cls: Any) -> None:
    """A figure from a GPU could not be reproduced on the same GPU."""
    first, second = (make_model(cls, "cuda").learn(1200) for _ in range(2))
    for name, value in first.policy.state_dict().items():
        assert th.equal(value, second.policy.state_dict()[name]), name


def test_a_recurrent_dqn_that_learns_from_windows_with_burn_in() -> None:
    """Windows have marks beside them that must come to the GPU too."""
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    model = RecurrentDQN(
        "MlpPolicy", env, learning_starts=100, train_freq=8, sequence_length=10, burn_in=5, seed=0, device="cuda"
    ).learn(600)
    assert model._n_updates > 0
    assert all(value.isfinite().all() for value in model.policy.state_dict().values())


def test_frames_come_to_the_gpu_as_bytes() -> None:
    """As floats they would take four times as long to get there."""
    frames = make_image_model(device="cuda")._sample(8).exploration.observations["observation"]
    assert (frames.device.type, frames.dtype) == ("cuda", th.uint8)


def test_frames_are_learned_from_the_same_way_each_time() -> None:
    """In bfloat16 too: cuDNN may choose another way to convolve each time."""
    states = []
    for _ in range(2):
        model = make_image_model(device="cuda", features_extractor_kwargs={"bfloat16": True})
        before = copy.deepcopy(model.policy.state_dict())
        model.learning_starts = 0
        model.train(5, 8)
        states.append(model.policy.state_dict())
    assert any(not th.equal(value, before[name]) for name, value in states[0].items())
    for name, value in states[0].items():
        assert value.isfinite().all(), name
        assert th.equal(value, states[1][name]), name
