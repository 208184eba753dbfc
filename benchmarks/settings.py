"""Settings in rl_zoo3's format, and the models and environments that they describe."""

from functools import partial
from pathlib import Path
from typing import Any

import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_dream import DREAM
from sb3_dream.common.torch_layers import StandardizedCNN

HYPERPARAMS = Path(__file__).parent / "hyperparams"
_NOT_FOR_THE_MODEL = ("n_envs", "n_timesteps", "env_kwargs", "eval_env_kwargs", "normalize")


def load_settings(env_id: str, algo: str = "dream") -> dict[str, Any]:
    """
    :param env_id: a registered id
    :param algo: name of the file in benchmarks/hyperparams
    :return: the environment's settings
    :raises ValueError: if there are none
    """
    path = HYPERPARAMS / f"{algo}.yml"
    if not path.exists():
        raise ValueError(f"algo must be one of {sorted(p.stem for p in HYPERPARAMS.glob('*.yml'))}, got {algo!r}")
    settings = yaml.safe_load(path.read_text(encoding="utf8"))
    if env_id not in settings:
        raise ValueError(f"{path.name} has no settings for {env_id!r}, only for {sorted(settings)}")
    return settings[env_id]


def ramp(progress_remaining: float, start: float, end: float, begin: float) -> float:
    """
    :param progress_remaining: from 1 to 0
    :param start: the value until ``begin``
    :param end: where it ends
    :param begin: from which share of the run on it changes, in a straight line
    :return: between ``start`` and ``end``
    """
    return start + (end - start) * max(0.0, 1.0 - progress_remaining - begin) / (1.0 - begin)


def make_model(settings: dict[str, Any], env: VecEnv, algorithm: Any = DREAM, **model_kwargs: Any) -> Any:
    """
    :param settings: from ``load_settings``
    :param env: training environment
    :param algorithm: its class
    :param model_kwargs: what comes on top, e.g. ``seed``
    :return: the model
    """
    arguments = {key: value for key, value in settings.items() if key not in _NOT_FOR_THE_MODEL}
    for key, value in arguments.items():
        if isinstance(value, str) and value.startswith("lin_"):  # rl_zoo3's way to write a linear schedule
            arguments[key] = LinearSchedule(float(value.removeprefix("lin_")), 0.0, 1.0)
        elif isinstance(value, str) and value.startswith("ramp_"):
            start, end, begin = map(float, value.removeprefix("ramp_").split("_"))
            arguments[key] = partial(ramp, start=start, end=end, begin=begin)
    if isinstance(arguments.get("policy_kwargs"), str):
        arguments["policy_kwargs"] = eval(
            arguments["policy_kwargs"], {"StandardizedCNN": StandardizedCNN}
        )  # rl_zoo3's format; our own file
    return algorithm(env=env, **arguments, **model_kwargs)


def make_train_env(env_id: str, settings: dict[str, Any], seed: int, **env_kwargs: Any) -> VecEnv:
    """
    :param env_id: a registered id
    :param settings: from ``load_settings``
    :param seed: of the environments
    :param env_kwargs: on top of the settings' own
    :return: trials on the train split, side by side
    """
    kwargs = {**(settings.get("env_kwargs") or {}), **env_kwargs}
    return make_vec_env(env_id, n_envs=settings.get("n_envs", 1), seed=seed, env_kwargs=kwargs)
