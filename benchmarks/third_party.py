"""
``python -m benchmarks.third_party``: an environment that was not made for trials. Gymnasium's FrozenLake, on all lakes of
3 x 4 cells that can be crossed: DREAM and sb3-contrib's RecurrentPPO (needs sb3-contrib) on the same trials, with as many
environment steps, three seeds each, one after the other on one thread.

The agent sees the number of its cell and nothing else. A problem is a lake: where its holes are. Falling in while exploring
shows a hole and ends the exploration episode. 195 lakes are for training, and the other 100 for evaluation, greedy.

Writes a curve (csv) and a record (json) of each run, a table of all (``table.md``) and a figure (``curves.png``) to
``benchmarks/results/third_party``. A run that is there already is not run again.
"""

import argparse
import csv
import json
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from matplotlib.figure import Figure
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.run import LOGGED, RESULTS, CurveCallback, describe_source, describe_versions
from benchmarks.settings import make_model
from sb3_dream import DREAM, TrialEnv, evaluate_problems

#: Of each cell, row by row, whether it is a hole.
Lake = tuple[bool, ...]

SHAPE = (3, 4)
_N_CELLS = SHAPE[0] * SHAPE[1]
#: lakes to evaluate on, of 295
N_TEST = 100
#: of an inner episode; the shortest way takes 5 steps
_TIME_LIMIT = 12
_N_EVAL_ENVS = 50

ALGORITHMS: dict[str, Any] = {"dream": DREAM, "ppo_lstm": RecurrentPPO}
N_TIMESTEPS = 200_000
SETTINGS: dict[str, dict[str, Any]] = {
    "dream": {
        "n_envs": 64,
        "policy": "MlpPolicy",
        "learning_rate": "lin_0.003",
        "gamma": 0.95,
        "train_freq": 2,
        "target_update_interval": 256,
        "exploration_fraction": 0.1,
        "explorer_fraction": 0.4,
        "exploration_cost": 0.0,
        "policy_kwargs": {"problem_hidden_dim": 64, "encoder_weight_decay": 0.02},
    },
    "ppo_lstm": {
        "n_envs": 64,
        "policy": "MultiInputLstmPolicy",
        "learning_rate": "lin_0.001",
        "n_steps": 64,
        "batch_size": 1024,
        "n_epochs": 4,
        "ent_coef": 0.02,
        "policy_kwargs": {"lstm_hidden_size": 64, "net_arch": [64], "shared_lstm": True, "enable_critic_lstm": False},
    },
}


def _neighbours(cell: int) -> list[int]:
    row, column = divmod(cell, SHAPE[1])
    moves = [(row, column - 1), (row + 1, column), (row, column + 1), (row - 1, column)]
    return [SHAPE[1] * r + c for r, c in moves if 0 <= r < SHAPE[0] and 0 <= c < SHAPE[1]]


@cache
def ways_across() -> list[frozenset[int]]:
    """:return: the cells of each way from start to goal, without the ways that hold all cells of another one"""
    ways: set[frozenset[int]] = set()

    def walk(cell: int, before: frozenset[int]) -> None:
        way = before | {cell}
        if cell == _N_CELLS - 1:
            ways.add(way)
            return
        for following in _neighbours(cell):
            if following not in way:
                walk(following, way)

    walk(0, frozenset())
    return [way for way in ways if not any(other < way for other in ways)]


@cache
def all_lakes() -> list[Lake]:
    """:return: every lake that can be crossed. Start (the first cell) and goal (the last one) are never holes"""
    lakes = [(False, *holes, False) for holes in product((False, True), repeat=_N_CELLS - 2)]
    return [lake for lake in lakes if any(not any(lake[cell] for cell in way) for way in ways_across())]


def split_lakes() -> dict[str, list[Lake]]:
    """:return: the lakes of ``train`` and, none of them among these, of ``test``"""
    lakes = all_lakes()
    order = np.random.default_rng(0).permutation(len(lakes))
    return {"train": [lakes[i] for i in order[N_TEST:]], "test": [lakes[i] for i in order[:N_TEST]]}


