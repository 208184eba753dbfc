"""The comparison in Markdown."""

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from math import inf
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.comparison import ALL, Comparison, Estimate, Reached, interquartile_means, reached, thresholds
from benchmarks.families import CONTROL, NAMES, Family, read_runs

COMPETENT = 0.95


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows))


def _interval(estimate: Estimate, digits: int = 2) -> str:
    value, low, high = (f"{figure:.{digits}f}" for figure in estimate)
    return f"{value} [{low}, {high}]"


def _steps(n_steps: float) -> str:
    return f"{n_steps / 1e6:.2f}M" if n_steps >= 1e6 else f"{n_steps / 1e3:.0f}k"


def _averages(comparison: Comparison, rows: dict[str, dict[str, Estimate]]) -> str:
    """A row for each algorithm: over all families, and in each with its number of seeds."""
    titles = [family.title for family in comparison.averaged]

    def cells(algo: str, estimates: dict[str, Estimate]) -> list[str]:
        n_families = len(estimates) - 1
        over = "" if n_families == len(titles) else f" ({n_families} of {len(titles)} families)"
        each = [
            (
                f"{_interval(estimates[family.title])}, n = {len(family.runs[algo])}"
                if family.title in estimates
                else "no results"
            )
            for family in comparison.averaged
        ]
        return [NAMES[algo], _interval(estimates[ALL]) + over, *each]

    return _table(["algorithm", ALL, *titles], [cells(algo, estimates) for algo, estimates in rows.items()])


def _returns(families: Sequence[Family]) -> str:
    rows = []
    for family in families:
        for algo, runs in family.runs.items():
            returns = family.returns(algo)
            rows.append(
                [
                    family.title,
                    family.label(algo),
                    str(len(runs)),
                    _interval(interquartile_means([returns])[0], 3),
                    f"{min(returns):.3f}",
                    f"{family.optimum:.3f}",
                    f"{family.unexplored:.3f}",
                    _range([run["n_timesteps"] for run in runs], _steps),
                    _range([run["cpu_seconds"] for run in runs], lambda seconds: f"{seconds:.0f} s"),
                ]
            )
    return _table(
        ["family", "algorithm", "n seeds", "return", "worst", "optimum", "without exploring", "steps", "core time"], rows
    )


def _range(values: Sequence[float], show: Callable[[float], str]) -> str:
    low, high = show(min(values)), show(max(values))
    return low if low == high else f"{low} to {high}"


def _when(when: Reached, n_seeds: int) -> list[str]:
    some = "" if when.n_seeds in (0, n_seeds) else f" ({when.n_seeds} of {n_seeds} seeds)"
    if when.timesteps == inf:
        return [f"never{some}"] + ["never"] * 2
    return [f"{_steps(when.timesteps)}{some}", f"{when.cpu_seconds:.0f} s", f"{when.seconds:.0f} s"]


def _times(families: Sequence[Family]) -> str:
    rows = []
    for family in families:
        for algo, runs in family.runs.items():
            cells = [cell for limit in thresholds(family) for cell in _when(reached(family, algo, limit), len(runs))]
            rows.append([family.title, family.label(algo), str(len(runs)), *cells])
    kinds = ["steps", "core time", "wall clock"]
    header = [f"{limit}: {kind}" for limit in ("above no exploration", "95 % of the optimum") for kind in kinds]
    return _table(["family", "algorithm", "n seeds", *header], rows)


def _control(family: Family) -> str:
    rows = []
    for algo, runs in family.runs.items():
        shares = family.returns(algo) / family.optimum
        n_competent = int((shares >= COMPETENT).sum())
        verdict = {0: "no", len(runs): "yes"}.get(n_competent, f"{n_competent} of {len(runs)} seeds")
        when = _when(reached(family, algo, COMPETENT * family.optimum), len(runs))
        rows.append(
            [
                family.label(algo),
                str(len(runs)),
                ", ".join(f"{share:.1%}" for share in shares),
                f"{np.median(shares):.1%}",
                f"{min(shares):.1%}",
                verdict,
                *when[:2],
            ]
        )
    return _table(["algorithm", "n seeds", "each seed", "median", "worst", "≥ 95 %", "after steps", "core time"], rows)


def _throughput(record: dict[str, Any]) -> str:
    rows = [
        [
            NAMES[algo],
            f"{np.median(figures['steps_per_cpu_second']):,.0f}",
            f"{min(figures['steps_per_cpu_second']):,.0f} to {max(figures['steps_per_cpu_second']):,.0f}",
            f"{np.median(figures['steps_per_second']):,.0f}",
            str(figures["n_envs"]),
        ]
        for algo, figures in record["algorithms"].items()
    ]
    header = [
        "algorithm",
        "environment steps for a second of processor time",
        "of single rounds",
        "by the wall clock",
        "environments side by side",
    ]
    return _table(header, rows)


