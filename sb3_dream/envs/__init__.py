"""
The environments: families of problems, and their registration as trials.

Each id takes ``split="train"`` or ``"test"``, ``n_execution_episodes``, ``n_exploration_episodes``, ``training`` (by
default, whether the split is ``"train"``), ``render_mode``, and what the family itself takes.
"""

from typing import Any

import gymnasium as gym

from sb3_dream.common.trial import TrialEnv
from sb3_dream.envs.bandit import BanditEnv
from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.cooking import CookingEnv
from sb3_dream.envs.distracting_bus import DistractingBusEnv
from sb3_dream.envs.map import MapEnv
from sb3_dream.envs.sign import SignEnv

__all__ = [
    "FAMILIES",
    "BanditEnv",
    "BusEnv",
    "CookingEnv",
    "DistractingBusEnv",
    "MapEnv",
    "SignEnv",
    "make_trials",
    "register_envs",
]

FAMILIES: dict[str, Any] = {
    "MetaBandit-v0": BanditEnv,
    "MetaDistractingBus-v0": DistractingBusEnv,
    "MetaMap-v0": MapEnv,
    "MetaCooking-v0": CookingEnv,
    "MetaSign-v0": SignEnv,
}


def make_trials(
    family: str,
    split: str = "train",
    n_execution_episodes: int = 1,
    training: bool | None = None,
    n_exploration_episodes: int = 1,
    **family_kwargs: Any,
) -> TrialEnv:
    """
    The entry point of the registered ids: a family with the trial already around it.

    :param family: a registered id
    :param split: ``"train"`` or ``"test"``
    :param n_execution_episodes: N
    :param training: whether ``info`` shows the problem ID; by default on the train split only
    :param n_exploration_episodes: exploration episodes in a trial
    :param family_kwargs: arguments of the family, e.g. ``render_mode`` or the bandit's ``n_arms``
    :return: the trials
    :raises ValueError: for another split or family
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {sorted(FAMILIES)}, got {family!r}")
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    env = FAMILIES[family](**family_kwargs)
    return TrialEnv(
        env,
        env.problem_ids(split),
        n_execution_episodes=n_execution_episodes,
        training=split == "train" if training is None else training,
        n_exploration_episodes=n_exploration_episodes,
    )


# Gymnasium looks here, and puts a window around families that draw pictures: gym.make(..., render_mode="human")
make_trials.metadata = {"render_modes": ["rgb_array"], "render_fps": 4}  # type: ignore[attr-defined]


def register_envs() -> None:
    """Make the ids known to Gymnasium. ``import sb3_dream`` does it."""
    for name in FAMILIES:
        if name not in gym.registry:
            gym.register(name, entry_point="sb3_dream.envs:make_trials", kwargs={"family": name}, disable_env_checker=False)
