"""A run that goes on from its files goes on as if it had one future, and not back into its past."""

from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_dream import DREAM
from tests.test_saving import assert_same_parameters, make_env, make_model


class Problems(BaseCallback):
    """Writes down the problem of every trial that ends."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[int] = []

    def _on_step(self) -> bool:
        self.seen += [info["problem_id"] for info in self.locals["infos"] if "execution_returns" in info]
        return True


def saved_run(folder: Path) -> Problems:
    """600 steps, then a checkpoint of everything."""
    problems = Problems()
    model = make_model().learn(600, callback=problems)
    model.save(folder / "model")
    model.save_replay_buffer(folder / "replay")
    return problems


def resume(folder: Path, n_steps: int = 600, **kwargs: Any) -> tuple[DREAM, Problems]:
    """As another process would: a new environment of the same seed, the model, its buffer."""
    model = DREAM.load(folder / "model", env=make_env(), device="cpu", **kwargs)
    model.load_replay_buffer(folder / "replay")
    problems = Problems()
    return model.learn(n_steps, callback=problems, reset_num_timesteps=False), problems


def test_two_resumes_are_the_same_run(tmp_path: Path) -> None:
    """Otherwise a result of a run that was interrupted could not be repeated. Whatever global generators did before."""
    saved_run(tmp_path)
    first, first_problems = resume(tmp_path)
    th.rand(7), np.random.seed(99)  # noqa: NPY002
    second, second_problems = resume(tmp_path)
    assert first.num_timesteps == second.num_timesteps >= 1200
    assert first_problems.seen == second_problems.seen
    assert_same_parameters(first, second)


def test_problems_are_not_played_again(tmp_path: Path) -> None:
    """SB3 seeds a loaded model as at its very beginning: a run that is killed every hour would see its first hour's
    problems only."""
    before = saved_run(tmp_path).seen
    _, after = resume(tmp_path)
    n_trials = min(len(before), len(after.seen))
    assert n_trials > 10
    agree = np.mean(np.array(before[:n_trials]) == np.array(after.seen[:n_trials]))
    assert agree < 0.5, "1 of 24 agree by chance"


def test_each_resume_of_a_chain_goes_somewhere_new(tmp_path: Path) -> None:
    """Killed and resumed again and again, every leg has problems of its own."""
    saved_run(tmp_path)
    legs = []
    for _ in range(3):
        model, problems = resume(tmp_path)
        legs.append(problems.seen[:10])
        assert len(legs[-1]) == 10
        model.save(tmp_path / "model")
        model.save_replay_buffer(tmp_path / "replay")
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert np.mean(np.array(legs[one]) == np.array(legs[other])) < 0.5


def test_everything_goes_on_where_it_was(tmp_path: Path) -> None:
    """ε, counters, learning rate and replay: a resumed run must not warm up, explore or forget anew."""
    saved_run(tmp_path)
    untouched = DREAM.load(tmp_path / "model", device="cpu")
    model, _ = resume(tmp_path, n_steps=30)
    assert untouched.exploration_rate < 1
    assert model.exploration_rate <= untouched.exploration_rate
    assert model._n_calls == untouched._n_calls + 10
    assert model._n_updates >= untouched._n_updates > 0
    assert model.num_timesteps == untouched.num_timesteps + 30
    assert model.replay_buffer is not None
    assert model.replay_buffer.n_rows == untouched._n_calls + 10


def test_a_replay_buffer_takes_no_more_room_than_its_rows(tmp_path: Path) -> None:
    """A checkpoint early in a run of millions of steps must not write gigabytes of zeros."""
    model = make_model(buffer_size=3_000_000).learn(600)
    model.save_replay_buffer(tmp_path / "replay.pkl")
    assert (tmp_path / "replay.pkl").stat().st_size < 600 * 300
    assert model.replay_buffer is not None
    model.load_replay_buffer(tmp_path / "replay.pkl")
    assert model.replay_buffer.buffer_size == 1_000_000
    model.learn(300, reset_num_timesteps=False)
