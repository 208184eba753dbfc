"""
``python -m benchmarks.third_party``: an environment that was not made for trials. Gymnasium's FrozenLake, with maps of our
own: DREAM and sb3-contrib's RecurrentPPO (needs sb3-contrib) on the same trials, with as many environment steps, five seeds
each, one after the other on one thread.

Four bridges lead east to the goals, and all but one have a hole. In the west a jetty leads to no goal, but how far it goes
says which bridge holds: a hole in its k-th cell, counted from the start, the k-th bridge, and no hole the fourth. Beside the
jetty is ice or not, by chance::

    HFHFFHG
    FFHFHFG
    FFFSHFG   no hole in the jetty: the fourth bridge
    HHFFFFG

The agent sees the number of its cell and nothing else. 400 lakes are for training, and 100 others for evaluation, greedy.

Writes a curve (csv) and a record (json) of each run, a table of all (``table.md``) and a figure (``curves.png``) to
``benchmarks/results/third_party``. A run that is there already is not run again.
"""

import argparse
import csv
import json
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.toy_text.frozen_lake import FrozenLakeEnv
from matplotlib.figure import Figure
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import machine
from benchmarks import settings as committed
from benchmarks.checkpoint import another_length, differences, refuse_another
from benchmarks.curve import LOGGED, CurveCallback
from benchmarks.records import RESULTS, describe_source, describe_versions
from benchmarks.settings import make_model
from sb3_dream import TrialEnv, evaluate_problems

#: The rows of a map of FrozenLake.
Lake = tuple[str, ...]

N_BRIDGES = 4
_JETTY_LENGTH = N_BRIDGES - 1
_BRIDGE_LENGTH = 2
#: lakes for each bridge that may hold
_N_TRAIN, _N_TEST = 100, 25
#: of an inner episode; the longest way to a goal takes 5 steps
_TIME_LIMIT = 10

#: for the goal, a hole and ice. Falling in costs something, or else nothing that DREAM's networks see would tell of it
_REWARDS = (1.0, -0.2, 0.0)
_FAMILY_KWARGS: dict[str, Any] = {"is_slippery": False, "reward_schedule": _REWARDS}


def _mean_return(p_crossed: float) -> float:
    return p_crossed * _REWARDS[0] + (1 - p_crossed) * _REWARDS[1]


#: Best returns, exact. Without exploring any bridge is as good as another. Whoever explores a bridge either gets across, or
#: has one of the others to choose from.
LIMITS = {
    "no_exploration": _mean_return(1 / N_BRIDGES),
    "exploring_a_bridge": _mean_return(2 / N_BRIDGES),
    "exploring_the_jetty": _mean_return(1.0),
}

ALGORITHMS = {name: committed.ALGORITHMS[name] for name in ("dream", "ppo_lstm")}
N_TIMESTEPS = 150_000
SETTINGS: dict[str, dict[str, Any]] = {
    "dream": {
        "n_envs": 64,
        "policy": "MlpPolicy",
        "learning_rate": "lin_0.005",
        "learning_starts": 3000,
        "batch_size": 128,
        "gamma": 0.95,
        "train_freq": 2,
        "target_update_interval": 128,
        "exploration_fraction": 0.2,
        "explorer_fraction": 0.8,
        "explorer_final_eps": 0.3,
        "exploration_cost": 0.0,
        "policy_kwargs": {"problem_hidden_dim": 64, "encoder_weight_decay": 0.02},
    },
    "ppo_lstm": {
        "n_envs": 64,
        "policy": "MultiInputLstmPolicy",
        "learning_rate": "lin_0.002",
        "n_steps": 32,
        "batch_size": 256,
        "n_epochs": 4,
        "ent_coef": 0.005,
        "policy_kwargs": {"lstm_hidden_size": 64, "net_arch": [64], "shared_lstm": True, "enable_critic_lstm": False},
    },
}


def draw_lake(intact: int, rng: np.random.Generator) -> Lake:
    """
    :param intact: the row of the bridge that holds
    :param rng: draws where the other bridges have their hole, and what is ice beside the jetty
    :return: the map
    """
    rows = []
    for row in range(N_BRIDGES):
        bridge = ["F"] * _BRIDGE_LENGTH
        if row != intact:
            bridge[rng.integers(_BRIDGE_LENGTH)] = "H"
        west = list(rng.choice(["F", "H"], _JETTY_LENGTH))
        if is_start := row == N_BRIDGES // 2:
            west = ["FH"[cell == intact] for cell in reversed(range(_JETTY_LENGTH))]
        rows.append("".join([*west, "S" if is_start else "F", *bridge, "G"]))
    return tuple(rows)


def split_lakes() -> dict[str, list[Lake]]:
    """:return: the lakes of ``train`` and, none of them among these, of ``test``; each bridge holds in as many"""
    rng = np.random.default_rng(0)
    split: dict[str, list[Lake]] = {"train": [], "test": []}
    for intact in range(N_BRIDGES):
        lakes: dict[Lake, None] = {}
        while len(lakes) < _N_TRAIN + _N_TEST:
            lakes[draw_lake(intact, rng)] = None
        split["train"] += list(lakes)[:_N_TRAIN]
        split["test"] += list(lakes)[_N_TRAIN:]
    return split


