"""Suites: the comparisons that ``suites.yml`` describes, as cells."""

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.cell import N_EVALUATIONS, Cell, folder_of
from benchmarks.settings import load_settings
from sb3_dream.common.files import whole_file

SUITES: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text(encoding="utf8"))
_NAME = "suite.json"


def make_cells(suite: str, root: Path, n_timesteps: int | None = None, n_evaluations: int = N_EVALUATIONS) -> list[Cell]:
    """
    :param suite: a key of ``SUITES``
    :param root: of the results
    :param n_timesteps: instead of the suite's own
    :param n_evaluations: of each cell
    :return: the cells, all of the first seed first
    """
    described = SUITES[suite]
    cells = []
    for seed in described["seeds"]:
        for environment in described["environments"]:
            env_id, env_kwargs = environment["env"], environment.get("env_kwargs", {})
            length = n_timesteps or environment.get("n_timesteps")
            for algo in described["algorithms"]:
                source = algo if described.get("own_n_timesteps") else "dream"
                steps = length or int(load_settings(env_id, source)["n_timesteps"])
                folder = folder_of(root, algo, env_id, env_kwargs)
                cells.append(Cell(algo, env_id, seed, folder, steps, env_kwargs, n_evaluations))
    return cells


def suite_of(folder: Path) -> str | None:
    """
    :param folder: of results
    :return: the suite that it was made for; None if for none
    :raises ValueError: if the file that says so cannot be read
    """
    path = folder / _NAME
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf8"))["suite"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} does not say which suite: {error!r}") from error


def claim(folder: Path, suite: str) -> None:
    """
    Make a folder for a suite, or find that it is one.

    :param folder: of results
    :param suite: a key of ``SUITES``
    :raises ValueError: if it is another's
    """
    if (other := suite_of(folder)) not in (None, suite):
        raise ValueError(f"{folder} has the results of suite {other!r} (see {_NAME}), and cannot take those of {suite!r}")
    with whole_file(folder / _NAME, "json") as file:
        file.write((json.dumps({"suite": suite}) + "\n").encode())
