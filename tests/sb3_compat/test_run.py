"""learn() with every argument that SB3's off-policy algorithms have for it."""

from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from tests.sb3_compat.common import Algorithm, assert_same


def recorded_updates(model: Any) -> list[int]:
    """How many updates ``learn`` asks for each time, from now on."""
    asked: list[int] = []
    train = model.train

    def spy(gradient_steps: int, batch_size: int) -> None:
        asked.append(gradient_steps)
        train(gradient_steps, batch_size)

    model.train = spy
    return asked


@pytest.mark.parametrize("train_freq", [4, (4, "step"), (1, "episode")])
@pytest.mark.parametrize("gradient_steps", [3, -1])
def test_train_freq(algorithm: Algorithm, train_freq: Any, gradient_steps: int) -> None:
    """SB3's test_train_freq: after every so many steps or episodes (trials), so many updates; -1 is one for each step."""
    model = algorithm.make(train_freq=train_freq, gradient_steps=gradient_steps, learning_starts=0)
    asked = recorded_updates(model)
    model.learn(64)
    n_rounds = model._episode_num if train_freq == (1, "episode") else 64 // 4
    assert len(asked) == n_rounds > 1
    if gradient_steps == -1:
        assert sum(asked) == model.num_timesteps
    else:
        assert set(asked) == {gradient_steps}
    assert 0 < model._n_updates <= sum(asked)  # there may be no whole trial to learn from at first


@pytest.mark.parametrize("train_freq", ["4", (4, "steps"), ("step", 4), (4.5, "step"), None])
def test_a_wrong_train_freq(algorithm: Algorithm, train_freq: Any) -> None:
    """SB3's test_train_freq_fail."""
    with pytest.raises((ValueError, TypeError)):
        algorithm.make(train_freq=train_freq)


def test_several_environments(algorithm: Algorithm) -> None:
    """SB3's test_offpolicy_multi_env: steps count over all environments, updates as asked for; and episodes as a unit of
    train_freq are refused, since each environment ends its own."""
    env = algorithm.make_env(n_envs=2)
    model = algorithm.make(env, gradient_steps=-1, train_freq=4, learning_starts=0)
    asked = recorded_updates(model)
    model.learn(80)
    assert model.num_timesteps == 80
    assert asked == [8] * 10  # 4 steps of 2 environments
    mean, _ = evaluate_policy(model, env, n_eval_episodes=4, warn=False)
    assert np.isfinite(mean)
    with pytest.raises(AssertionError, match="only one env when doing episodic training"):
        algorithm.make(env, train_freq=(1, "episode")).learn(50)


def test_no_gradient_steps(algorithm: Algorithm) -> None:
    """SB3 lets gradient_steps=0 collect without learning."""
    model = algorithm.make(gradient_steps=0)
    before = {name: value.clone() for name, value in model.policy.named_parameters() if value.requires_grad}
    model.learn(60)
    assert_same(before, {name: value for name, value in model.policy.named_parameters() if value.requires_grad})
    assert model.replay_buffer is not None
    assert model.replay_buffer.size() > 50


class Count(BaseCallback):
    """The number of timesteps, and the remaining progress, at each step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        self.seen.append((self.num_timesteps, self.model._current_progress_remaining))
        return True


def test_counting_on_and_anew(algorithm: Algorithm) -> None:
    """SB3's reset_num_timesteps: anew, steps and schedules begin again; with False they go on, and ``total_timesteps`` is
    what comes on top."""
    model, anew, on = algorithm.make(), Count(), Count()
    model.learn(40, callback=anew)
    model.learn(40, callback=on, reset_num_timesteps=False)
    assert [steps for steps, _ in anew.seen] == list(range(1, 41))
    assert [steps for steps, _ in on.seen] == list(range(41, 81))
    assert anew.seen[-1][1] == pytest.approx(1 - 39 / 40)
    assert on.seen[-1][1] == pytest.approx(1 - 79 / 80)
    assert model.learn(16).num_timesteps == 16


def test_log_interval(algorithm: Algorithm, tmp_path: Any) -> None:
    """SB3's log_interval counts episodes (trials), and None is never."""
    for log_interval, wanted in ((2, [2, 4, 6]), (5, [5]), (None, [])):
        model = algorithm.make(train_freq=(1, "episode"))
        model.set_logger(configure(str(tmp_path / str(log_interval)), ["csv"]))

        class Stop(BaseCallback):
            def _on_step(self) -> bool:
                return self.model._episode_num < 7

        model.learn(2000, callback=Stop(), log_interval=log_interval)  # type: ignore[arg-type]
        text = (tmp_path / str(log_interval) / "progress.csv").read_text()
        assert model._episode_num == 7
        if not wanted:
            assert text == ""
            continue
        header, *rows = [line.split(",") for line in text.splitlines()]
        assert [int(row[header.index("time/episodes")]) for row in rows] == wanted


def test_schedules_are_followed(algorithm: Algorithm) -> None:
    """SB3's schedules are functions of the remaining progress: the optimizer's learning rate follows one, and so does ε
    where the model is given a function of its own after it was made (as with DQN, the constructor takes numbers)."""
    model: Any = algorithm.make(learning_rate=lambda progress: 1e-3 * progress + 1e-5, train_freq=1)
    model.exploration_schedule = lambda progress: progress**2
    rates: list[tuple[float, float, float]] = []

    class Watch(BaseCallback):
        def _on_rollout_start(self) -> None:
            rates.append(
                (model._current_progress_remaining, model.policy.optimizer.param_groups[-1]["lr"], model.exploration_rate)
            )

        def _on_step(self) -> bool:
            return True

    model.learn(100, callback=Watch())
    for progress, learning_rate, epsilon in rates[60:]:
        assert learning_rate == pytest.approx(1e-3 * progress + 1e-5)
        assert epsilon == pytest.approx(progress**2)
    assert len(rates) == 100
