"""What a run that was killed goes on from."""

import fcntl
import json
import os
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.records import Row
from sb3_dream.common.files import whole_file
from sb3_dream.common.off_policy import RecurrentOffPolicyAlgorithm


def peak_memory_mb() -> int:
    """:return: of this process"""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """
    While this process is at a run. Its end, by whatever means, unlocks.

    :param folder: of the run's checkpoint
    :raises RuntimeError: if another process is at it
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"{folder}: another process is at it") from None
        yield


class Checkpoint:
    """
    A folder with a model, its replay buffer if it has one, and the rows of its curve. ``state.json`` is written last, and
    names the others: who is killed half-way leaves the checkpoint before.

    :param folder: of this run alone
    :param run: what the run is; one that is another cannot go on from here
    :raises ValueError: if the folder is of another run, or its state cannot be read
    """

    def __init__(self, folder: Path, run: dict[str, Any]):
        self.folder = folder
        self._path = folder / "state.json"
        self._state: dict[str, Any] = {"run": run, "model": None, "rows": [], "clocks": [0.0, 0.0], "resumed": 0, "peak": 0}
        if self._path.exists():
            try:
                state = json.loads(self._path.read_text(encoding="utf8"))
            except json.JSONDecodeError as error:
                raise ValueError(f"{self._path}, line {error.lineno}: {error.msg}. Without {folder} it begins anew") from error
            if different := differences(state["run"], run):
                raise ValueError(
                    f"{folder} is of a run that did not finish, and is another: {different}. Go on with that one, remove the "
                    "folder, or take another --folder"
                )
            self._state = state

    @property
    def rows(self) -> list[Row]:
        """Of the curve."""
        return self._state["rows"]

    @property
    def clocks(self) -> list[float]:
        """Seconds, and processor seconds."""
        return self._state["clocks"]

    @property
    def resumed(self) -> int:
        """How often the run went on from here."""
        return self._state["resumed"]

    @property
    def peak_memory_mb(self) -> int:
        """Of the processes of this run until now."""
        return max(self._state["peak"], peak_memory_mb())

    def begin(self, algorithm: Any, env: VecEnv, seed: int, device: str) -> Any:
        """
        :param algorithm: class of the model
        :param env: to learn on
        :param seed: of the run
        :param device: of the networks
        :return: the model that was saved, with its replay buffer; or None if there is none yet
        """
        name = self._state["model"]
        self._write(resumed=self.resumed + (name is not None))
        if name is None:
            return None
        model = algorithm.load(self.folder / f"{name}.zip", env=env, device=device)
        if isinstance(model, OffPolicyAlgorithm):
            model.load_replay_buffer(self.folder / f"{name}.pkl")
        if not isinstance(model, RecurrentOffPolicyAlgorithm):
            # SB3 seeds a loaded model as at the very beginning, and the same problems would come again. Ours does better
            model.set_random_seed(int(np.random.default_rng([seed, model.num_timesteps]).integers(2**31)))
        return model

    def save(self, model: Any, rows: Sequence[Row], clocks: Sequence[float]) -> None:
        """
        :param model: between two rollouts
        :param rows: of the curve
        :param clocks: seconds, and processor seconds
        """
        name = f"model_{model.num_timesteps}"
        with whole_file(self.folder / f"{name}.zip", "zip") as file:
            model.save(file)
        if isinstance(model, OffPolicyAlgorithm):
            with whole_file(self.folder / f"{name}.pkl", "pkl") as file:
                model.save_replay_buffer(file)
        self._write(model=name, rows=list(rows), clocks=list(clocks))
        for path in self.folder.glob("model_*"):
            if path.stem != name:
                path.unlink()

    def _write(self, **changes: Any) -> None:
        self._state.update(changes, peak=self.peak_memory_mb, pid=os.getpid())
        with whole_file(self._path, "json") as file:
            file.write(json.dumps(self._state, indent=1).encode())


def another_length(n_timesteps: int, wanted: int, settings: dict[str, Any]) -> str:
    """
    :param n_timesteps: of a run that has finished
    :param wanted: how many are asked for
    :param settings: of the run; it ends with a whole rollout
    :return: both numbers if it is another length; else nothing
    """
    rollout = settings["n_envs"] * settings.get("n_steps", settings.get("train_freq", 1))
    return "" if wanted <= n_timesteps < wanted + rollout else f"n_timesteps was {n_timesteps} and is now {wanted}"


def refuse_another(path: Path, *different: str) -> None:
    """
    :param path: of the record of a run that has finished
    :param different: what is another than what is asked for, from ``differences`` and ``another_length``
    :raises ValueError: if anything is; the record stays as it is
    """
    if found := ", ".join(filter(None, different)):
        raise ValueError(f"{path} is there, and is another run: {found}. It stays: take another --folder")


def differences(before: dict[str, Any], now: dict[str, Any]) -> str:
    """
    :param before: of what was written down
    :param now: of what is asked for
    :return: each that is another, with both values; empty if all are the same
    """
    keys = sorted({*before, *now})
    return ", ".join(
        f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in keys if before.get(key) != now.get(key)
    )
