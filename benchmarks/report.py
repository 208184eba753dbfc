"""
``python -m benchmarks.report``: what the runs under ``benchmarks/results/dream`` came to: a table (printed, and written to
``table.md``), and a figure of the learning curves against steps and against processor time (``curves.png``) with the two
limits.
"""

import argparse
import csv
import json
from itertools import chain
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.figure import Figure

import sb3_dream  # noqa: F401  (registers the ids)
from benchmarks.run import LOGGED, RESULTS


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """
    :param folder: of one environment
    :return: for each seed its record, with the rows of its curve under ``curve``
    """
    runs = []
    for path in sorted(folder.glob("seed_*.json")):
        record = json.loads(path.read_text(encoding="utf8"))
        with path.with_suffix(".csv").open(encoding="utf8") as file:
            record["curve"] = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        for figures in (record, *record["curve"]):  # runs before processor time was written down have wall clock only
            figures.setdefault("cpu_seconds", figures["seconds"])
        runs.append(record)
    return runs


def table(all_runs: dict[str, list[dict[str, Any]]]) -> str:
    """
    :param all_runs: of each environment
    :return: a Markdown table, one row for each environment and split
    """
    lines = [
        "| environment | split | seeds | median | worst | optimum | steps | core time, longest | peak memory | explores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, runs in all_runs.items():
        for split, optimum in runs[0]["optimum"].items():
            returns = [run["mean_of_last_5"][f"{split}/return"] for run in runs]
            explored = {
                key.removeprefix(f"{split}/"): np.mean([run["final"][key] for run in runs])
                for key in runs[0]["final"]
                if key.startswith(f"{split}/") and key not in (f"{split}/return", *chain(*LOGGED.values()))
            }
            lines.append(
                f"| {name} | {split} | {len(runs)} | {np.median(returns):.3f} | {min(returns):.3f} | {optimum:.3f} "
                f"| {max(run['n_timesteps'] for run in runs):,} | {max(run['cpu_seconds'] for run in runs):.0f} s "
                f"| {max(run['peak_memory_mb'] for run in runs)} MB "
                f"| {', '.join(f'{key} {value:.2f}'.replace('_', ' ') for key, value in explored.items())} |"
            )
    return "\n".join(lines)


def plot(all_runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """
    :param all_runs: of each environment
    :param path: of the picture
    """
    figure = Figure(figsize=(3.4 * len(all_runs), 5.6))
    axes = figure.subplots(2, len(all_runs), squeeze=False, sharey="col")
    for column, (name, runs) in enumerate(all_runs.items()):
        family: Any = gym.make(name.split("-v0")[0] + "-v0", **(runs[0]["settings"].get("env_kwargs") or {})).unwrapped.env  # type: ignore[attr-defined]
        for row, (key, label, scale) in enumerate(
            [("timesteps", "environment steps (millions)", 1e6), ("cpu_seconds", "seconds of one core", 1)]
        ):
            axis = axes[row, column]
            for run in runs:
                axis.plot(
                    [point[key] / scale for point in run["curve"]],
                    [point["test/return"] for point in run["curve"]],
                    linewidth=1,
                    alpha=0.8,
                )
            axis.axhline(runs[0]["optimum"]["test"], color="black", linestyle="--", linewidth=1, label="problem known")
            axis.axhline(family.unwrapped.no_exploration_return(), color="gray", linestyle=":", label="no exploration")
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(name, fontsize=10)
    axes[0, 0].set_ylabel("test return")
    axes[1, 0].set_ylabel("test return")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RESULTS / "dream")
    args = parser.parse_args()
    all_runs = {path.name: runs for path in sorted(args.folder.iterdir()) if path.is_dir() and (runs := read_runs(path))}
    if not all_runs:
        raise SystemExit(f"No finished run under {args.folder}: python -m benchmarks.run --env MetaMap-v0 --seed 0 makes one")
    text = table(all_runs)
    (args.folder / "table.md").write_text(text + "\n", encoding="utf8")
    print(text)
    plot(all_runs, args.folder / "curves.png")


if __name__ == "__main__":
    main()
