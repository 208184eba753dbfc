"""``python -m benchmarks.run``: cells that finish once, go on where they were killed, and leave the files of others alone."""

import json
import os
import shlex
import signal
import sys
import threading
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecEnv

from benchmarks import cell as cell_module
from benchmarks import run
from benchmarks.cell import Cell, folder_of, run_cell
from benchmarks.checkpoint import Checkpoint, locked
from benchmarks.engines import run_local
from benchmarks.records import RESULTS, read_curve
from benchmarks.settings import ALGORITHMS, load_settings, make_train_env
from benchmarks.suites import make_cells


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """As from the command line."""
    monkeypatch.setattr(sys, "argv", ["benchmarks.run", *map(str, arguments)])
    run.main()


def tiny(folder: Path, algo: str = "recurrent_dqn", seed: int = 0, n_timesteps: int = 1200, n_evaluations: int = 6) -> Cell:
    """A cell of a second or two."""
    return Cell(algo, "MetaBandit-v0", seed, folder, n_timesteps, {"n_arms": 4}, n_evaluations)


def contents(folder: Path) -> dict[str, bytes]:
    """Of every file below."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for_rows(cell: Cell, n_rows: int) -> dict[str, Any]:
    """The state of a cell that another process runs, as soon as there are so many rows in it."""
    path = cell.checkpoint / "state.json"
    for _ in range(12_000):
        if path.exists() and len((state := json.loads(path.read_text(encoding="utf8")))["rows"]) >= n_rows:
            return state
        time.sleep(0.01)
    raise AssertionError("it never got there")


@pytest.mark.parametrize("algo", ["recurrent_dqn", "dqn", "ppo_lstm"])
def test_a_killed_cell_goes_on(algo: str, tmp_path: Path) -> None:
    """Else a comparison of hours begins anew, or has evaluations twice, or anneals its learning rate a second time."""
    cell = tiny(tmp_path, algo, n_timesteps=18_000)
    process = get_context("fork").Process(target=run_cell, args=(cell,))
    process.start()
    state = wait_for_rows(cell, 2)
    assert state["pid"] == process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not cell.json.exists()
    before = json.loads((cell.checkpoint / "state.json").read_text(encoding="utf8"))["rows"]

    record = run_cell(cell)
    rows = read_curve(cell.csv)
    assert rows[: len(before)] == before
    assert len(rows) == cell.n_evaluations
    settings = cell.settings
    rollout = settings["n_envs"] * settings.get("n_steps", settings.get("train_freq"))
    for i, row in enumerate(rows):
        assert 0 <= row["timesteps"] - (i + 1) * 3000 <= (rollout if i == 5 or algo != "ppo_lstm" else settings["n_envs"])
    for clock in ("seconds", "cpu_seconds"):
        assert np.all(np.diff([row[clock] for row in rows]) > 0)
    assert record["resumed"] == 1
    assert record == json.loads(cell.json.read_text(encoding="utf8"))
    assert record["n_timesteps"] == rows[-1]["timesteps"]
    assert {path.name for path in tmp_path.iterdir()} == {"seed_0.csv", "seed_0.json", "seed_0.zip"}
    assert ALGORITHMS[algo].load(cell.zip).num_timesteps == record["n_timesteps"]


def drawn_problems(env: VecEnv) -> list[Any]:
    """Those of the next few resets."""
    drawn = []
    for _ in range(4):
        env.reset()
        drawn += env.get_attr("problem_id")
    return drawn


class _KilledError(Exception):
    """In the place of a signal."""


@pytest.mark.parametrize("algo", ["import", "dqn", "ppo_lstm"])
def test_what_a_resumed_cell_goes_on_with(algo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty replay buffer, a learning rate that is high again, or the same problems once more would be another run."""
    cell = tiny(tmp_path, algo, n_timesteps=14_000, n_evaluations=4)
    saved: list[tuple[int, int, float]] = []
    save = Checkpoint.save

    def save_and_die(self: Checkpoint, model: Any, *args: Any) -> None:
        save(self, model, *args)
        saved.append((model.num_timesteps, model._total_timesteps, model.policy.optimizer.param_groups[0]["lr"]))
        if len(saved) == 2:
            raise _KilledError

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    with pytest.raises(_KilledError):
        run_cell(cell)
    env = make_train_env(cell.env_id, cell.settings, cell.seed)
    problems = drawn_problems(env)
    checkpoint = Checkpoint(cell.checkpoint, cell.description)
    model = checkpoint.begin(ALGORITHMS[algo], env, cell.seed, "cpu")
    assert model.num_timesteps == saved[1][0] >= checkpoint.rows[-1]["timesteps"]
    if algo != "ppo_lstm":
        assert model.replay_buffer.size() * model.n_envs == model.num_timesteps
    model._setup_learn(10, None, reset_num_timesteps=False)
    assert drawn_problems(env) != problems

    record = run_cell(cell)
    assert record["resumed"] == 2
    assert {total for _, total, _ in saved} == {14_000}
    rates = [rate for _, _, rate in saved]
    assert rates == sorted(rates, reverse=True) and rates[-1] < rates[0] / 2


