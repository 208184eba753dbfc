"""
``make benchmark``: environment steps per second with the demo's settings on one core, updates included, and where the time
goes. ``python -m benchmarks.throughput --env MetaSign-v0 --n-timesteps 15000 --n-threads 2`` for another environment, and with
``--device cuda --vec-env subproc`` on a GPU with more cores beside it.

``python -m benchmarks.throughput --suite``: every algorithm, a few seconds each in turns, so that whatever else the machine
does falls on all alike. Writes ``benchmarks/results/comparison/throughput.json``, which ``python -m benchmarks.report`` shows.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from benchmarks import machine
from benchmarks.demo import ENV_ID
from benchmarks.families import NAMES
from benchmarks.records import RESULTS, describe_source, describe_versions
from benchmarks.settings import ALGORITHMS, load_settings, make_model, make_train_env
from sb3_dream.envs.sign import load_world

#: of each round of ``--suite``: whole rollouts of every algorithm, and more than they collect before they learn
_N_STEPS = 16_384
_VEC_ENVS: dict[str, type[DummyVecEnv] | type[SubprocVecEnv]] = {"dummy": DummyVecEnv, "subproc": SubprocVecEnv}
_UNIT = "environment steps for a second of processor time"


def timed(function: Callable[..., Any], clock: dict[str, float], name: str) -> Callable[..., Any]:
    """
    :param function: to wrap
    :param clock: where the seconds are added
    :param name: under which key
    :return: the function, which now counts its seconds
    """

    def wrapper(*args: Any, **kwargs: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            clock[name] = clock.get(name, 0.0) + time.perf_counter() - begin

    return wrapper


def measure_all(env_id: str, n_rounds: int, n_steps: int) -> dict[str, Any]:
    """
    Every algorithm with its committed settings.

    :param env_id: a registered id
    :param n_rounds: how often it is each one's turn, after a first turn that does not count: it fills the replay buffer
    :param n_steps: of the environments, in a turn
    :return: the record
    """
    models, figures = {}, {}
    for algo in NAMES:
        settings = load_settings(env_id, algo)
        models[algo] = make_model(settings, make_train_env(env_id, settings, seed=0), ALGORITHMS[algo], seed=0, device="cpu")
        figures[algo] = {"n_envs": settings["n_envs"], "n_updates": 0, "steps_per_second": [], "steps_per_cpu_second": []}
    for turn in range(n_rounds + 1):
        for algo, model in models.items():
            before = np.array([model.num_timesteps, model._n_updates, time.perf_counter(), time.process_time()])
            model.learn(n_steps, log_interval=10**9, reset_num_timesteps=False)
            after = np.array([model.num_timesteps, model._n_updates, time.perf_counter(), time.process_time()])
            done, n_updates, seconds, cpu_seconds = after - before
            if turn:
                figures[algo]["n_updates"] += int(n_updates)
                figures[algo]["steps_per_second"].append(round(done / seconds, 1))
                figures[algo]["steps_per_cpu_second"].append(round(done / cpu_seconds, 1))
                print(f"round {turn} of {n_rounds}: {NAMES[algo]:<22}{done / cpu_seconds:10,.0f} {_UNIT}")
    return {
        **describe_source("benchmarks.throughput"),
        "env": env_id,
        "n_rounds": n_rounds,
        "n_steps": n_steps,
        "algorithms": figures,
        "versions": describe_versions(),
    }


def measure_one(env_id: str, n_timesteps: int, n_threads: int, device: str, vec_env: str) -> None:
    """
    Print the speed of DREAM, and where its time goes.

    :param env_id: a registered id
    :param n_timesteps: how long
    :param n_threads: of PyTorch
    :param device: of the networks
    :param vec_env: one of ``_VEC_ENVS``
    """
    settings = {**load_settings(env_id), "learning_starts": 0}  # as it goes on, and not as it begins
    env = make_train_env(env_id, settings, seed=0, vec_env_cls=_VEC_ENVS[vec_env])
    env.reset()  # the processes are there now
    model = make_model(settings, env, seed=0, device=device)
    clock: dict[str, float] = {}
    for owner, name, label in (
        (model.env, "step", "environments"),
        (model, "_sample_action", "acting"),
        (model, "_store_transition", "storing"),
        (model, "train", "learning"),
    ):
        setattr(owner, name, timed(getattr(owner, name), clock, label))
    drawing: dict[str, float] = {}
    if env_id == "MetaSign-v0" and vec_env == "dummy":
        load_world(2)  # MiniWorld can be imported now
        from sb3_dream.envs.sign_world import SignWorld  # noqa: PLC0415

        SignWorld.render_obs = timed(SignWorld.render_obs, drawing, "drawing")
    begin, cpu_begin = time.perf_counter(), time.process_time()
    model.learn(n_timesteps)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin

    name = th.cuda.get_device_name(model.device) if model.device.type == "cuda" else model.device
    print(f"{env_id}, {settings['n_envs']} environments ({vec_env}), {n_threads} threads, networks on {name}")
    print(f"environment steps/s, updates included   {model.num_timesteps / seconds:10,.0f}")
    if vec_env == "dummy":  # other processes have clocks of their own
        print(f"the same for a second of processor time {model.num_timesteps / cpu_seconds:10,.0f}")
    print(f"updates/s of learning                   {model._n_updates / clock['learning']:10,.1f}")
    print(f"steps for each update                   {model.num_timesteps / model._n_updates:10,.0f}")
    for name, spent in [*clock.items(), ("the rest (SB3's loop, callbacks)", seconds - sum(clock.values()))]:
        print(f"{name:<40}{spent / seconds:10.0%}")
    for name, spent in drawing.items():
        print(f"{f'of the environments: {name}':<40}{spent / seconds:10.0%}")
    print(f"peak memory of this process             {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8,.0f} MB")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=ENV_ID)
    parser.add_argument("--n-timesteps", type=int, default=300_000)
    parser.add_argument("--n-threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu", help="of the networks")
    parser.add_argument(
        "--vec-env", choices=_VEC_ENVS, default="dummy", help="all environments in one process, or each in its own"
    )
    parser.add_argument("--suite", action="store_true", help="all algorithms, on the CPU")
    parser.add_argument("--n-rounds", type=int, default=4, help="with --suite: how often it is each one's turn")
    parser.add_argument("--folder", type=Path, default=RESULTS / "comparison", help="with --suite: where to write")
    args = parser.parse_args()

    machine.prepare(args.n_threads)
    if not args.suite:
        measure_one(args.env, args.n_timesteps, args.n_threads, args.device, args.vec_env)
        return
    record = measure_all(args.env, args.n_rounds, _N_STEPS)
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "throughput.json"
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    for algo, figures in record["algorithms"].items():
        print(f"{NAMES[algo]:<22}{np.median(figures['steps_per_cpu_second']):10,.0f} {_UNIT}, median")
    print(f"Wrote {path}")


if __name__ == "__main__":
    main()