def limits() -> dict[str, float]:
    """
    Exact, for all lakes with the same chance.

    :return: how often one can get across without exploring (on the best way), after one exploration episode (of the best
        possible kind, as long as need be), and with the lake known
    """
    lakes = np.array(all_lakes())
    open_ways = np.array([[not any(lake[cell] for cell in way) for way in ways_across()] for lake in lakes])

    def crossed(possible: np.ndarray) -> int:
        """Of the lakes that are still possible, how many the best way crosses."""
        return int(open_ways[possible].sum(axis=0).max())

    @cache
    def explored(frozen: frozenset[int]) -> int:
        """The same after exploring from here on, when all these cells are known to be frozen, and can be walked to."""
        possible = np.logical_not(lakes[:, sorted(frozen)].any(axis=1))
        best = crossed(possible)
        for cell in {cell for known in frozen for cell in _neighbours(known)} - frozen:
            if cell == _N_CELLS - 1:
                return int(possible.sum())  # a way has been found
            with_hole = np.logical_and(possible, lakes[:, cell])
            best = max(best, explored(frozen | {cell}) + crossed(with_hole))
        return best

    everything = np.ones(len(lakes), dtype=bool)
    return {
        "no_exploration": crossed(everything) / len(lakes),
        "one_exploration": explored(frozenset([0])) / len(lakes),
        "problem_known": 1.0,
    }


def set_lake(env: gym.Env, holes: np.ndarray) -> None:
    """
    Another lake, in place (``gymnasium.make`` for each trial would take longer than the trial).

    :param env: FrozenLake
    :param holes: of each cell, whether it is a hole
    """
    family: Any = env.unwrapped
    letters = np.where(holes, b"H", b"F")
    letters[0], letters[-1] = b"S", b"G"
    family.desc = letters.reshape(SHAPE)
    family.P = _transitions(tuple(map(bool, holes)))


@cache
def _transitions(lake: Lake) -> Any:
    letters = ["FH"[hole] for hole in lake]
    letters[0], letters[-1] = "S", "G"
    rows = ["".join(letters[start : start + SHAPE[1]]) for start in range(0, _N_CELLS, SHAPE[1])]
    return FrozenLakeEnv(desc=rows, is_slippery=False).P


def make_trials(lakes: list[Lake], training: bool) -> TrialEnv:
    """
    :param lakes: the problems; numbers, so that lakes that are alike have IDs that are
    :param training: whether ``info`` shows the problem ID
    :return: one exploration and one execution episode in one of them
    """
    desc = ["S" + "F" * (SHAPE[1] - 1), *["F" * SHAPE[1]] * (SHAPE[0] - 2), "F" * (SHAPE[1] - 1) + "G"]
    lake = gym.make("FrozenLake-v1", desc=desc, is_slippery=False, max_episode_steps=_TIME_LIMIT)
    return TrialEnv(lake, np.array(lakes, dtype=np.float32), set_problem=set_lake, training=training)


class Evaluation:
    """One trial on each lake of the test split, without a problem ID: greedy, and once more as in training."""

    def __init__(self) -> None:
        lakes = split_lakes()["test"]
        self.env: VecEnv = make_vec_env(lambda: make_trials(lakes, training=False), n_envs=_N_EVAL_ENVS, seed=0)

    def __call__(self, model: Any) -> dict[str, float]:
        """
        :param model: to evaluate
        :return: its return, how long it explores, and how often exploring ended in a hole or at the goal
        """
        results = evaluate_problems(model, self.env)
        sampled = evaluate_problems(model, self.env, deterministic=False)
        last = np.array([observations[-1] for observations in results.exploration_observations])
        at_goal = last == _N_CELLS - 1
        in_hole = results.problem_ids[np.arange(len(last)), last] > 0
        return {
            "test/return": results.mean_return,
            "test/return_not_greedy": sampled.mean_return,
            "test/exploration_length": results.mean_exploration_length,
            "test/found_hole": float(in_hole.mean()),
            "test/found_goal": float(at_goal.mean()),
        }


