"""The models and environments that the committed settings describe."""

from typing import Any

from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from sb3_dream import DREAM, algorithms
from sb3_dream.common.settings import HYPERPARAMS, load_settings, parse_settings

__all__ = ["ALGORITHMS", "HYPERPARAMS", "load_settings", "make_model", "make_train_env"]

#: by the name of its file in benchmarks/hyperparams
ALGORITHMS: dict[str, Any] = {**algorithms.ALGORITHMS, "ppo_lstm": RecurrentPPO, "dqn": DQN}
_NOT_FOR_THE_MODEL = ("n_envs", "n_timesteps", "env_kwargs", "eval_env_kwargs", "normalize")


def make_model(settings: dict[str, Any], env: VecEnv, algorithm: Any = DREAM, **model_kwargs: Any) -> Any:
    """
    :param settings: from ``load_settings``
    :param env: training environment
    :param algorithm: its class
    :param model_kwargs: what comes on top, e.g. ``seed``
    :return: the model
    """
    arguments = {key: value for key, value in settings.items() if key not in _NOT_FOR_THE_MODEL}
    return algorithm(env=env, **parse_settings(arguments), **model_kwargs)


def make_train_env(
    env_id: str,
    settings: dict[str, Any],
    seed: int,
    vec_env_cls: type[DummyVecEnv] | type[SubprocVecEnv] = DummyVecEnv,
    **env_kwargs: Any,
) -> VecEnv:
    """
    :param env_id: a registered id
    :param settings: from ``load_settings``
    :param seed: of the environments
    :param vec_env_cls: all in this process, or each in its own
    :param env_kwargs: on top of the settings' own
    :return: trials on the train split, side by side
    """
    kwargs = {**(settings.get("env_kwargs") or {}), **env_kwargs}
    return make_vec_env(env_id, n_envs=settings.get("n_envs", 1), seed=seed, env_kwargs=kwargs, vec_env_cls=vec_env_cls)
