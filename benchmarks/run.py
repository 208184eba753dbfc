"""
Train algorithms, and keep their curves: one cell (an algorithm on an environment with a seed), or a whole suite of them.

``python -m benchmarks.run --env MetaMap-v0 --seed 0`` writes ``benchmarks/results/dream/MetaMap-v0/seed_0.csv``: one row
each evaluation, over every problem and every instruction of the test split (and of the train split where it is small),
greedy, without a problem ID; and ``seed_0.json``: the command, the versions and the settings.

``python -m benchmarks.run --suite paper`` does so for every cell of a suite (benchmarks/suites.yml). A cell that has finished
is not run again, and one that was killed goes on from its last evaluation: give the same command once more.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import torch as th
from tqdm import tqdm

from benchmarks.cell import N_EVALUATIONS, Cell, folder_of, run_cell
from benchmarks.engines import ENGINES, Outcome, n_cores, run_local, run_ray
from benchmarks.records import RESULTS
from benchmarks.settings import ALGORITHMS
from benchmarks.suites import SUITES, claim, make_cells, suite_of
from sb3_dream.envs import FAMILIES


def _at_least(minimum: int) -> Callable[[str], int]:
    def whole_number(text: str) -> int:
        if int(text) < minimum:
            raise argparse.ArgumentTypeError(f"must be at least {minimum}, got {text}")
        return int(text)

    return whole_number


def _keywords(text: str) -> dict[str, Any]:
    keywords = json.loads(text)
    if not isinstance(keywords, dict):
        raise argparse.ArgumentTypeError(f"must be like '{{\"n_arms\": 64}}', got {text!r}")
    return keywords


def _env_id(text: str) -> str:
    if text not in FAMILIES:
        close = get_close_matches(text, FAMILIES, n=3, cutoff=0.5) or list(FAMILIES)
        raise argparse.ArgumentTypeError(f"there is no {text!r}. Did you mean {' or '.join(close)}?")
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=sorted(SUITES), help="many cells; --algo, --env and --seed choose among them")
    parser.add_argument(
        "--algo",
        nargs="+",
        choices=sorted(ALGORITHMS),
        help="their settings: benchmarks/hyperparams/<algo>.yml; by default dream, or all of the suite",
    )
    parser.add_argument("--env", nargs="+", type=_env_id, help="registered ids, e.g. MetaMap-v0")
    parser.add_argument("--seed", nargs="+", type=_at_least(0), help="by default 0, or all of the suite")
    parser.add_argument("--n-timesteps", type=_at_least(1), help="instead of the settings' own, or the suite's")
    parser.add_argument("--n-evaluations", type=_at_least(1), default=N_EVALUATIONS)
    parser.add_argument("--env-kwargs", type=_keywords, help="e.g. '{\"n_arms\": 64}'; a suite has its own")
    parser.add_argument("--folder", type=Path, help="where to write; by default benchmarks/results/<algo>/<env>")
    parser.add_argument("--device", default="auto", help="of the networks: cpu, cuda, ...; by default a GPU if there is one")
    parser.add_argument("--progress", action="store_true", help="show a progress bar of a single cell")
    parser.add_argument("--engine", choices=ENGINES, default="local", help="processes of this machine, or Ray")
    parser.add_argument("--n-jobs", type=_at_least(1), help="cells side by side; by default as many as there are cores")
    parser.add_argument("--ray-address", help="of a running cluster; by default Ray is started on this machine")
    return parser


def _chosen(parser: argparse.ArgumentParser, args: argparse.Namespace, folder: Path | None) -> list[Cell]:
    """The cells that the arguments speak of."""
    wanted = {"algo": args.algo, "env_id": args.env, "seed": args.seed}
    if args.suite is None:
        if args.env is None:
            parser.error("--env or --suite is needed")
        kwargs, algos = args.env_kwargs or {}, args.algo or ["dream"]
        if folder and len({*algos}) * len({*args.env}) > 1:
            parser.error("--folder takes one algorithm and one environment, or a suite")
        return [
            Cell(
                algo, env, seed, folder or folder_of(RESULTS, algo, env, kwargs), args.n_timesteps, kwargs, args.n_evaluations
            )
            for algo, env, seed in product(*map(dict.fromkeys, (algos, args.env, args.seed or [0])))
        ]
    if args.env_kwargs is not None:
        parser.error("--env-kwargs: the suite has its own")
    cells = make_cells(args.suite, folder or RESULTS, args.n_timesteps, args.n_evaluations)
    for name, values in wanted.items():
        there = list(dict.fromkeys(getattr(cell, name) for cell in cells))
        if missing := [value for value in values or [] if value not in there]:
            parser.error(f"--{name.removesuffix('_id')}: suite {args.suite} has no {missing}, but {there}")
    return [cell for cell in cells if all(not values or getattr(cell, name) in values for name, values in wanted.items())]


def _summary(cell: Cell, record: dict[str, Any]) -> str:
    figures = {**record["mean_of_last_5"], "cpu_seconds": record["cpu_seconds"]}
    return json.dumps({"algo": cell.algo, "env": cell.env_name, "seed": cell.seed, **figures})


def run_all(cells: Sequence[Cell], outcomes: Iterable[Outcome]) -> dict[str, str]:
    """
    Wait for all, and say what came of each.

    :param cells: all of them
    :param outcomes: theirs, from an engine
    :return: the errors of those that failed
    """
    errors: dict[str, str] = {}
    total = sum(cell.settings["n_timesteps"] for cell in cells)
    with tqdm(total=total, unit=" steps", unit_scale=True, smoothing=0, desc=f"{len(cells)} cells") as bar:
        for cell, record, error in outcomes:
            bar.update(cell.settings["n_timesteps"])
            if record is None:
                errors[str(cell)] = error
            bar.write(_summary(cell, record) if record else f"{cell} failed")
    return errors


def main() -> None:
    """Command line."""
    parser = _parser()
    args = parser.parse_args()
    if args.ray_address and args.engine != "ray":
        parser.error("--ray-address goes with --engine ray")
    if args.engine == "ray" and args.device.startswith("cuda:"):
        parser.error(f"--device: Ray shows a cell one GPU, so say cuda, and not {args.device}")
    try:
        th.device("cpu" if args.device == "auto" else args.device)
    except RuntimeError as error:
        parser.error(f"--device: {error}")
    folder = args.folder and args.folder.resolve()
    cells = [replace(cell, device=args.device) for cell in _chosen(parser, args, folder)]
    try:
        waiting = [cell for cell in cells if cell.finished() is None]
        if folder and args.suite:
            claim(folder, args.suite)
        elif folder and (suite := suite_of(folder)):
            raise ValueError(f"{folder} has the results of suite {suite!r}, and takes no others")
    except ValueError as error:
        raise SystemExit(f"benchmarks.run: {error}") from error
    if len(waiting) < len(cells):
        print(f"{len(cells) - len(waiting)} of {len(cells)} cells had finished before. Another --folder runs them again")
    if not waiting:
        return
    if len(cells) == 1 and args.suite is None and args.engine == "local":
        print(_summary(cells[0], run_cell(cells[0], args.progress)))
        return
    n_jobs = args.n_jobs or n_cores()
    outcomes = run_local(waiting, n_jobs) if args.engine == "local" else run_ray(waiting, n_jobs, args.ray_address)
    if errors := run_all(waiting, outcomes):
        for name, reason in errors.items():
            print(f"\n{name}: {reason}", file=sys.stderr)
        raise SystemExit(f"\n{len(errors)} of {len(waiting)} cells failed. The same command goes on with them")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
