"""
Settings in rl_zoo3's format (``benchmarks/hyperparams/<algo>.yml``): where they are, and what is written in them.

What rl_zoo3 does not know:

- ``ramp_x_y_b``, for whatever may be a function of the remaining progress: x until the share b of the run, then in a straight
  line to y. (``lin_x`` is rl_zoo3's: from x to 0.)
- ``policy_kwargs.name``: one of the policy's arguments by itself, beside those in ``policy_kwargs``
- ``eval_env_kwargs``: the environment's arguments in evaluation, on top of ``env_kwargs``
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch as th
import yaml
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule
from torch import nn

from sb3_dream.common.torch_layers import StandardizedCNN

_INSTALLED = Path(__file__).parents[1] / "hyperparams"
#: of an installed package, or of the repository
HYPERPARAMS = _INSTALLED if _INSTALLED.is_dir() else Path(__file__).parents[2] / "benchmarks" / "hyperparams"
#: what ``policy_kwargs`` may speak of: rl_zoo3's names, and ours
_NAMES = {"nn": nn, "th": th, "RMSpropTFLike": RMSpropTFLike, "StandardizedCNN": StandardizedCNN}
_POLICY = "policy_kwargs."


def load_settings(env_id: str, algo: str = "dream") -> dict[str, Any]:
    """
    :param env_id: a registered id
    :param algo: name of the file in ``HYPERPARAMS``
    :return: the environment's settings, as they are written
    :raises ValueError: if there are none
    """
    path = HYPERPARAMS / f"{algo}.yml"
    if not path.exists():
        raise ValueError(f"algo must be one of {sorted(p.stem for p in HYPERPARAMS.glob('*.yml'))}, got {algo!r}")
    settings = yaml.safe_load(path.read_text(encoding="utf8"))
    if env_id not in settings:
        raise ValueError(f"{path.name} has no settings for {env_id!r}, only for {sorted(settings)}")
    return settings[env_id]


def parse_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """
    :param settings: as they are written; they stay as they are
    :return: the same with schedules in place of ``lin_x`` and ``ramp_x_y_b``, and ``policy_kwargs`` as a dict
    :raises ValueError: for a schedule that cannot be read, or a learning rate that is neither number nor schedule
    """
    parsed = {key: _parse_schedule(key, value) for key, value in settings.items() if not key.startswith(_POLICY)}
    if isinstance(parsed.get("policy_kwargs"), str):
        parsed["policy_kwargs"] = eval(parsed["policy_kwargs"], dict(_NAMES))  # rl_zoo3's format; the user's own file
    own = {key.removeprefix(_POLICY): value for key, value in settings.items() if key.startswith(_POLICY)}
    if own:
        parsed["policy_kwargs"] = {**(parsed.get("policy_kwargs") or {}), **own}
    return parsed


def _parse_schedule(key: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    word, *numbers = value.split("_")
    if word in ("lin", "ramp"):
        try:
            if word == "lin":
                (start,) = map(float, numbers)
                return LinearSchedule(start, 0.0, 1.0)
            start, end, begin = map(float, numbers)
        except ValueError as error:
            raise ValueError(f"{key} must be like lin_0.001 or ramp_0_0.01_0.5, got {value!r}") from error
        if not 0.0 <= begin < 1.0:
            raise ValueError(f"{key}: a ramp begins at a share from 0 to 1 of the run, got {begin} in {value!r}")
        return partial(ramp, start=start, end=end, begin=begin)
    if key == "learning_rate":
        raise ValueError(f"learning_rate must be a number (in YAML: 0.001 or !!float 1e-3) or like lin_0.001, got {value!r}")
    return value


def ramp(progress_remaining: float, start: float, end: float, begin: float) -> float:
    """
    :param progress_remaining: from 1 to 0
    :param start: the value until ``begin``
    :param end: where it ends
    :param begin: from which share of the run on it changes, in a straight line
    :return: between ``start`` and ``end``
    """
    return start + (end - start) * max(0.0, 1.0 - progress_remaining - begin) / (1.0 - begin)