def holes_of(lake: Lake) -> np.ndarray:
    """
    :param lake: a map
    :return: the problem ID: of each cell, row by row, 1 for a hole and 0 for ice
    """
    return np.array([letter == "H" for letter in "".join(lake)], dtype=np.float32)


def make_trials(lakes: list[Lake], training: bool) -> TrialEnv:
    """
    :param lakes: the problems; numbers, so that lakes that are alike have IDs that are
    :param training: whether ``info`` shows the problem ID
    :return: one exploration and one execution episode in one of them
    """
    lake_of = {holes_of(lake).tobytes(): lake for lake in lakes}

    def set_lake(env: gym.Env, holes: np.ndarray) -> None:
        lake = lake_of[holes.astype(np.float32).tobytes()]
        family: Any = env.unwrapped
        family.desc, family.P = np.array(lake, dtype="S").view("S1").reshape(N_BRIDGES, -1), _transitions(lake)

    family = gym.make("FrozenLake-v1", desc=lakes[0], max_episode_steps=_TIME_LIMIT, **_FAMILY_KWARGS)
    return TrialEnv(family, [holes_of(lake) for lake in lakes], set_problem=set_lake, training=training)


@cache
def _transitions(lake: Lake) -> Any:
    """Made once for each lake: ``gymnasium.make`` for each trial would take longer than the trial."""
    return FrozenLakeEnv(desc=list(lake), **_FAMILY_KWARGS).P


class Evaluation:
    """One trial on each lake of the test split, without a problem ID: greedy, and once more as in training."""

    def __init__(self) -> None:
        lakes = split_lakes()["test"]
        self.env: VecEnv = make_vec_env(lambda: make_trials(lakes, training=False), n_envs=len(lakes) // 2, seed=0)

    def __call__(self, model: Any) -> dict[str, float]:
        """
        :param model: to evaluate
        :return: its return, how long it explores, and how often exploring ends on the jetty or on a bridge
        """
        results = evaluate_problems(model, self.env)
        sampled = evaluate_problems(model, self.env, deterministic=False)
        width = _JETTY_LENGTH + 1 + _BRIDGE_LENGTH + 1
        columns = np.array([observations[-1] % width for observations in results.exploration_observations])
        return {
            "test/return": results.mean_return,
            "test/return_not_greedy": sampled.mean_return,
            "test/exploration_length": results.mean_exploration_length,
            "test/explored_jetty": float(np.mean(columns < _JETTY_LENGTH)),
            "test/explored_bridge": float(np.mean(columns > _JETTY_LENGTH)),
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
    last = curve.rows[-3:]
    record = {
        **source,
        "algo": algo,
        "seed": seed,
        "settings": settings,
        "n_timesteps": model.num_timesteps,
        "cpu_seconds": curve.rows[-1]["cpu_seconds"],
        "limits": LIMITS,
        "final": curve.rows[-1],
        "mean_of_last_3": {key: float(np.mean([row[key] for row in last])) for key in last[0] if key.startswith("test/")},
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
        "| algorithm | return of each seed | not greedy | steps | ends exploring on the jetty | on a bridge | core time |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for algo, records in runs.items():
        figures = {
            key: [record["mean_of_last_3"][f"test/{key}"] for record in records]
            for key in ("return", "return_not_greedy", "explored_jetty", "explored_bridge")
        }
        seconds = [record["cpu_seconds"] for record in records]
        lines.append(
            f"| {ALGORITHMS[algo].__name__} | {', '.join(f'{value:.3f}' for value in figures['return'])} "
            f"| {', '.join(f'{value:.3f}' for value in figures['return_not_greedy'])} | {records[0]['n_timesteps']:,} "
            f"| {np.mean(figures['explored_jetty']):.2f} | {np.mean(figures['explored_bridge']):.2f} "
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
        for (name, limit), style in zip(LIMITS.items(), (":", "-.", "--"), strict=True):
            axis.axhline(limit, color="gray", linestyle=style, linewidth=1, label=f"best, {name.replace('_', ' ')}")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("return on 100 unseen lakes")
    axes[0].legend(fontsize=8)
    figure.suptitle("FrozenLake with a jetty: explore once, then cross the lake", fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algo", choices=ALGORITHMS, nargs="+", default=list(ALGORITHMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--n-timesteps", type=int, default=N_TIMESTEPS)
    parser.add_argument("--n-evaluations", type=int, default=12)
    parser.add_argument("--folder", type=Path, default=RESULTS / "third_party")
    args = parser.parse_args()

    machine.prepare()
    args.folder.mkdir(parents=True, exist_ok=True)
    for seed in args.seeds:
        for algo in args.algo:
            path = args.folder / f"{algo}_seed_{seed}.json"
            if path.exists():
                record = json.loads(path.read_text(encoding="utf8"))
                length = another_length(record["n_timesteps"], args.n_timesteps, record["settings"])
                refuse_another(path, length, differences(record["settings"], SETTINGS[algo]))
            else:
                run(algo, seed, args.n_timesteps, args.n_evaluations, args.folder)
    runs = read_runs(args.folder)
    (args.folder / "table.md").write_text(table(runs) + "\n", encoding="utf8")
    plot(runs, args.folder / "curves.png")
    print(table(runs))


if __name__ == "__main__":
    main()
