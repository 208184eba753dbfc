"""A cell of a comparison: one algorithm on one environment with one seed. It runs once, and goes on where it was killed."""

import json
import re
import shlex
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ProgressBarCallback

from benchmarks import machine
from benchmarks.checkpoint import Checkpoint, another_length, differences, locked, refuse_another
from benchmarks.curve import LOGGED, CurveCallback
from benchmarks.evaluation import SplitEvaluation
from benchmarks.records import N_LAST, describe_source, describe_versions, read_curve, read_run
from benchmarks.settings import ALGORITHMS, load_settings, make_model, make_train_env
from sb3_dream.common.files import whole_file

N_EVALUATIONS = 20
#: how a record says what is now ``ramp_0_x_0``
_OLD_RAMP = re.compile(r"^ramp_([^_]+)$")


def folder_of(root: Path, algo: str, env_id: str, env_kwargs: dict[str, Any]) -> Path:
    """
    :param root: of results
    :param algo: a key of ``ALGORITHMS``
    :param env_id: a registered id
    :param env_kwargs: on top of those in the settings
    :return: where the cells with these are, each seed with files of its own
    """
    return root / algo / "".join([env_id, *(f"-{key}={value}" for key, value in sorted(env_kwargs.items()))])


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Without those that say nothing."""
    return {key: value for key, value in settings.items() if value is not None and value != {}}


@dataclass(frozen=True)
class Cell:
    """
    :param algo: a key of ``ALGORITHMS``
    :param env_id: a registered id
    :param seed: of model and environments
    :param folder: where its files are
    :param n_timesteps: how long; by default as the settings say
    :param env_kwargs: on top of those in the settings
    :param n_evaluations: how often
    :param device: of the networks, as in SB3. A run may go on on another one
    """

    algo: str
    env_id: str
    seed: int
    folder: Path
    n_timesteps: int | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    n_evaluations: int = N_EVALUATIONS
    device: str = "auto"

    def __str__(self) -> str:
        return f"{self.algo} {self.env_name} seed {self.seed}"

    @property
    def env_name(self) -> str:
        """The id, and what comes on top of the settings."""
        return folder_of(Path(), self.algo, self.env_id, self.env_kwargs).name

    @property
    def csv(self) -> Path:
        """The curve."""
        return self.folder / f"seed_{self.seed}.csv"

    @property
    def json(self) -> Path:
        """The record, which is there when the cell has finished."""
        return self.folder / f"seed_{self.seed}.json"

    @property
    def zip(self) -> Path:
        """The trained model, which is there then, too; git ignores it."""
        return self.folder / f"seed_{self.seed}.zip"

    @property
    def checkpoint(self) -> Path:
        """What it goes on from, which is there until then."""
        return self.folder / f"seed_{self.seed}.checkpoint"

    @cached_property
    def settings(self) -> dict[str, Any]:
        """All of them, the length and the environment's arguments too."""
        settings = load_settings(self.env_id, self.algo)
        return {
            **settings,
            "n_timesteps": self.n_timesteps or int(settings["n_timesteps"]),
            "env_kwargs": {**(settings.get("env_kwargs") or {}), **self.env_kwargs},
        }

    @property
    def description(self) -> dict[str, Any]:
        """What must be the same in files that are of this cell."""
        run = {"algo": self.algo, "env": self.env_id, "seed": self.seed, "n_evaluations": self.n_evaluations}
        return {**run, **_given(self.settings)}

    @property
    def command(self) -> str:
        """Runs this cell alone."""
        words = ["python", "-m", "benchmarks.run", "--algo", self.algo, "--env", self.env_id, "--seed", str(self.seed)]
        if self.env_kwargs:
            words += ["--env-kwargs", json.dumps(self.env_kwargs)]
        if self.settings["n_timesteps"] != load_settings(self.env_id, self.algo)["n_timesteps"]:
            words += ["--n-timesteps", str(self.settings["n_timesteps"])]
        if self.n_evaluations != N_EVALUATIONS:
            words += ["--n-evaluations", str(self.n_evaluations)]
        if self.device != "auto":
            words += ["--device", self.device]
        return shlex.join(words)

    def finished(self) -> dict[str, Any] | None:
        """
        :return: its record; None if it has none yet
        :raises ValueError: if its files are of another run, or are not whole; they stay as they are
        """
        if not self.json.exists():
            self._check_unfinished()
            return None
        record = read_run(self.json)
        n_timesteps = record["n_timesteps"]
        now = {**self.description}
        wanted = now.pop("n_timesteps")
        before = {key: record[key] for key in now if key in record} | {
            key: _OLD_RAMP.sub(r"ramp_0_\1_0", value) if isinstance(value, str) else value
            for key, value in record["settings"].items()
            if key != "n_timesteps"
        }
        now = {key: value for key, value in now.items() if key in before or key in self.settings}  # old records say less
        refuse_another(self.json, another_length(n_timesteps, wanted, self.settings), differences(before, now))
        return record

    def _check_unfinished(self) -> None:
        if self.csv.exists():
            read_curve(self.csv)
            if not (self.checkpoint / "state.json").exists():
                raise ValueError(
                    f"{self.csv} is of a run that did not finish, and its checkpoint is gone: remove it to run it anew, or "
                    "take another --folder"
                )
        Checkpoint(self.checkpoint, self.description)


