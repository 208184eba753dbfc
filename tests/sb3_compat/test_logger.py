"""What is logged, and where it goes: stdout, csv, json, TensorBoard."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from tests.sb3_compat.common import Algorithm, Noise, trials

#: What users' plots and scripts look for, whatever the algorithm.
COMMON = {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "time/total_timesteps", "time/episodes"}


def noise() -> Any:
    """Trials of different lengths."""
    return trials(Noise())


class Clock:
    """A clock that goes on by itself only where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.now = 1_000_000_000
        monkeypatch.setattr(time, "time_ns", lambda: self.now)


class Slow(Noise):
    """Every step takes 10 ms of the clock."""

    clock: Clock

    def step(self, action: int) -> Any:
        """Slowly."""
        self.clock.now += 10_000_000
        return super().step(action)


def test_frames_per_second(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's test_fps_logger: frames of this call of learn() by the seconds it took, when steps are counted on too; frames
    are counted over all environments, and the step between two inner episodes is one."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(Slow, "clock", clock, raising=False)
    model = algorithm.make(DummyVecEnv([lambda: trials(Slow())] * 2))
    for reset in (True, False, False):
        before, steps_before = clock.now, 0 if reset else model.num_timesteps
        model.learn(100, reset_num_timesteps=reset)
        model.dump_logs()
        model.logger.dump = lambda step=0: None  # type: ignore[method-assign]
        model.dump_logs()
        seconds = (clock.now - before) / 1e9
        assert model.logger.name_to_value["time/fps"] == int((model.num_timesteps - steps_before) / seconds)
        del model.logger.dump
        model.logger.dump()


def test_no_time_at_all(algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch) -> None:
    """SB3's test_fps_no_div_zero: a clock too coarse for a quick run must not divide by zero."""
    Clock(monkeypatch)
    algorithm.make().learn(60, log_interval=1)


@pytest.mark.parametrize("window", [1, 5, 20])
def test_window_of_statistics(algorithm: Algorithm, window: int) -> None:
    """SB3's test_ep_buffers_stats_window_size: means are over so many of the last trials."""
    model: Any = algorithm.make(noise(), stats_window_size=window).learn(120)
    assert model._episode_num > 5
    assert len(model.ep_info_buffer) == min(window, model._episode_num)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == window


def test_csv_json_and_stdout(algorithm: Algorithm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SB3's logger formats: all say the same, with SB3's names, and every value is a number that can be written."""
    model = algorithm.make(noise())
    model.set_logger(configure(str(tmp_path), ["stdout", "csv", "json", "log"]))
    model.learn(200, log_interval=4)
    records = [json.loads(line) for line in (tmp_path / "progress.json").read_text().splitlines()]
    assert len(records) == model._episode_num // 4 > 2
    assert set(records[-1]) >= COMMON | {"train/n_updates", "train/learning_rate", "rollout/exploration_rate"}
    header, *rows = [line.split(",") for line in (tmp_path / "progress.csv").read_text().splitlines()]
    for record, row in zip(records, rows, strict=True):
        written = {key: float(value) for key, value in zip(header, row, strict=True) if value}
        assert written == pytest.approx(record)
        assert all(isinstance(value, int | float) for value in record.values())
    shown = capsys.readouterr().out
    for word in ("ep_rew_mean", "total_timesteps", "learning_rate"):
        assert word in shown
        assert word in (tmp_path / "log.txt").read_text()


def test_verbose(algorithm: Algorithm, capsys: pytest.CaptureFixture[str]) -> None:
    """SB3 is silent with verbose=0, and shows the log and what it wraps with 1."""
    algorithm.make().learn(100, log_interval=1)
    assert capsys.readouterr().out == ""
    algorithm.make(verbose=1).learn(100, log_interval=1)
    shown = capsys.readouterr().out
    assert "ep_rew_mean" in shown
    assert "Using cpu device" in shown
    assert "Wrapping the env" in shown


def scalars(folder: Path) -> dict[str, list[int]]:
    """The steps at which each scalar was written."""
    events = EventAccumulator(str(folder)).Reload()
    return {tag: [event.step for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_tensorboard: a folder for each run, by the algorithm's name or the user's; a run that is counted on goes on
    in its folder, with steps that go on."""
    name = algorithm.cls.__name__
    model = algorithm.make(noise(), tensorboard_log=str(tmp_path))
    model.learn(120, log_interval=2)
    first = scalars(tmp_path / f"{name}_1")
    model.learn(60, log_interval=2, reset_num_timesteps=False)
    on = scalars(tmp_path / f"{name}_1")
    assert {"rollout/ep_rew_mean", "rollout/ep_len_mean", "time/fps", "train/learning_rate"} <= set(first)
    assert len(on["rollout/ep_rew_mean"]) > len(first["rollout/ep_rew_mean"]) > 2
    assert on["rollout/ep_rew_mean"] == sorted(on["rollout/ep_rew_mean"])
    assert max(on["rollout/ep_rew_mean"]) > 120
    model.learn(60, log_interval=2)
    model.learn(60, log_interval=2, tb_log_name="mine")
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}_1", f"{name}_2", "mine_1"}
    assert max(scalars(tmp_path / f"{name}_2")["time/fps"]) <= 64


def test_names_with_brackets(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_escape_log_name: a name with brackets is a name, not a pattern to look for."""
    model = algorithm.make(tensorboard_log=str(tmp_path))
    for _ in range(2):
        model.learn(20, tb_log_name="run[1]*")
    assert {path.name for path in tmp_path.iterdir()} == {"run[1]*_1", "run[1]*_2"}
