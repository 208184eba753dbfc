"""
``python -m benchmarks.report``: what the runs under ``benchmarks/results`` came to.

- ``dream/table.md`` and ``dream/curves.png``: DREAM by itself, with the two limits
- ``comparison/table.md`` and the pictures beside it: all algorithms, on every environment that more than one has results on
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from benchmarks.comparison import OURS, compare
from benchmarks.comparison_figures import plot_family, plot_improvements, plot_shares
from benchmarks.comparison_tables import write_page
from benchmarks.families import Family, read_families, unfinished
from benchmarks.records import RESULTS


def table(families: Sequence[Family]) -> str:
    """
    :param families: that DREAM has runs of
    :return: a Markdown table, one row for each
    """
    lines = [
        "| environment | split | seeds | median | worst | optimum | steps | core time, longest | peak memory | explores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for family in families:
        runs, returns, prefix = family.runs[OURS], family.returns(OURS), f"{family.split}/"
        explored = {
            key.removeprefix(prefix): np.mean([run["final"][key] for run in runs])
            for key in runs[0]["final"]
            if key.startswith(prefix) and key != f"{prefix}return" and key.replace(prefix, "test/", 1) in runs[0]["final"]
        }
        lines.append(
            f"| {family.name} | {family.split} | {len(runs)} | {np.median(returns):.3f} | {min(returns):.3f} "
            f"| {family.optimum:.3f} | {max(run['n_timesteps'] for run in runs):,} "
            f"| {max(run['cpu_seconds'] for run in runs):.0f} s | {max(run['peak_memory_mb'] for run in runs)} MB "
            f"| {', '.join(f'{key} {value:.2f}'.replace('_', ' ') for key, value in explored.items())} |"
        )
    return "\n".join(lines)


def plot(families: Sequence[Family], path: Path) -> None:
    """
    :param families: that DREAM has runs of
    :param path: of the picture
    """
    figure = Figure(figsize=(3.4 * len(families), 5.6))
    axes = figure.subplots(2, len(families), squeeze=False, sharey="col")
    for column, family in enumerate(families):
        for row, (key, label, scale) in enumerate(
            [("timesteps", "environment steps (millions)", 1e6), ("cpu_seconds", "seconds of one core", 1)]
        ):
            axis = axes[row, column]
            for run in family.runs[OURS]:
                axis.plot(
                    [point[key] / scale for point in run["curve"]],
                    [point["test/return"] for point in run["curve"]],
                    linewidth=1,
                    alpha=0.8,
                )
            axis.axhline(family.optimum, color="black", linestyle="--", linewidth=1, label="problem known")
            axis.axhline(family.unexplored, color="gray", linestyle=":", label="no exploration")
            axis.set_xlabel(label)
            axis.grid(alpha=0.3)
        axes[0, column].set_title(family.title, fontsize=10)
    axes[0, 0].set_ylabel("test return")
    axes[1, 0].set_ylabel("test return")
    axes[0, 0].legend(fontsize=8, loc="lower right")
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def report_dream(results: Path) -> None:
    """
    DREAM by itself: print its table, and write it and the curves.

    :param results: with a folder for each algorithm
    """
    families = list(read_families(results, [OURS]))
    if families:
        text = table(families)
        (results / OURS / "table.md").write_text(text + "\n", encoding="utf8")
        print(text)
        plot([family for family in families if family.split == "test"], results / OURS / "curves.png")


def report_comparison(results: Path, families: Sequence[Family]) -> None:
    """
    All algorithms: print their tables, and write them and the figures.

    :param results: with a folder for each algorithm
    :param families: what is there
    """
    comparison = compare(families)
    if not comparison.families:
        return
    folder = results / "comparison"
    folder.mkdir(exist_ok=True)
    for family in comparison.families:
        plot_family(family, folder / f"{family.file_name}.png")
    if comparison.averaged:
        plot_shares(comparison, folder / "aggregate.png")
    if comparison.improvements:
        plot_improvements(comparison, folder / "probability_of_improvement.png")
    page = write_page(comparison, unfinished(results), results)
    (folder / "table.md").write_text(page, encoding="utf8")
    print(page)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=RESULTS, help="with a folder for each algorithm")
    args = parser.parse_args()
    try:
        families = list(read_families(args.folder))
        if not families:
            example = "python -m benchmarks.run --env MetaMap-v0 --seed 0"
            raise SystemExit(f"No finished run under {args.folder}/<algorithm>/<environment>: {example} makes one")
        report_dream(args.folder)
        report_comparison(args.folder, families)
    except ValueError as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
