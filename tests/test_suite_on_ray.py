"""``--engine ray``: the same cells on Ray, and a worker that dies costs no result."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
import torch as th

from benchmarks import run
from benchmarks.cell import Cell
from benchmarks.engines import run_ray
from benchmarks.records import read_curve

_N_STEPS = 10_000


def kill_one_worker(folder: Path, killed: list[str]) -> None:
    """The first that has evaluated once."""
    while not killed:
        for path in folder.glob("*/*/*.checkpoint/state.json"):
            try:
                state = json.loads(path.read_text(encoding="utf8"))
            except FileNotFoundError:  # it has just finished
                continue
            if 1 <= len(state["rows"]) <= 2:
                os.kill(state["pid"], signal.SIGKILL)
                killed.append(f"{state['run']['algo']} {state['run']['seed']}")
                return
        time.sleep(0.005)


def test_four_cells_two_workers_and_one_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a cluster workers die: their cells must go on elsewhere, from where they were, until the table is complete."""
    pytest.importorskip("ray")
    killed: list[str] = []
    threading.Thread(target=kill_one_worker, args=(tmp_path, killed), daemon=True).start()
    arguments = ["--suite", "paper", "--env", "MetaBandit-v0", "--algo", "dqn", "recurrent_dqn", "--seed", "0", "1"]
    arguments += ["--n-timesteps", str(_N_STEPS), "--n-evaluations", "5", "--engine", "ray", "--n-jobs", "2"]
    monkeypatch.setattr(sys, "argv", ["benchmarks.run", *arguments, "--folder", str(tmp_path)])
    run.main()
    resumed = {}
    for algo in ("dqn", "recurrent_dqn"):
        folder = tmp_path / algo / "MetaBandit-v0-n_arms=16"
        assert {path.name for path in folder.iterdir()} == {
            f"seed_{seed}.{end}" for seed in (0, 1) for end in ("csv", "json", "zip")
        }
        for seed in (0, 1):
            record = json.loads((folder / f"seed_{seed}.json").read_text(encoding="utf8"))
            steps = [row["timesteps"] for row in read_curve(folder / f"seed_{seed}.csv")]
            assert len(steps) == 5 and steps[-1] == record["n_timesteps"] >= _N_STEPS
            resumed[f"{algo} {seed}"] = record["resumed"]
    assert len(killed) == 1
    assert resumed == {name: int(name in killed) for name in resumed}


@pytest.mark.skipif(th.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_no_node_has(tmp_path: Path) -> None:
    """Ray would wait for one for ever, and say nothing."""
    pytest.importorskip("ray")
    cell = Cell("dqn", "MetaBandit-v0", 0, tmp_path, device="cuda")
    with pytest.raises(SystemExit, match="--device cuda: no node of the cluster has a GPU"):
        next(run_ray([cell], n_jobs=1))
    assert not list(tmp_path.iterdir())
