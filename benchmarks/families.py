"""What is under ``benchmarks/results/<algo>/<env>/seed_<s>``: the finished runs, and what they are read against."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from benchmarks.records import N_LAST, read_run

#: by the name of the folder, in the order of the tables: the name in the paper
NAMES = {
    "dream": "DREAM",
    "recurrent_dqn": "E-RL² (RecurrentDQN)",
    "import": "IMPORT",
    "varibad": "VariBAD",
    "ppo_lstm": "RecurrentPPO",
    "dqn": "DQN",
}
#: where exploring brings nothing: whoever is not optimal here is no rival yet
CONTROL = "MetaMap-v0-map_position=[4, 4]"
_TITLES = {
    "MetaBandit-v0-n_arms=16": "bandit, 16 arms",
    "MetaDistractingBus-v0": "distracting bus",
    "MetaMap-v0": "map",
    "MetaCooking-v0": "cooking",
    "MetaSign-v0": "sign, by sight",
    "MetaSign-v0-shapes=['box', 'key', 'ball']": "sign, three shapes",
    CONTROL: "map at the start (control)",
}


def read_runs(folder: Path) -> list[dict[str, Any]]:
    """
    :param folder: of one environment
    :return: for each seed that is finished its record, with the rows of its curve under ``curve``
    :raises ValueError: for a file that is not whole; it names file and line
    """
    runs = []
    for path in sorted(folder.glob("seed_*.json")):
        record = read_run(path)
        for figures in (record, *record["curve"]):  # runs before processor time was written down have wall clock only
            figures.setdefault("cpu_seconds", figures["seconds"])
        runs.append(record)
    return runs


@dataclass(frozen=True)
class Family:
    """
    One environment, evaluated on one split.

    :param name: of its folders
    :param split: ``"train"`` or ``"test"``
    :param runs: by algorithm, see ``NAMES``
    """

    name: str
    split: str
    runs: dict[str, list[dict[str, Any]]]

    @property
    def _record(self) -> dict[str, Any]:
        return next(iter(self.runs.values()))[0]

    @property
    def title(self) -> str:
        """For people."""
        title = _TITLES.get(self.name, self.name)
        return title if len(self._record["optimum"]) == 1 else f"{title}, {self.split}"

    @property
    def file_name(self) -> str:
        """Of what is drawn, without ending."""
        return re.sub(r"\W+", "_", self.title).strip("_").lower()

    @property
    def optimum(self) -> float:
        """The best return with the problem known, on average over the split."""
        return self._record["optimum"][self.split]

    @cached_property
    def unexplored(self) -> float:
        """The best return without exploring, on average over the family."""
        env_kwargs = self._record["settings"].get("env_kwargs") or {}
        env_id = re.match(r"\w+-v\d+", self.name)
        if env_id is None:
            raise ValueError(f"{self.name}: a folder of results is named for a registered id, e.g. MetaMap-v0")
        trials: Any = gym.make(env_id[0], **env_kwargs).unwrapped
        return trials.env.unwrapped.no_exploration_return()

    @property
    def rewards_exploring(self) -> bool:
        """Whether there is anything to compare."""
        return self.optimum - self.unexplored > 1e-6

    @property
    def represents_problems(self) -> bool:
        """
        Whether the split is the one that is compared: training problems where the test split is a single problem (only there
        both are evaluated), for the limit without exploring is a mean over problems, and says little of a single one.
        """
        return self.split == ("train" if "train" in self._record["optimum"] else "test")

    def label(self, algo: str) -> str:
        """
        :param algo: one of ``runs``
        :return: its name, and whether its time is another than that of one core
        """
        on_gpu = any(run.get("device", "cpu") != "cpu" for run in self.runs[algo])
        return NAMES[algo] + " on a GPU" * on_gpu

    def returns(self, algo: str) -> np.ndarray:
        """
        :param algo: one of ``runs``
        :return: (n_seeds,) the mean of the last evaluations
        """
        key = f"{self.split}/return"
        return np.array([np.mean([row[key] for row in run["curve"][-N_LAST:]]) for run in self.runs[algo]])

    def shares(self, algo: str) -> np.ndarray:
        """
        :param algo: one of ``runs``
        :return: (n_seeds,) (return - without exploring) / (optimum - without exploring)
        """
        return (self.returns(algo) - self.unexplored) / (self.optimum - self.unexplored)


def read_families(folder: Path, algorithms: Iterable[str] = NAMES) -> Iterator[Family]:
    """
    :param folder: with a folder for each algorithm
    :param algorithms: those that are looked at
    :return: every environment with a finished run, each split that all its runs were evaluated on by itself
    """
    runs: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for algo in algorithms:
        for path in sorted(folder.glob(f"{algo}/*/")):
            if found := read_runs(path):
                runs.setdefault(path.name, {})[algo] = found
    for name in [*(name for name in _TITLES if name in runs), *sorted(set(runs) - set(_TITLES))]:
        records = [run for of_algo in runs[name].values() for run in of_algo]
        for split in ("test", "train"):
            if all(f"{split}/return" in run["curve"][-1] and split in run["optimum"] for run in records):
                yield Family(name, split, runs[name])


def unfinished(folder: Path) -> list[str]:
    """
    :param folder: with a folder for each algorithm
    :return: the curves that have no record yet
    """
    curves = [path for algo in NAMES for path in sorted(folder.glob(f"{algo}/*/seed_*.csv"))]
    return [str(path.relative_to(folder)) for path in curves if not path.with_suffix(".json").exists()]
