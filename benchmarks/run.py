"""
Train an algorithm on one environment with one seed, and keep the curve.

``python -m benchmarks.run --env MetaMap-v0 --seed 0`` writes ``benchmarks/results/dream/MetaMap-v0/seed_0.csv``: one row
each evaluation, over every problem and every instruction of the test split (and of the train split where it is small),
greedy, without a problem ID; and ``seed_0.json``: the command, the versions and the settings.
"""

import argparse
import csv
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

import sb3_dream
from benchmarks.settings import ALGORITHMS, load_settings, make_model, make_train_env
from sb3_dream import evaluate_problems

RESULTS = Path(__file__).parent / "results"
#: what the models themselves log and the curve keeps
LOGGED = {
    "dream": ("train/problem_norm", "train/decoder_distance_start", "train/decoder_distance_end", "train/exploration_reward"),
    "recurrent_dqn": ("train/loss",),
    "import": ("train/td_belief", "train/td_problem", "train/belief"),
    "varibad": ("train/td", "train/rewards", "train/observations", "train/kl"),
}
#: environments side by side in evaluation
_N_EVAL_ENVS = 131


class SplitEvaluation:
    """
    Evaluates a model on all problems of a split with every instruction, in trials of as many execution episodes as in
    training: what has a memory over the whole trial has seen no longer ones. Where a family starts at random, each problem and
    instruction comes as often as the family says.

    :param env_id: a registered id
    :param split: ``"train"`` or ``"test"``
    :param env_kwargs: arguments of the environment
    """

    def __init__(self, env_id: str, split: str, env_kwargs: dict[str, Any] | None = None):
        self.split = split
        self.family: Any = gym.make(env_id, split=split, **(env_kwargs or {})).unwrapped.env.unwrapped  # type: ignore[attr-defined]
        self.problem_ids = self.family.problem_ids(split)
        self.n_instructions = self.family.n_instructions
        self.n_execution_episodes = (env_kwargs or {}).get("n_execution_episodes", 1)
        self.n_trials_per_problem = getattr(self.family, "n_evaluation_trials", 1)
        self.env: VecEnv = make_vec_env(
            env_id,
            n_envs=min(len(self.problem_ids) * self.n_trials_per_problem, _N_EVAL_ENVS),
            seed=0,
            env_kwargs={**(env_kwargs or {}), "split": split, "training": False},
        )

    @property
    def optimum(self) -> float:
        """The best mean return with the problem known."""
        return sum(self.family.optimal_return(p) for p in self.problem_ids) / len(self.problem_ids)

    def __call__(self, model: Any) -> dict[str, float]:
        """
        :param model: to evaluate
        :return: the mean return, and what was explored, each key beginning with the split
        """
        results = []
        for first in range(self.n_instructions):
            instructions = [(first + place) % self.n_instructions for place in range(self.n_execution_episodes)]
            results.append(
                evaluate_problems(
                    model, self.env, self.problem_ids, instructions, n_trials_per_problem=self.n_trials_per_problem
                )
            )
        figures = {
            "return": float(np.mean([each.mean_return for each in results])),
            "exploration_length": float(np.mean([each.mean_exploration_length for each in results])),
            **self.family.describe_exploration(
                np.concatenate([each.problem_ids for each in results]),
                [observations for each in results for observations in each.exploration_observations],
                [actions for each in results for actions in each.exploration_actions],
            ),
        }
        return {f"{self.split}/{name}": value for name, value in figures.items()}


