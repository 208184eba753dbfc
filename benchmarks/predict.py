"""
``python -m benchmarks.predict`` (needs sb3-contrib): what a call of ``DREAM.predict`` costs beside ``RecurrentPPO.predict``
with the same LSTM, layers and environment. The two are called in turn on one thread, so that a busy machine slows both, and
the medians are compared. While exploring DREAM runs two networks (the explorer and the trajectory decoder), RecurrentPPO one.

DREAM / RecurrentPPO, on a machine with other runs on it (LSTM of 32; 256):

====== ========= ==== ====
trials phase       32  256
====== ========= ==== ====
1      exploring 0.92 0.97
1      executing 0.77 0.76
64     exploring 1.11 1.46
64     executing 0.90 0.97
====== ========= ==== ====
"""

import argparse
import time
from typing import Any

import numpy as np
import torch as th
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env

from benchmarks import machine
from sb3_dream import DREAM

ENV_ID = "MetaDistractingBus-v0"
_N_WARM_UP = 20


def make_models(env_id: str = ENV_ID, lstm_hidden_size: int = 32) -> tuple[DREAM, RecurrentPPO]:
    """
    :param env_id: a registered id
    :param lstm_hidden_size: of both
    :return: both algorithms, untrained, of the same size
    """
    env = make_vec_env(env_id)
    policy_kwargs: dict[str, Any] = {"lstm_hidden_size": lstm_hidden_size, "net_arch": [128, 64]}
    rival_kwargs = {**policy_kwargs, "activation_fn": th.nn.ReLU}
    return (
        DREAM("MlpPolicy", env, policy_kwargs=policy_kwargs, seed=0, device="cpu"),
        RecurrentPPO("MultiInputLstmPolicy", env, policy_kwargs=rival_kwargs, seed=0, device="cpu"),
    )


def make_observation(env_id: str, n_envs: int, exploring: bool) -> dict[str, np.ndarray]:
    """
    :param env_id: a registered id
    :param n_envs: how many trials it is of; that of one trial is plain
    :param exploring: or executing
    :return: an observation from the middle of an episode
    """
    observation: Any = make_vec_env(env_id, n_envs=n_envs, seed=0).reset()
    observation["episode_start"][:] = 0.0
    observation["exploring"][:] = float(exploring)
    return observation if n_envs > 1 else {key: value[0] for key, value in observation.items()}


def seconds_of_calls(models: tuple[Any, ...], observation: dict[str, np.ndarray], n_calls: int) -> np.ndarray:
    """
    :param models: to be called in turn
    :param observation: for each call
    :param n_calls: of each model
    :return: (n_calls, n_models)
    """
    starts = np.zeros(len(observation["exploring"]), dtype=bool) if observation["exploring"].ndim == 2 else None
    states: list[Any] = [None] * len(models)
    seconds = np.empty((_N_WARM_UP + n_calls, len(models)))
    for call in range(len(seconds)):
        for index, model in enumerate(models):
            begin = time.perf_counter()
            _, states[index] = model.predict(observation, states[index], starts, deterministic=True)
            seconds[call, index] = time.perf_counter() - begin
    return seconds[_N_WARM_UP:]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=ENV_ID)
    parser.add_argument("--n-calls", type=int, default=2000)
    parser.add_argument("--lstm-hidden-size", type=int, default=32)
    args = parser.parse_args()

    machine.prepare()
    models = make_models(args.env, args.lstm_hidden_size)
    print(f"{args.env}, LSTM of {args.lstm_hidden_size}, one thread, median of {args.n_calls} calls")
    print(f"{'trials  phase':<20}{'DREAM':>10}{'RecurrentPPO':>16}{'ratio':>8}")
    for n_envs in (1, 64):
        for phase in ("exploring", "executing"):
            observation = make_observation(args.env, n_envs, exploring=phase == "exploring")
            dream, rival = np.median(seconds_of_calls(models, observation, args.n_calls), axis=0)
            print(f"{n_envs:>6}  {phase:<12}{dream * 1e6:>7.0f} µs{rival * 1e6:>13.0f} µs{dream / rival:>8.2f}")


if __name__ == "__main__":
    main()