def run(algo: str, seed: int, n_timesteps: int, n_evaluations: int, folder: Path) -> None:
    """
    Train one model, and write its curve and record.

    :param algo: a key of ``ALGORITHMS``
    :param seed: of model and environments
    :param n_timesteps: how long
    :param n_evaluations: how often to evaluate
    :param folder: where to write
    """
    source = describe_source("benchmarks.third_party")
    settings = SETTINGS[algo]
    lakes = split_lakes()["train"]
    env = make_vec_env(lambda: make_trials(lakes, training=True), n_envs=settings["n_envs"], seed=seed)
    model = make_model(settings, env, ALGORITHMS[algo], seed=seed, device="cpu")
    path = folder / f"{algo}_seed_{seed}"
    curve = CurveCallback([Evaluation()], n_evaluations, n_timesteps, path.with_suffix(".csv"), LOGGED.get(algo, ()))
    model.learn(n_timesteps, callback=curve, log_interval=10**9)
    last = curve.rows[-5:]
    record = {
        **source,
        "algo": algo,
        "seed": seed,
        "settings": settings,
        "n_timesteps": model.num_timesteps,
        "cpu_seconds": curve.rows[-1]["cpu_seconds"],
        "limits": limits(),
        "final": curve.rows[-1],
        "mean_of_last_5": {key: float(np.mean([row[key] for row in last])) for key in last[0] if key.startswith("test/")},
        "versions": {**describe_versions(), "gymnasium": gym.__version__},
    }
    path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")


def read_runs(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """
    :param folder: with runs
    :return: of each algorithm the records, with the rows of the curve under ``curve``
    """
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*_seed_*.json")):
        record = json.loads(path.read_text(encoding="utf8"))
        with path.with_suffix(".csv").open(encoding="utf8") as file:
            record["curve"] = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        runs.setdefault(record["algo"], []).append(record)
    return runs


def table(runs: dict[str, list[dict[str, Any]]]) -> str:
    """
    :param runs: from ``read_runs``
    :return: a Markdown table, one row for each algorithm
    """
    lines = [
        "| algorithm | lakes crossed, each seed | not greedy | steps | exploring ends in a hole | at the goal | core time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for algo, records in runs.items():
        figures = {
            key: [record["mean_of_last_5"][f"test/{key}"] for record in records]
            for key in ("return", "return_not_greedy", "found_hole", "found_goal")
        }
        seconds = [record["cpu_seconds"] for record in records]
        lines.append(
            f"| {ALGORITHMS[algo].__name__} | {', '.join(f'{value:.3f}' for value in figures['return'])} "
            f"| {', '.join(f'{value:.3f}' for value in figures['return_not_greedy'])} | {records[0]['n_timesteps']:,} "
            f"| {np.mean(figures['found_hole']):.2f} | {np.mean(figures['found_goal']):.2f} "
            f"| {min(seconds):.0f} to {max(seconds):.0f} s |"
        )
    return "\n".join(lines)


def plot(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """
    :param runs: from ``read_runs``
    :param path: of the picture
    """
    figure = Figure(figsize=(9, 3.8))
    axes = figure.subplots(1, 2, sharey=True)
    for axis, (key, label, scale) in zip(
        axes, [("timesteps", "environment steps (thousands)", 1e3), ("cpu_seconds", "seconds of one core", 1.0)], strict=True
    ):
        for color, (algo, records) in zip(("tab:blue", "tab:orange"), runs.items(), strict=False):
            for i, record in enumerate(records):
                axis.plot(
                    [row[key] / scale for row in record["curve"]],
                    [row["test/return"] for row in record["curve"]],
                    color=color,
                    linewidth=1.2,
                    label=ALGORITHMS[algo].__name__ if i == 0 else None,
                )
        bounds = limits()
        axis.axhline(bounds["one_exploration"], color="black", linestyle="--", linewidth=1, label="best, exploring once")
        axis.axhline(bounds["no_exploration"], color="gray", linestyle=":", label="best, not exploring")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(f"share of {N_TEST} unseen lakes crossed")
    axes[0].legend(fontsize=8)
    figure.suptitle("FrozenLake: one exploration episode, then cross the lake", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=ALGORITHMS, nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--n-timesteps", type=int, default=N_TIMESTEPS)
    parser.add_argument("--n-evaluations", type=int, default=20)
    parser.add_argument("--folder", type=Path, default=RESULTS / "third_party")
    args = parser.parse_args()

    th.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for algo in args.algo:
            if not (args.folder / f"{algo}_seed_{seed}.json").exists():
                run(algo, seed, args.n_timesteps, args.n_evaluations, args.folder)
    runs = read_runs(args.folder)
    (args.folder / "table.md").write_text(table(runs) + "\n", encoding="utf8")
    plot(runs, args.folder / "curves.png")
    print(table(runs))


if __name__ == "__main__":
    main()
