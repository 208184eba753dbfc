"""
``python -m benchmarks.cartpole``: CartPole without velocities, for which an agent must remember where things have been.
RecurrentDQN and sb3-contrib's RecurrentPPO (needs sb3-contrib), five seeds each, one after the other on one thread.

The model of the best evaluation on the way (as SB3's ``EvalCallback`` keeps it) is judged at the end, in other episodes than
those that it was chosen by. Writes a curve (csv) and a record (json) of each run and a table of all (``table.md``) to
``benchmarks/results/recurrent_dqn/CartPole``. A run that is there already, made with the same settings, is not run again.
"""

import argparse
import csv
import json
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

from benchmarks import machine
from benchmarks import settings as committed
from benchmarks.checkpoint import differences, refuse_another
from benchmarks.records import RESULTS, describe_source, describe_versions
from benchmarks.settings import load_settings, make_model

#: rl_zoo3's name for it
ENV_ID = "CartPoleNoVel-v1"
ALGORITHMS = {name: committed.ALGORITHMS[name] for name in ("recurrent_dqn", "ppo_lstm")}
#: what counts as solved
SOLVED = 475.0
#: episodes of the judgement at the end, and of an evaluation on the way
_N_EPISODES, _N_ON_THE_WAY = 100, 20
_EVAL_SEED, _FINAL_SEED = 10_000, 20_000


class PositionOnly(gym.ObservationWrapper):
    """Shows where the cart is and how the pole leans, but not how fast they move."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Box)
        self.observation_space = spaces.Box(env.observation_space.low[::2], env.observation_space.high[::2])

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Of (position, velocity, angle, angular velocity) every other."""
        return observation[::2]


def make_env(settings: dict[str, Any], n_envs: int, seed: int, training: bool = True) -> VecEnv:
    """
    :param settings: from ``load_settings``; their ``normalize`` is rl_zoo3's
    :param n_envs: how many side by side
    :param seed: of the first
    :param training: whether statistics are updated and rewards normalised
    :return: CartPole without velocities
    """
    env = make_vec_env("CartPole-v1", n_envs=n_envs, seed=seed, wrapper_class=PositionOnly)
    if not settings.get("normalize"):
        return env
    kwargs = eval(settings["normalize"], {})  # rl_zoo3's format; our own file
    return VecNormalize(env, **(kwargs if training else {**kwargs, "norm_reward": False, "training": False}))


class Curve(BaseCallback):
    """
    Evaluate greedily at equal distances, keep the best (of equals the last), and count the processor time of learning alone.

    :param env: to evaluate on
    :param total_timesteps: of the run
    :param n_evaluations: how often
    """

    def __init__(self, env: VecEnv, total_timesteps: int, n_evaluations: int):
        super().__init__()
        self.env = env
        self.every = total_timesteps / n_evaluations
        self.rows: list[dict[str, float]] = []
        self.best: dict[str, float] = {"return": -np.inf}
        self._evaluating = 0.0

    def _on_training_start(self) -> None:
        self._start = time.process_time()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self.every * (len(self.rows) + 1):
            self._evaluate()

    def _on_training_end(self) -> None:
        self._evaluate()

    def _evaluate(self) -> None:
        begin = time.process_time()
        if isinstance(self.env, VecNormalize):
            sync_envs_normalization(self.training_env, self.env)
        row = {
            "timesteps": self.num_timesteps,
            "cpu_seconds": begin - self._start - self._evaluating,
            **judge(self.model, self.env, _N_ON_THE_WAY),
        }
        self.rows.append({key: round(float(value), 3) for key, value in row.items()})
        if row["return"] >= self.best["return"]:
            self.best = self.rows[-1]
            # the networks, and the statistics that they were fed by
            self._kept = deepcopy((self.model.policy.state_dict(), getattr(self.env, "obs_rms", None)))
        self._evaluating += time.process_time() - begin

    def judge_best(self, env: VecEnv) -> dict[str, float]:
        """
        :param env: other episodes
        :return: how the best does in them; the model is it from now on
        """
        weights, statistics = self._kept
        self.model.policy.load_state_dict(weights)
        if isinstance(env, VecNormalize):
            assert statistics is not None
            env.obs_rms = statistics
        return judge(self.model, env, _N_EPISODES)