def test_a_finished_cell_is_not_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A suite that was interrupted would begin anew. Neither does it matter how its command was written."""
    arguments = ["--algo", "dqn", "--env", "MetaBandit-v0", "--n-timesteps", "1000", "--n-evaluations", "2"]
    call(monkeypatch, *arguments, "--folder", tmp_path)
    before = contents(tmp_path)
    assert set(before) == {"seed_0.csv", "seed_0.json", "seed_0.zip"}
    capsys.readouterr()
    call(monkeypatch, *arguments, "--folder", tmp_path, "--seed", "0", "--n-jobs", "1")
    assert "1 of 1 cells had finished before" in capsys.readouterr().out
    assert contents(tmp_path) == before
    command = shlex.split(json.loads(before["seed_0.json"])["command"])
    assert command[:3] == ["python", "-m", "benchmarks.run"]
    call(monkeypatch, *command[3:], "--folder", tmp_path)
    assert "1 of 1 cells had finished before" in capsys.readouterr().out


def test_suites(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gaps, or other lengths for other algorithms, would make the comparison none. In the control each has its own length: the
    question is what it gets to with its committed settings."""
    paper, control = make_cells("paper", RESULTS), make_cells("control", RESULTS)
    assert len(paper) == len({cell.csv for cell in paper}) == 6 * 4 * 5
    assert len(control) == len({cell.csv for cell in control}) == 5 * 5
    assert {cell.algo for cell in paper} - {cell.algo for cell in control} == {"dqn"}
    lengths = {(cell.env_id, cell.settings["n_timesteps"]) for cell in paper}
    assert len(lengths) == len({env_id for env_id, _ in lengths})
    for cell in control:
        assert cell.settings["n_timesteps"] == load_settings(cell.env_id, cell.algo)["n_timesteps"]
    assert all(cell.settings["env_kwargs"] == {"map_position": [4, 4]} for cell in control)
    assert paper[0].csv == RESULTS / "dream" / "MetaBandit-v0-n_arms=16" / "seed_0.csv"
    assert control[-1].csv == RESULTS / "varibad" / "MetaMap-v0-map_position=[4, 4]" / "seed_4.csv"


def test_a_suite_on_local_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    """One cell that dies must not take the others with it, and is named in the end. The same command goes on with it."""
    arguments = ["--suite", "paper", "--env", "MetaBandit-v0", "--algo", "dqn", "--n-timesteps", "1000", "--seed", "0", "1"]
    arguments += ["--n-evaluations", "2", "--n-jobs", "2", "--folder", str(tmp_path)]
    folder = folder_of(tmp_path, "dqn", "MetaBandit-v0", {"n_arms": 16})
    folder.mkdir(parents=True)
    (folder / "seed_0.checkpoint").write_text("not a folder", encoding="utf8")
    with pytest.raises(SystemExit, match="1 of 2 cells failed"):
        call(monkeypatch, *arguments)
    assert "dqn MetaBandit-v0-n_arms=16 seed 0: " in (said := capfd.readouterr().err) and "FileExistsError" in said
    assert {path.name for path in folder.glob("seed_1*")} == {"seed_1.csv", "seed_1.json", "seed_1.zip"}
    (folder / "seed_0.checkpoint").unlink()
    call(monkeypatch, *arguments)
    assert {path.name for path in folder.iterdir()} == {
        f"seed_{seed}.{end}" for seed in (0, 1) for end in ("csv", "json", "zip")
    }
    assert json.loads((tmp_path / "suite.json").read_text(encoding="utf8")) == {"suite": "paper"}


def test_a_local_process_that_is_killed(tmp_path: Path) -> None:
    """The engine must not wait for it for ever, nor start its cell anew by itself."""
    cell, other = tiny(tmp_path, n_timesteps=10**6), tiny(tmp_path, "dqn", seed=1)
    threading.Thread(target=lambda: os.kill(wait_for_rows(cell, 0)["pid"], signal.SIGKILL), daemon=True).start()
    outcomes = {str(each): (record, error) for each, record, error in run_local([cell, other], n_jobs=2)}
    assert outcomes[str(other)][0]
    record, error = outcomes[str(cell)]
    assert record is None and "exit code -9" in error


def test_the_device_reaches_model_and_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two cores and a GPU: who asks for the cores must get them, and a result must say what it was made on."""
    asked: list[Any] = []
    make_model = cell_module.make_model

    def make(*args: Any, device: str, **kwargs: Any) -> Any:
        asked.append(device)
        return make_model(*args, device=device, **kwargs)

    monkeypatch.setattr(cell_module, "make_model", make)
    arguments: list[str | Path] = [
        "--env",
        "MetaBandit-v0",
        "--n-timesteps",
        "300",
        "--n-evaluations",
        "2",
        "--folder",
        tmp_path,
    ]
    call(monkeypatch, *arguments, "--device", "cpu")
    record = json.loads((tmp_path / "seed_0.json").read_text(encoding="utf8"))
    assert asked == ["cpu"] == [record["device"]]
    assert record["command"].endswith("--device cpu")
    with pytest.raises(SystemExit):
        call(monkeypatch, *arguments, "--seed", "1", "--device", "gpu")
    assert "--device: " in capsys.readouterr().err


def test_two_processes_at_one_cell(tmp_path: Path) -> None:
    """Both would write the same files."""
    cell = tiny(tmp_path)
    with locked(cell.checkpoint), pytest.raises(RuntimeError, match=r"seed_0\.checkpoint: another process is at it"):
        run_cell(cell)
