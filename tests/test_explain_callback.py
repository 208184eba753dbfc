"""``ExplainCallback``: TensorBoard shows what is explored and why, while training goes on."""

import io
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from PIL import Image
from stable_baselines3 import DQN
from stable_baselines3.common.logger import configure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from sb3_dream import DREAM, ExplainCallback


def make(folder: Path | None) -> DREAM:
    """A small model that logs."""
    log = None if folder is None else str(folder)
    return DREAM("MlpPolicy", "MetaBandit-v0", learning_starts=20, buffer_size=2000, seed=0, device="cpu", tensorboard_log=log)


def test_pictures_are_in_the_event_file(tmp_path: Path) -> None:
    """What TensorBoard reads must be whole pictures, at the steps that were asked for."""
    env = gym.make("MetaBandit-v0", render_mode="rgb_array")
    make(tmp_path).learn(210, callback=ExplainCallback(env, explain_freq=100, n_trials=2))
    events = EventAccumulator(str(tmp_path / "DREAM_1"))
    events.Reload()
    assert set(events.Tags()["images"]) == {"explain/trial", "explain/z_space"}
    for tag in ("explain/trial", "explain/z_space"):
        images = events.Images(tag)
        assert [image.step for image in images] == [100, 200]
        for image in images:
            pixels = np.asarray(Image.open(io.BytesIO(image.encoded_image_string)).convert("RGB"))
            assert pixels.shape == (image.height, image.width, 3) and len(np.unique(pixels)) > 20, "an empty picture"
    trained = [image.encoded_image_string for image in events.Images("explain/trial")]
    assert trained[0] != trained[1], "the model has learned in between"


def test_training_goes_on_as_without(tmp_path: Path) -> None:
    """To look must not change what is looked at."""
    parameters = []
    for callback in (ExplainCallback(gym.make("MetaBandit-v0"), explain_freq=70, n_trials=2), None):
        model = make(tmp_path).learn(300, callback=callback)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*parameters)


def test_the_next_call_of_learn_counts_from_its_start(tmp_path: Path) -> None:
    """With steps counted anew, a callback that remembers the last run's would be silent."""
    callback = ExplainCallback(gym.make("MetaBandit-v0"), explain_freq=50, n_trials=1)
    model = make(tmp_path).learn(60, callback=callback)
    model.learn(60, callback=callback)
    events = EventAccumulator(str(tmp_path / "DREAM_2"))
    events.Reload()
    assert [image.step for image in events.Images("explain/trial")] == [50]


def test_it_works_where_other_formats_are_logged_too(tmp_path: Path) -> None:
    """A csv or a terminal cannot show a figure, and SB3 raises if it is given one."""
    model = make(None)
    model.set_logger(configure(str(tmp_path), ["csv", "json", "log", "stdout", "tensorboard"]))
    model.learn(60, callback=ExplainCallback(gym.make("MetaBandit-v0"), explain_freq=50, n_trials=1, verbose=1))
    assert (tmp_path / "progress.csv").exists()


def test_bad_input(tmp_path: Path) -> None:
    """Said before an hour of training, not after."""
    env = gym.make("MetaBandit-v0")
    with pytest.raises(ValueError, match="explain_freq must be at least 1, got 0"):
        ExplainCallback(env, explain_freq=0)
    with pytest.raises(ValueError, match="n_trials must be at least 1, got -1"):
        ExplainCallback(env, n_trials=-1)
    with pytest.raises(ValueError, match="env must be made of trials"):
        make(tmp_path).learn(60, callback=ExplainCallback(gym.make("CartPole-v1")))
    with pytest.raises(ValueError, match="env must observe what the model does: 'instruction' is"):
        make(tmp_path).learn(60, callback=ExplainCallback(gym.make("MetaMap-v0")))
    with pytest.raises(ValueError, match="tensorboard_log"):
        make(None).learn(60, callback=ExplainCallback(env))
    rival = DQN("MultiInputPolicy", env, tensorboard_log=str(tmp_path), buffer_size=100)
    with pytest.raises(ValueError, match="models with a method explain, such as DREAM"):
        rival.learn(60, callback=ExplainCallback(env))