def judge(model: Any, env: VecEnv, n_episodes: int) -> dict[str, float]:
    """
    :param model: acts greedily
    :param env: to act in
    :param n_episodes: how often
    :return: the mean ``return``, and the ``worst``
    """
    returns: Any
    returns, _ = evaluate_policy(model, env, n_episodes, return_episode_rewards=True)
    return {"return": float(np.mean(returns)), "worst": float(np.min(returns))}


def describe_run(algo: str, seed: int, n_evaluations: int, n_timesteps: int | None) -> dict[str, Any]:
    """
    :param algo: a key of ``ALGORITHMS``
    :param seed: of model and environments
    :param n_evaluations: how often to evaluate on the way
    :param n_timesteps: instead of the settings' own
    :return: what two records of the same run have in common
    """
    settings = load_settings(ENV_ID, algo)
    settings["n_timesteps"] = int(n_timesteps or settings["n_timesteps"])
    return {"algo": algo, "seed": seed, "n_evaluations": n_evaluations, "settings": settings}


def is_there(path: Path, described: dict[str, Any]) -> bool:
    """
    :param path: of the record
    :param described: from ``describe_run``
    :return: whether the run has been made
    :raises ValueError: if what is there is another run; it stays as it is
    """
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf8"))
    refuse_another(path, differences({key: record.get(key) for key in described}, described))
    return True


def run(described: dict[str, Any], path: Path) -> None:
    """
    Train one model, and write its curve and record.

    :param described: from ``describe_run``
    :param path: of the record; the curve lies beside it
    """
    source = describe_source("benchmarks.cartpole")
    algo, seed, settings = described["algo"], described["seed"], described["settings"]
    total = settings["n_timesteps"]
    env = make_env(settings, settings["n_envs"], seed)
    model = make_model(settings, env, ALGORITHMS[algo], seed=seed, device="cpu")
    curve = Curve(make_env(settings, _N_ON_THE_WAY, _EVAL_SEED, training=False), total, described["n_evaluations"])
    model.learn(total, callback=curve, log_interval=10**9)

    with path.with_suffix(".csv").open("w", newline="", encoding="utf8") as file:
        writer = csv.DictWriter(file, list(curve.rows[0]))
        writer.writeheader()
        writer.writerows(curve.rows)
    final = curve.judge_best(make_env(settings, _N_ON_THE_WAY, _FINAL_SEED, training=False))
    record = {
        **source,
        **described,
        **final,
        "chosen_at": curve.best["timesteps"],
        "timesteps": curve.rows[-1]["timesteps"],
        "cpu_seconds": curve.rows[-1]["cpu_seconds"],
        "return_at_the_end": curve.rows[-1]["return"],
        "versions": describe_versions(),
    }
    path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")


def table(folder: Path) -> str:
    """
    :param folder: with records
    :return: a Markdown table, one row for each algorithm
    """
    lines = [
        "| algorithm | return of each seed | solved | at the end of the run | steps | processor seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for algo, cls in ALGORITHMS.items():
        records = [json.loads(path.read_text(encoding="utf8")) for path in sorted(folder.glob(f"{algo}_seed_*.json"))]
        if records:
            returns = [record["return"] for record in records]
            ends = [record["return_at_the_end"] for record in records]
            seconds = [record["cpu_seconds"] for record in records]
            lines.append(
                f"| {cls.__name__} | {', '.join(f'{value:.1f}' for value in returns)} "
                f"| {sum(value >= SOLVED for value in returns)} of {len(returns)} "
                f"| {', '.join(f'{value:.1f}' for value in ends)} "
                f"| {records[0]['timesteps']:,.0f} | {min(seconds):.0f} to {max(seconds):.0f} |"
            )
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=ALGORITHMS, nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--n-timesteps", type=int, help="instead of the settings' own")
    parser.add_argument("--n-evaluations", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=RESULTS / "recurrent_dqn" / "CartPole")
    args = parser.parse_args()

    machine.prepare()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for algo in args.algo:
            described = describe_run(algo, seed, args.n_evaluations, args.n_timesteps)
            path = args.folder / f"{algo}_seed_{seed}.json"
            if not is_there(path, described):
                run(described, path)
    (args.folder / "table.md").write_text(table(args.folder) + "\n", encoding="utf8")
    print(table(args.folder))


if __name__ == "__main__":
    main()
