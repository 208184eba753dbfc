"""The commands under benchmarks/ run, and write what they say."""

import csv
import json
import re
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from PIL import Image

from benchmarks import cartpole, demo, pictures, report, run, sample_complexity, third_party, throughput
from benchmarks.curve import LOGGED
from benchmarks.evaluation import SplitEvaluation
from benchmarks.families import NAMES, read_runs
from benchmarks.settings import ALGORITHMS, HYPERPARAMS, load_settings, make_model, make_train_env
from sb3_dream import DREAM
from sb3_dream.envs import FAMILIES


def call(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    """As from the command line."""
    monkeypatch.setattr(sys, "argv", ["benchmark", *map(str, arguments)])
    module.main()


def settings_of_trials() -> list[tuple[str, str]]:
    """Every algorithm with every family that its file has settings for."""
    files = {algo: yaml.safe_load((HYPERPARAMS / f"{algo}.yml").read_text(encoding="utf8")) for algo in ALGORITHMS}
    return [(algo, env_id) for algo, file in files.items() for env_id in sorted(file) if env_id.startswith("Meta")]


@pytest.mark.parametrize(("algo", "env_id"), settings_of_trials())
def test_committed_settings_make_a_model(algo: str, env_id: str) -> None:
    """A typing error in a yml would show only after somebody has started a long run."""
    settings = load_settings(env_id, algo)
    model = make_model(settings, make_train_env(env_id, {**settings, "n_envs": 2}, seed=0), ALGORITHMS[algo], seed=0)
    assert model.lr_schedule(1.0) == pytest.approx(float(settings["learning_rate"].removeprefix("lin_")))
    assert model.lr_schedule(0.5) == pytest.approx(model.lr_schedule(1.0) / 2)
    assert settings["eval_env_kwargs"] == {"split": "test"}


def test_every_algorithm_has_settings_for_every_family() -> None:
    """A comparison with a gap is none. DQN, which has no memory, is not compared on images."""
    wanted = {(algo, env_id) for algo in ALGORITHMS for env_id in FAMILIES}
    assert set(settings_of_trials()) == wanted - {("dqn", "MetaSign-v0")}


@pytest.mark.parametrize("algo", sorted(set(ALGORITHMS) - {"dream"}))
def test_a_run_of_a_rival(algo: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In the same trials, evaluated in the same way, with its own figures in the curve."""
    arguments = ["--algo", algo, "--env", "MetaBandit-v0", "--env-kwargs", '{"n_arms": 4}', "--n-timesteps", "1000"]
    call(run, monkeypatch, *arguments, "--n-evaluations", "2", "--folder", tmp_path)
    (each,) = read_runs(tmp_path)
    assert each["optimum"] == {"test": 1.0}
    assert len(each["curve"]) == 2
    assert set(LOGGED[algo]) < set(each["curve"][0])
    assert "train/problem_norm" not in each["curve"][0]


def test_evaluation_is_in_trials_as_in_training() -> None:
    """A memory over the whole trial has never seen one of four execution episodes, if it was trained on one. Every
    instruction comes up equally often all the same, in no more trials than that takes: frames are slow."""
    seen: list[tuple[int, ...]] = []

    class Watch:
        def predict(self, observations: dict[str, np.ndarray], **_: Any) -> tuple[np.ndarray, None]:
            for start, instruction in zip(observations["episode_start"], observations["instruction"], strict=True):
                seen.extend([tuple(instruction.tolist())] if start[0] > 0 and instruction.any() else [])
            return np.full(len(observations["exploring"]), 6), None  # end the episode

    for env_kwargs, n_times in (({}, 1), ({"n_execution_episodes": 2}, 1), ({"n_execution_episodes": 3}, 3)):
        seen.clear()
        figures = SplitEvaluation("MetaMap-v0", "test", env_kwargs)(Watch())
        assert figures["test/return"] == pytest.approx(-2.0)
        assert figures["test/exploration_length"] == 1.0
        assert sorted(Counter(seen).values()) == [24 * n_times] * 4


def test_unknown_settings_are_named() -> None:
    """Otherwise a KeyError from the depths."""
    with pytest.raises(ValueError, match=r"no settings for 'MetaChess-v0', only for \['MetaBandit-v0'"):
        load_settings("MetaChess-v0")
    with pytest.raises(ValueError, match=r"algo must be one of .*'dream'.*, got 'dreem'"):
        load_settings("MetaMap-v0", "dreem")


def test_a_run_and_its_report(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A result that cannot be traced to command, commit and seed is none."""
    folder = tmp_path / "dream" / "MetaBandit-v0-n_arms=4"
    arguments = ["--env", "MetaBandit-v0", "--env-kwargs", '{"n_arms": 4}', "--n-timesteps", "4000", "--n-evaluations", "4"]
    for seed in (0, 1):
        call(run, monkeypatch, *arguments, "--seed", str(seed), "--folder", folder)
    record = json.loads((folder / "seed_1.json").read_text(encoding="utf8"))
    assert "--seed 1" in record["command"]
    assert {"commit", "settings", "versions", "seconds", "n_updates"} <= set(record)
    assert re.search(r"\w, \w", record["versions"]["cpu"]), "seconds and last bits are of one kind of processor"
    assert record["optimum"] == {"test": 1.0}
    runs = read_runs(folder)
    assert [len(each["curve"]) for each in runs] == [4, 4]
    assert runs[1]["curve"][-1]["timesteps"] == record["n_timesteps"] >= 4000
    capsys.readouterr()
    call(report, monkeypatch, "--folder", tmp_path)
    assert "| MetaBandit-v0-n_arms=4 | test | 2 |" in capsys.readouterr().out
    assert (tmp_path / "dream" / "table.md").exists()
    assert Image.open(tmp_path / "dream" / "curves.png").width > 300


def test_report_without_runs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """It says what to do first."""
    with pytest.raises(SystemExit, match="No finished run"):
        call(report, monkeypatch, "--folder", tmp_path)


def test_the_demo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first thing that a newcomer runs: return beside optimum and no-exploration best, a model that loads, a picture."""
    call(demo, monkeypatch, "--n-timesteps", "12000", "--folder", tmp_path)
    printed = capsys.readouterr().out
    assert "all 523 unseen problems" in printed
    assert "exact optimum, problem known   0.800" in printed
    assert "best without exploring         0.300" in printed
    DREAM.load(tmp_path / "dream_distracting_bus.zip", device="cpu")
    picture = Image.open(tmp_path / "trial.gif")
    assert getattr(picture, "n_frames", 1) >= 3


def test_the_pictures_of_the_documentation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One command draws them again when the drawing changes."""
    call(pictures, monkeypatch, "--env", "MetaBandit-v0", "--n-timesteps", "40", "--n-trials", "2", "--folder", tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"bandit_explained.gif", "bandit_trial.png", "bandit_z_space.png"}


def test_throughput(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`make benchmark` says how fast it is and where the time goes."""
    call(throughput, monkeypatch, "--n-timesteps", "15000")
    printed = capsys.readouterr().out
    for line in ("environment steps/s", "learning", "environments", "acting", "storing", "peak memory"):
        assert line in printed


def test_throughput_of_all_algorithms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A speed before learning begins, or of some algorithms only, could not be compared."""

    def smaller(env_id: str, algo: str) -> dict[str, Any]:
        settings = {**load_settings(env_id, algo), "n_envs": 4, "batch_size": 16}
        return {**settings, **({"n_steps": 16} if algo == "ppo_lstm" else {"learning_starts": 0})}

    monkeypatch.setattr(throughput, "load_settings", smaller)
    monkeypatch.setattr(throughput, "_N_STEPS", 128)
    call(throughput, monkeypatch, "--suite", "--env", "MetaBandit-v0", "--n-rounds", "2", "--folder", tmp_path)
    record = json.loads((tmp_path / "throughput.json").read_text(encoding="utf8"))
    assert list(record["algorithms"]) == list(NAMES)
    for figures in record["algorithms"].values():
        assert figures["n_updates"] > 0
        assert len(figures["steps_per_second"]) == len(figures["steps_per_cpu_second"]) == 2
        assert min(figures["steps_per_second"] + figures["steps_per_cpu_second"]) > 0
    assert "E-RL² (RecurrentDQN)" in capsys.readouterr().out


def test_sample_complexity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both policies become optimal on the smallest bandits, and the slopes are printed and drawn."""
    arguments = ["--n-arms", "2", "4", "--seeds", "0"]
    call(sample_complexity, monkeypatch, *arguments, "--folder", tmp_path)
    assert "exploration: trials grow as |A|^" in capsys.readouterr().out
    rows = (tmp_path / "sample_complexity.csv").read_text(encoding="utf8").splitlines()
    assert len(rows) == 3
    assert all(cell for row in rows for cell in row.split(","))
    assert (tmp_path / "sample_complexity.png").exists()

    def again(*_: Any) -> None:
        raise AssertionError("run again")

    monkeypatch.setattr(sample_complexity, "count_trials", again)
    record = (tmp_path / "sample_complexity.json").read_bytes()
    call(sample_complexity, monkeypatch, *arguments, "--folder", tmp_path)
    assert (tmp_path / "sample_complexity.csv").read_text(encoding="utf8").splitlines() == rows
    assert (tmp_path / "sample_complexity.json").read_bytes() == record, "of the run that made the rows, and not of this one"
    assert "All 2 runs had finished before. Another --folder runs them again" in capsys.readouterr().out
    monkeypatch.setitem(sample_complexity.SETTINGS, "gamma", 0.5)
    assert not sample_complexity.finished_rows(tmp_path / "sample_complexity.csv", sample_complexity.describe_settings())


def test_cartpole_is_judged_by_its_best_evaluation(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The table shows what the kept model did in new episodes, not what it was chosen by, and what the last one did."""
    arguments = ["--seeds", "0", "--n-timesteps", "600", "--n-evaluations", "2", "--folder", str(tmp_path)]
    call(cartpole, monkeypatch, *arguments)
    for algo in cartpole.ALGORITHMS:
        with (tmp_path / f"{algo}_seed_0.csv").open(encoding="utf8") as file:
            rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
        record = json.loads((tmp_path / f"{algo}_seed_0.json").read_text(encoding="utf8"))
        best = max(rows, key=lambda row: (row["return"], row["timesteps"]))
        assert record["chosen_at"] == best["timesteps"]
        assert record["return_at_the_end"] == rows[-1]["return"]
        assert 1 <= record["worst"] <= record["return"] <= 500
    table = (tmp_path / "table.md").read_text(encoding="utf8")
    assert "| RecurrentDQN |" in table
    assert "| RecurrentPPO |" in table
    monkeypatch.setattr(cartpole, "run", None)
    call(cartpole, monkeypatch, *arguments)  # what is there is not run again
    arguments[arguments.index("600")] = "700"
    with pytest.raises(ValueError, match=r"is another run: .*'n_timesteps': 600.*'n_timesteps': 700"):
        call(cartpole, monkeypatch, *arguments)  # nor mixed with runs of other settings


def test_frozen_lake_beside_recurrent_ppo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Both algorithms leave a record, a table and a figure, and a finished run is not run again."""
    arguments = ["--n-timesteps", "1000", "--n-evaluations", "1", "--seeds", "0", "--folder", str(tmp_path)]
    call(third_party, monkeypatch, *arguments)
    table = (tmp_path / "table.md").read_text(encoding="utf8")
    assert "| DREAM |" in table
    assert "| RecurrentPPO |" in table
    assert Image.open(tmp_path / "curves.png").width > 300
    records = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert sorted(records) == ["dream_seed_0.json", "ppo_lstm_seed_0.json"]
    call(third_party, monkeypatch, *arguments)
    with pytest.raises(ValueError, match=r"is another run: n_timesteps was 1024 and is now 2000"):
        call(third_party, monkeypatch, *arguments, "--n-timesteps", "2000")  # not mixed with runs of other settings
    assert records == {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}


def test_the_lakes_are_gymnasiums_and_unseen() -> None:
    """What is evaluated on must not be trained on, and the lake that is set in place is the one that Gymnasium would make."""
    lakes = third_party.split_lakes()
    assert [len(set(lakes[split])) for split in ("train", "test")] == [400, 100]
    assert not set(lakes["train"]) & set(lakes["test"])
    trials = third_party.make_trials(lakes["test"], training=False)
    for problem_id, lake in zip(trials.problem_ids[:20], lakes["test"], strict=False):
        trials.reset(options={"problem_id": problem_id})
        family: Any = trials.env.unwrapped
        made: Any = gym.make("FrozenLake-v1", desc=lake, is_slippery=False, reward_schedule=(1.0, -0.2, 0.0)).unwrapped
        assert made.P == family.P
        assert made.desc.tolist() == family.desc.tolist()


def test_the_limits_of_the_lakes() -> None:
    """One bridge holds, all equally often, and the jetty says which: else the lines in the figure are wrong."""
    lakes = [lake for split in third_party.split_lakes().values() for lake in split]
    start = third_party.N_BRIDGES - 1
    intact = []
    for lake in lakes:
        whole = [row for row, cells in enumerate(lake) if "H" not in cells[start:]]
        assert len(whole) == 1
        intact += whole
        jetty = lake[third_party.N_BRIDGES // 2][:start]
        assert jetty[::-1].find("H") == (whole[0] if whole[0] < start else -1)
    counts = np.bincount(intact)
    assert len(set(counts)) == 1
    share = counts[0] / len(lakes)
    assert third_party.LIMITS["no_exploration"] == pytest.approx(share - 0.2 * (1 - share))
    # where the bridge that was explored does not hold, one of the others does, each with the same chance
    assert third_party.LIMITS["exploring_a_bridge"] == pytest.approx(2 * share - 0.2 * (1 - 2 * share))