def run_cell(cell: Cell, progress: bool = False) -> dict[str, Any]:
    """
    Train, or go on where it was killed, and write curve, model and record. What has finished is not run again.

    :param cell: what to run
    :param progress: show a progress bar
    :return: its record
    :raises ValueError: if its files are of another run, or are not whole
    :raises RuntimeError: if another process is running it
    """
    machine.prepare()
    with locked(cell.checkpoint):
        record = cell.finished() or _train(cell, progress)
        shutil.rmtree(cell.checkpoint)
    return record


def _train(cell: Cell, progress: bool) -> dict[str, Any]:
    source, settings = describe_source("benchmarks.run"), cell.settings
    evaluations = [SplitEvaluation(cell.env_id, "test", settings["env_kwargs"])]
    if cell.env_id == "MetaCooking-v0":  # its test split is one problem
        evaluations.append(SplitEvaluation(cell.env_id, "train", settings["env_kwargs"]))
    algorithm, env = ALGORITHMS[cell.algo], make_train_env(cell.env_id, settings, cell.seed)
    checkpoint = Checkpoint(cell.checkpoint, cell.description)
    arguments: dict[str, Any] = {"seed": cell.seed, "device": cell.device}
    model = checkpoint.begin(algorithm, env, **arguments) or make_model(settings, env, algorithm, **arguments)
    total = settings["n_timesteps"]
    curve = CurveCallback(
        evaluations,
        cell.n_evaluations,
        total,
        cell.csv,
        LOGGED[cell.algo],
        rows=checkpoint.rows,
        clocks=checkpoint.clocks,
        save=checkpoint.save,
    )
    callbacks: list[BaseCallback] = [curve]
    if progress:
        callbacks.append(ProgressBarCallback())
    # what is left of the same total, so that schedules go on
    left = max(total - model.num_timesteps, 0)
    model.learn(left, callback=CallbackList(callbacks), log_interval=1000, reset_num_timesteps=False)

    last = curve.rows[-N_LAST:]
    record = {
        **source,
        "command": cell.command,
        "algo": cell.algo,
        "env": cell.env_id,
        "seed": cell.seed,
        "n_evaluations": cell.n_evaluations,
        "settings": _given(settings),
        "n_timesteps": model.num_timesteps,
        "n_updates": model._n_updates,
        "resumed": checkpoint.resumed,
        "device": str(model.device),
        "seconds": curve.rows[-1]["seconds"],
        "cpu_seconds": curve.rows[-1]["cpu_seconds"],
        "peak_memory_mb": checkpoint.peak_memory_mb,
        "optimum": {evaluation.split: round(evaluation.optimum, 6) for evaluation in evaluations},
        "final": curve.rows[-1],
        f"mean_of_last_{N_LAST}": {
            f"{evaluation.split}/return": round(sum(row[f"{evaluation.split}/return"] for row in last) / len(last), 5)
            for evaluation in evaluations
        },
        "versions": describe_versions(),
    }
    with whole_file(cell.zip, "zip") as file:
        model.save(file)
    with whole_file(cell.json, "json") as file:
        file.write((json.dumps(record, indent=1) + "\n").encode())
    return record
