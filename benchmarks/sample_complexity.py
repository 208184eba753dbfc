"""
``python -m benchmarks.sample_complexity``: trials until DREAM's two policies are optimal on the bandit, against the number
of arms |A|. Writes ``benchmarks/results/dream/sample_complexity.csv``, ``.png`` and ``.json`` (what it was made from).

A trial explores once and executes eight times. A policy counts as optimal from the evaluation after which it always is, until
both have been three times in a row. Exploration is optimal when the greedy Q^exp pulls the informative arm in every problem,
execution when the greedy return is 1 in every problem, with z from the exploration trajectory. Evaluations are 5 % apart. The
learning rate falls to 0 over the trials that a run may take: |A|² pairs of a problem and an arm have to be tried before
execution can be right in all problems, and after that a constant rate keeps one or two of them wrong. A run that is there
already, made with the same settings, is not run again.
"""

import argparse
import csv
import itertools
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from tqdm import tqdm

from benchmarks import machine
from benchmarks.evaluation import SplitEvaluation
from benchmarks.records import RESULTS, describe_source, describe_versions
from sb3_dream import DREAM
from sb3_dream.common.settings import parse_settings

ENV_ID = "MetaBandit-v0"
N_ENVS = 8
N_EXECUTIONS = 8
STEPS_A_TRIAL = 1 + 2 * N_EXECUTIONS  # explore, and for each execution the step between the episodes and its own
IN_A_ROW = 3
#: trials that a run may take: so many, and so many for each pair of a problem and an arm
TRIALS, TRIALS_PER_PAIR = 4000, 4
SETTINGS: dict[str, Any] = {
    # one update for every 8 trials; execution behaves at random throughout, exploration for 30 % of the trials
    "train_freq": STEPS_A_TRIAL,
    "target_update_interval": N_ENVS * STEPS_A_TRIAL,
    "learning_rate": "lin_0.001",
    "learning_starts": 0,
    "buffer_size": 1_000_000,
    "exploration_initial_eps": 1.0,
    "exploration_final_eps": 1.0,
    "explorer_final_eps": 0.3,
    "explorer_fraction": 1e-6,
    "policy_kwargs": {
        "net_arch": [256],
        "lstm_hidden_size": 128,
        "embedding_dim": 128,
        "problem_hidden_dim": 128,
        "encoder_weight_decay": 0.0,
        "decoder_weight_decay": 0.0,
    },
}


class UntilOptimal(BaseCallback):
    """
    Stop when both policies have been optimal in the last three evaluations.

    :param evaluation: of all problems
    """

    def __init__(self, evaluation: SplitEvaluation):
        super().__init__()
        self.evaluation = evaluation
        self.streaks: dict[str, list[int]] = {"exploration": [], "execution": []}
        self._next = float(N_ENVS)

    def _on_step(self) -> bool:
        return not all(len(streak) >= IN_A_ROW for streak in self.streaks.values())

    def _on_rollout_start(self) -> None:
        trials = self.num_timesteps // STEPS_A_TRIAL
        if trials < self._next or not self._on_step():
            return
        self._next = max(trials + N_ENVS, trials * 1.05)
        figures = self.evaluation(self.model)
        optimal = {
            "exploration": figures["test/informative_pulls"] == 1.0,
            "execution": figures["test/return"] == 1.0,
        }
        for phase, streak in self.streaks.items():
            self.streaks[phase] = [*streak, trials] if optimal[phase] else []


