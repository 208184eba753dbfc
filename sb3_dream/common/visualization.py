"""Pictures of trials."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from PIL import Image
from stable_baselines3.common.type_aliases import PolicyPredictor


def record_trial(
    model: PolicyPredictor,
    env: gym.Env,
    path: str | Path,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    milliseconds: int = 350,
) -> list[np.ndarray]:
    """
    Run one greedy trial and write it as an animated GIF. The last frame of each inner episode stays longer.

    :param model: any SB3 model
    :param env: a trial whose ``render_mode`` is ``"rgb_array"``
    :param path: where to write, e.g. ``"trial.gif"``
    :param seed: of the trial
    :param options: ``problem_id`` and ``instructions``, as in ``TrialEnv.reset``
    :param milliseconds: how long a frame stays
    :return: the frames, each (height, width, 3), uint8
    :raises ValueError: if the environment does not render pictures
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"env must be made with render_mode='rgb_array', got {env.render_mode!r}")
    observation, _ = env.reset(seed=seed, options=options)
    frames, durations = [np.asarray(env.render())], [2 * milliseconds]
    state, over = None, False
    while not over:
        action, state = model.predict(observation, state=state, deterministic=True)
        observation, _, terminated, truncated, _ = env.step(action)
        over = terminated or truncated
        frames.append(np.asarray(env.render()))
        durations.append(4 * milliseconds if observation["episode_end"][0] > 0 else milliseconds)
    images = [Image.fromarray(frame).quantize(64) for frame in frames]
    images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    return frames
