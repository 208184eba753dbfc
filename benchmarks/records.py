"""The files of results: where they go, what is written so that they can be repeated, and how they are read."""

import csv
import io
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import stable_baselines3
import torch as th

import sb3_dream
from sb3_dream.common.files import whole_file

RESULTS = Path(__file__).parent / "results"
#: the score of a run is the mean of so many evaluations, its last
N_LAST = 5
#: the figures of an evaluation, by column
Row = dict[str, float]
_COLUMNS = ("timesteps", "seconds", "test/return")
_RECORDED = ("final", "optimum", "settings", "n_timesteps")


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


def _describe_cpu() -> str:
    """:return: the model, and which vector instructions PyTorch uses there: they change the last bits of a sum"""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(encoding="utf8").splitlines() if cpus.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {th.backends.cpu.get_cpu_capability()}"


def describe_versions() -> dict[str, str]:
    """:return: of what a result depends on, its seconds too"""
    return {
        "cpu": _describe_cpu(),
        "python": platform.python_version(),
        "sb3_dream": sb3_dream.__version__,
        "stable_baselines3": stable_baselines3.__version__,
        "torch": th.__version__,
    }


def read_curve(path: Path) -> list[Row]:
    """
    :param path: a csv file, one row each evaluation
    :return: its rows
    :raises ValueError: if it is not whole; it names the file and the line
    """
    text = path.read_text(encoding="utf8")
    header, *lines = list(csv.reader(io.StringIO(text, newline=""))) or [[]]
    if missing := [name for name in _COLUMNS if name not in header]:
        raise ValueError(f"{path}, line 1: the header has no {', '.join(missing)}")
    rows: list[Row] = []
    for number, cells in enumerate(lines, start=2):
        try:
            row = dict(zip(header, map(float, cells), strict=True))
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not one number for each column: {','.join(cells)!r}") from error
        if rows and row["timesteps"] <= rows[-1]["timesteps"]:
            raise ValueError(f"{path}, line {number}: timesteps {row['timesteps']:.0f} do not go up")
        rows.append(row)
    if not rows:
        raise ValueError(f"{path}, line 2: no evaluation")
    if not text.endswith("\n"):  # a number that was cut is a number still
        raise ValueError(f"{path}, line {len(rows) + 1}: cut in the middle")
    return rows


def write_curve(path: Path, rows: Sequence[Row]) -> None:
    """
    :param path: the csv file, which is whole or not there
    :param rows: each evaluation's
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    with whole_file(path, "csv") as file:
        file.write(text.getvalue().encode())


def read_run(path: Path) -> dict[str, Any]:
    """
    :param path: the json file of a run that has finished, with its curve beside it
    :return: the record, with the rows of the curve under ``curve``
    :raises ValueError: for a file that is not whole; it names file and line
    """
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}") from error
    if missing := [name for name in _RECORDED if name not in record]:
        raise ValueError(f"{path}: no record of a run, it has no {', '.join(missing)}")
    curve_path = path.with_suffix(".csv")
    if not curve_path.exists():
        raise ValueError(f"{path} is there, but its curve {curve_path.name} is not")
    curve = read_curve(curve_path)
    if curve[-1]["timesteps"] != record["final"]["timesteps"]:
        raise ValueError(
            f"{curve_path}, line {len(curve) + 1}: ends at {curve[-1]['timesteps']:.0f} steps, but {path.name} at "
            f"{record['final']['timesteps']:.0f}"
        )
    return {**record, "curve": curve}