def count_trials(n_arms: int, seed: int) -> dict[str, Any]:
    """
    :param n_arms: |A|
    :param seed: of everything
    :return: one row of the table; a policy that was never optimal has nothing in its column
    """
    machine.prepare()
    env = make_vec_env(ENV_ID, n_envs=N_ENVS, seed=seed, env_kwargs={"n_arms": n_arms, "n_execution_episodes": N_EXECUTIONS})
    model = DREAM("MlpPolicy", env, seed=seed, device="cpu", **parse_settings(SETTINGS))
    callback = UntilOptimal(SplitEvaluation(ENV_ID, "test", {"n_arms": n_arms}))
    model.learn((TRIALS + TRIALS_PER_PAIR * n_arms**2) * STEPS_A_TRIAL, callback=callback)
    firsts = {f"{phase}_trials": streak[0] if len(streak) >= IN_A_ROW else None for phase, streak in callback.streaks.items()}
    return {"n_arms": n_arms, "seed": seed, **firsts, "trials_run": model.num_timesteps // STEPS_A_TRIAL}


def describe_settings() -> dict[str, Any]:
    """:return: what a row of the table is made with"""
    return {
        "settings": SETTINGS,
        "n_envs": N_ENVS,
        "n_execution_episodes": N_EXECUTIONS,
        "max_trials": f"{TRIALS} + {TRIALS_PER_PAIR} * n_arms**2",
    }


def finished_rows(path: Path, made_with: dict[str, Any]) -> list[dict[str, Any]]:
    """
    :param path: of the csv file
    :param made_with: from ``describe_settings``
    :return: the rows that need not be made again
    """
    if not path.exists() or not path.with_suffix(".json").exists():
        return []
    record = json.loads(path.with_suffix(".json").read_text(encoding="utf8"))
    if {key: record.get(key) for key in made_with} != made_with:
        return []
    with path.open(newline="", encoding="utf8") as file:
        return [{key: int(value) if value else None for key, value in row.items()} for row in csv.DictReader(file)]


def plot(rows: list[dict[str, Any]], path: Path) -> dict[str, float]:
    """
    :param rows: of the table
    :param path: of the picture
    :return: for each policy the slope of log(trials) against log(|A|), fitted to all runs
    """
    figure = Figure(figsize=(6.4, 4.4))
    axes = figure.subplots()
    slopes = {}
    for phase, colour in {"exploration": "tab:blue", "execution": "tab:orange"}.items():
        runs = [row for row in rows if row[f"{phase}_trials"] is not None]
        arms = np.array([row["n_arms"] for row in runs], dtype=float)
        trials = np.array([row[f"{phase}_trials"] for row in runs], dtype=float)
        slope, intercept = np.polyfit(np.log(arms), np.log(trials), 1)
        slopes[phase] = float(slope)
        axes.scatter(arms, trials, s=14, alpha=0.5, color=colour)
        ends = np.array([arms.min(), arms.max()])
        axes.plot(ends, np.exp(intercept) * ends**slope, color=colour, label=f"{phase}: trials ∝ |A|^{slope:.2f}")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("number of arms |A|")
    axes.set_ylabel("trials until the greedy policy is optimal")
    axes.set_title(f"DREAM on {ENV_ID}, {len({row['seed'] for row in rows})} seeds")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    return slopes


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n-arms", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64, 128])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--n-jobs", type=int, default=1, help="runs side by side, each on one core")
    parser.add_argument("--folder", type=Path, default=RESULTS / "dream")
    args = parser.parse_args()

    source = describe_source("benchmarks.sample_complexity")
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / "sample_complexity.csv"
    made_with = describe_settings()
    rows = finished_rows(path, made_with)
    done = {(row["n_arms"], row["seed"]) for row in rows}
    cells = [cell for cell in itertools.product(args.n_arms, args.seeds) if cell not in done]
    with ProcessPoolExecutor(args.n_jobs) as pool:
        results = pool.map(count_trials, *zip(*cells, strict=True)) if cells else []
        for row in tqdm(results, total=len(cells)):
            rows.append(row)
            with path.open("w", newline="", encoding="utf8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
            path.with_suffix(".json").write_text(json.dumps({**source, **made_with}, indent=1) + "\n", encoding="utf8")
    slopes = plot(rows, path.with_suffix(".png"))
    if cells or "slopes" not in json.loads(path.with_suffix(".json").read_text(encoding="utf8")):
        record = {**source, **made_with, "slopes": slopes, "versions": describe_versions()}
        path.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf8")
    else:
        print(f"All {len(rows)} runs had finished before. Another --folder runs them again")
    for phase, slope in slopes.items():
        print(f"{phase}: trials grow as |A|^{slope:.2f}")


if __name__ == "__main__":
    main()
