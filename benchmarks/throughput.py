"""
``make benchmark``: environment steps per second with the demo's settings on one core, updates included, and where the time
goes. ``python -m benchmarks.throughput --env MetaSign-v0 --n-timesteps 15000 --n-threads 2`` for another environment.
"""

import argparse
import resource
import time
from collections.abc import Callable
from typing import Any

import torch as th

from benchmarks.demo import ENV_ID
from benchmarks.settings import load_settings, make_model, make_train_env
from sb3_dream.envs.sign import load_world


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


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default=ENV_ID)
    parser.add_argument("--n-timesteps", type=int, default=300_000)
    parser.add_argument("--n-threads", type=int, default=1, help="of PyTorch")
    args = parser.parse_args()

    th.set_num_threads(args.n_threads)
    settings = {**load_settings(args.env), "learning_starts": 0}  # as it goes on, and not as it begins
    model = make_model(settings, make_train_env(args.env, settings, seed=0), seed=0)
    clock: dict[str, float] = {}
    for owner, name, label in (
        (model.env, "step", "environments"),
        (model, "_sample_action", "acting"),
        (model, "_store_transition", "storing"),
        (model, "train", "learning"),
    ):
        setattr(owner, name, timed(getattr(owner, name), clock, label))
    drawing: dict[str, float] = {}
    if args.env == "MetaSign-v0":
        load_world(2)  # MiniWorld can be imported now
        from sb3_dream.envs.sign_world import SignWorld  # noqa: PLC0415

        SignWorld.render_obs = timed(SignWorld.render_obs, drawing, "drawing")
    begin, cpu_begin = time.perf_counter(), time.process_time()
    model.learn(args.n_timesteps)
    seconds, cpu_seconds = time.perf_counter() - begin, time.process_time() - cpu_begin

    print(f"{args.env}, {settings['n_envs']} environments, {args.n_threads} threads")
    print(f"environment steps/s, updates included   {model.num_timesteps / seconds:10,.0f}")
    print(f"the same for a second of processor time {model.num_timesteps / cpu_seconds:10,.0f}")
    print(f"updates/s of learning                   {model._n_updates / clock['learning']:10,.1f}")
    print(f"steps for each update                   {model.num_timesteps / model._n_updates:10,.0f}")
    for name, spent in [*clock.items(), ("the rest (SB3's loop, callbacks)", seconds - sum(clock.values()))]:
        print(f"{name:<40}{spent / seconds:10.0%}")
    for name, spent in drawing.items():
        print(f"{f'of the environments: {name}':<40}{spent / seconds:10.0%}")
    print(f"peak memory                             {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:8,.0f} MB")


if __name__ == "__main__":
    main()