def _tuning(folder: Path) -> str:
    """Optuna's reports, as rl_zoo3 writes them, beside a run of the same length with the committed settings."""
    rows = []
    for algo, name in NAMES.items():
        path = folder / algo / "search.csv"
        if not path.exists():
            continue
        with path.open(newline="", encoding="utf8") as file:
            trials = list(csv.DictReader(file))
        values = sorted((float(trial["value"]) for trial in trials if trial["state"] == "COMPLETE"), reverse=True)
        rows.append(
            [
                name,
                str(len(trials)),
                str(sum(trial["state"] == "PRUNED" for trial in trials)),
                " ".join(f"{value:.2f}" for value in values[:3]),
                " ".join(f"{run['final']['test/return']:.2f}" for run in read_runs(folder / algo)) or "no run",
            ]
        )
    return _table(["algorithm", "Optuna trials", "of these ended early", "best three returns", "committed settings"], rows)


def write_page(comparison: Comparison, unfinished: Sequence[str], results: Path) -> str:
    """
    :param comparison: of all results
    :param unfinished: curves of runs that are not over
    :param results: what else there is: ``comparison/throughput.json`` of ``benchmarks.throughput --suite``, and ``tuning``
    :return: Markdown with the tables, and with the pictures that lie beside it
    """
    control = [family for family in comparison.families if family.name == CONTROL]
    others = [family for family in comparison.families if family.name != CONTROL]
    exploring = [family for family in others if family.rewards_exploring]
    parts = [
        "Score of a run: the mean of its last five evaluations. Intervals are of 95 %, from a bootstrap over the seeds of each"
        " family ([rliable](https://github.com/google-research/rliable)); *n* is the number of seeds. Where all seeds agree,"
        " and where there is only one, an interval has no width: that is a limit of the bootstrap, not certainty. Time is of"
        " one core (which waits for the GPU where there is one), evaluation left out."
    ]
    if unfinished:
        parts.append(f"Left out, for they are not finished: {', '.join(f'`{name}`' for name in unfinished)}.")
    if comparison.averaged:
        parts += [
            "### All families together",
            "Share of what exploring can bring: (return − best without exploring) / (optimum − best without exploring), both"
            " limits exact. 0 is no better than not to explore, and 1 is optimal; below 0 is worse than not to explore."
            f" Interquartile mean over seeds; *{ALL}* is the mean of the families' own. In cooking the return is that in the"
            " training problems (without their IDs): the test split is a single problem, and the limit without exploring is a"
            " mean over problems.",
            _averages(comparison, comparison.shares),
            "![Share of what exploring can bring, for each algorithm](aggregate.png)",
        ]
        if any(len(estimates) <= len(comparison.averaged) for estimates in comparison.shares.values()):
            parts.append(
                "Where results are missing, the mean is over the other families, and cannot be compared as it stands."
            )
    if comparison.improvements:
        parts += [
            "How likely a run of DREAM is better than one of the rival's (a tie counts half):",
            _averages(comparison, comparison.improvements),
            "![How likely DREAM is better than each rival](probability_of_improvement.png)",
        ]
    if others:
        parts += [
            "### Family by family",
            "Return: interquartile mean over seeds. In the figures a run that is over keeps its last return.",
            _returns(others),
            *(f"![{family.title}: return against steps and seconds]({family.file_name}.png)" for family in others),
        ]
    if exploring:
        parts += [
            "### Steps and seconds until it gets there",
            "The first evaluation that is above the limit and is followed by another one that is, too; median over seeds, and"
            " *never* if half of them do not get there. There are as many evaluations as there are rows in the curves, so it"
            " may have been earlier by up to the distance of two.",
            _times(exploring),
        ]
    for family in control:
        parts += [
            "### The control: the map lies at the start",
            "Nothing is left to explore, but what was seen at the start has to be remembered. A rival that does not reach 95 %"
            " of the optimum here is no rival yet. (DQN has no memory, and is not expected to.)",
            _control(family),
            f"![{family.title}: return against steps and seconds]({family.file_name}.png)",
        ]
    if (results / "tuning").exists():
        parts += [
            "### Tuning",
            "A search with Optuna on the map, 400,000 steps for each of its trials, judged by the return in 300 trials at the"
            " end; and a run of as many steps with the committed settings, in all problems and with all goals. (Optimum 0.80,"
            " without exploring 0.30.)",
            _tuning(results / "tuning"),
        ]
    throughput = results / "comparison" / "throughput.json"
    if throughput.exists():
        record = json.loads(throughput.read_text(encoding="utf8"))
        parts += [
            "### Throughput",
            f"{record['env']}, committed settings, one core, updates included: median of {record['n_rounds']} rounds of"
            f" {record['n_steps']:,} steps each, taken in turns in one process, after a first one that is not counted"
            " (`python -m benchmarks.throughput --suite`). The first column is for a core with nothing else to do.",
            _throughput(record),
        ]
    return "\n\n".join(parts) + "\n"