class CurveCallback(BaseCallback):
    """
    Evaluate at equal distances and write a row at once, so that an interrupted run keeps its curve.

    :param evaluations: each takes the model and returns columns of the row, e.g. ``SplitEvaluation``
    :param n_evaluations: how often
    :param total_timesteps: of the run
    :param path: the csv file
    :param logged: what of the model's own log goes beside them
    """

    def __init__(
        self,
        evaluations: Sequence[Callable[[Any], dict[str, float]]],
        n_evaluations: int,
        total_timesteps: int,
        path: Path,
        logged: Sequence[str] = (),
    ):
        super().__init__()
        self.evaluations = evaluations
        self.logged = logged
        self.every = total_timesteps / n_evaluations
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._next = self.every
        self._evaluating = np.zeros(2)

    @property
    def _clocks(self) -> np.ndarray:
        """Seconds on the wall, and of processor time: what the run would take with a core to itself."""
        return np.array([time.perf_counter(), time.process_time()])

    def _on_training_start(self) -> None:
        self._start = self._clocks

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps >= self._next:
            self._next += self.every
            self._evaluate()

    def _on_training_end(self) -> None:
        if not self.rows or self.rows[-1]["timesteps"] < self.num_timesteps:
            self._evaluate()

    def _evaluate(self) -> None:
        begin = self._clocks
        seconds, cpu_seconds = begin - self._start - self._evaluating
        row: dict[str, float] = {"timesteps": self.num_timesteps, "seconds": seconds, "cpu_seconds": cpu_seconds}
        for evaluation in self.evaluations:
            row.update(evaluation(self.model))
        for key in self.logged:
            row[key] = self.logger.name_to_value[key]
        self._evaluating += self._clocks - begin
        self.rows.append({key: round(float(value), 5) for key, value in row.items()})
        with self.path.open("w", newline="", encoding="utf8") as file:
            writer = csv.DictWriter(file, list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], capture_output=True, text=True, cwd=Path(__file__).parent, check=False
    ).stdout.strip()


def describe_source(module: str) -> dict[str, Any]:
    """
    :param module: that runs, e.g. ``benchmarks.run``
    :return: what repeats a result: the command and the commit, and whether something was changed since
    """
    return {
        "command": shlex.join(["python", "-m", module, *sys.argv[1:]]),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted": bool(_git("status", "--porcelain", "--", "../sb3_dream", "*.py", "hyperparams")),
    }


def describe_versions() -> dict[str, str]:
    """:return: of what a result depends on"""
    return {
        "python": platform.python_version(),
        "sb3_dream": sb3_dream.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": th.__version__,
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--algo", default="dream", choices=sorted(ALGORITHMS), help="its settings: benchmarks/hyperparams/<algo>.yml"
    )
    parser.add_argument("--env", required=True, help="a registered id, e.g. MetaMap-v0")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--n-timesteps", type=int, help="instead of the settings' own")
    parser.add_argument("--n-evaluations", type=int, default=20)
    parser.add_argument("--env-kwargs", type=json.loads, default={}, help="e.g. '{\"n_arms\": 64}'")
    parser.add_argument("--folder", type=Path, help="where to write; by default benchmarks/results/<algo>/<env>")
    parser.add_argument("--progress", action="store_true", help="show a progress bar")
    args = parser.parse_args()

    th.set_num_threads(1)
    source = describe_source("benchmarks.run")
    settings = load_settings(args.env, args.algo)
    settings["env_kwargs"] = {**(settings.get("env_kwargs") or {}), **args.env_kwargs}
    total = int(args.n_timesteps or settings["n_timesteps"])
    suffix = "".join(f"-{key}={value}" for key, value in sorted(args.env_kwargs.items()))
    folder = args.folder or RESULTS / args.algo / f"{args.env}{suffix}"
    folder.mkdir(parents=True, exist_ok=True)

    evaluations = [SplitEvaluation(args.env, "test", settings["env_kwargs"])]
    if args.env == "MetaCooking-v0":  # its test split is one problem
        evaluations.append(SplitEvaluation(args.env, "train", settings["env_kwargs"]))
    model = make_model(settings, make_train_env(args.env, settings, args.seed), ALGORITHMS[args.algo], seed=args.seed)
    curve = CurveCallback(evaluations, args.n_evaluations, total, folder / f"seed_{args.seed}.csv", LOGGED[args.algo])
    callbacks: list[BaseCallback] = [curve]
    if args.progress:
        callbacks.append(ProgressBarCallback())
    model.learn(total, callback=CallbackList(callbacks), log_interval=1000)

    record = {
        **source,
        "settings": {key: value for key, value in settings.items() if value},
        "n_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "seconds": curve.rows[-1]["seconds"],
        "cpu_seconds": curve.rows[-1]["cpu_seconds"],
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "optimum": {evaluation.split: round(evaluation.optimum, 6) for evaluation in evaluations},
        "final": curve.rows[-1],
        "mean_of_last_5": {
            f"{evaluation.split}/return": round(
                sum(row[f"{evaluation.split}/return"] for row in curve.rows[-5:]) / len(curve.rows[-5:]), 5
            )
            for evaluation in evaluations
        },
        "versions": describe_versions(),
    }
    (folder / f"seed_{args.seed}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    print(json.dumps({"env": args.env, "seed": args.seed, **record["mean_of_last_5"], "cpu_seconds": record["cpu_seconds"]}))


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
