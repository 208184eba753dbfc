"""SB3's callbacks, as its users write them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    LogEveryNTimesteps,
    ProgressBarCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnNoModelImprovement,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tests.sb3_compat.common import Algorithm, Noise, assert_same, parameters, trials


def noise() -> Any:
    """Trials of different lengths, whose last step says whether it was a success."""
    return trials(Noise())


def unseen() -> Any:
    """The same without a problem ID, to evaluate on."""
    return trials(Noise(), training=False)


class Stop(BaseCallback):
    """Returns False at the n-th call."""

    def __init__(self, n: int):
        super().__init__()
        self.n = n

    def _on_step(self) -> bool:
        return self.n_calls < self.n


class Log(BaseCallback):
    """Writes down when it was called, and by which event."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[tuple[str, int]] = []

    def _note(self, event: str) -> None:
        self.events.append((event, self.num_timesteps))

    def _on_training_start(self) -> None:
        self._note("training start")

    def _on_rollout_start(self) -> None:
        self._note("rollout start")

    def _on_step(self) -> bool:
        self._note("step")
        return True

    def _on_rollout_end(self) -> None:
        self._note("rollout end")

    def _on_training_end(self) -> None:
        self._note("training end")


def test_all_together(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_callbacks: checkpoints by calls and by timesteps, evaluation that stops at a threshold, a maximum of
    episodes, lists, nested lists, and a plain function, in one run."""
    env = DummyVecEnv([noise] * 2)
    evaluation = EvalCallback(
        DummyVecEnv([unseen]),
        callback_on_new_best=StopTrainingOnRewardThreshold(reward_threshold=10_000.0),
        callback_after_eval=StopTrainingOnNoModelImprovement(max_no_improvement_evals=10_000),
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path),
        eval_freq=30,
        n_eval_episodes=2,
        warn=False,
    )
    every = CheckpointCallback(save_freq=20, save_path=str(tmp_path), name_prefix="calls")
    event = EveryNTimesteps(n_steps=50, callback=CheckpointCallback(1, str(tmp_path), name_prefix="steps"))
    most = StopTrainingOnMaxEpisodes(max_episodes=1000)
    seen: list[int] = []

    def plain(locals_: dict[str, Any], globals_: dict[str, Any]) -> bool:
        seen.append(len(locals_["infos"]))
        return True

    model = algorithm.make(env).learn(120, callback=CallbackList([every, CallbackList([evaluation, event]), most]))
    assert model.num_timesteps == 128  # train_freq of 8 steps, of two environments
    assert sorted(p.name for p in tmp_path.glob("calls*")) == [f"calls_{n}_steps.zip" for n in (120, 40, 80)]
    assert sorted(p.name for p in tmp_path.glob("steps*")) == [f"steps_{n}_steps.zip" for n in (100, 50)]
    with np.load(tmp_path / "evaluations.npz") as written:
        np.testing.assert_array_equal(written["timesteps"], [60, 120])
        assert written["results"].shape == written["ep_lengths"].shape == (2, 2)
    algorithm.load(tmp_path / "best" / "best_model", env=env)
    model.learn(16, callback=[every, most])
    model.learn(16, callback=plain)
    assert seen == [2] * 8


def test_order_of_events(algorithm: Algorithm) -> None:
    """SB3's callback contract: what is called when, with the timesteps counted so far."""
    log = Log()
    algorithm.make(train_freq=3).learn(6, callback=log)
    rollout = [("rollout start", 0), ("step", 1), ("step", 2), ("step", 3), ("rollout end", 3)]
    second = [("rollout start", 3), ("step", 4), ("step", 5), ("step", 6), ("rollout end", 6)]
    assert log.events == [("training start", 0), *rollout, *second, ("training end", 6)]


@pytest.mark.parametrize("n", [1, 7, 33])
def test_stopping(algorithm: Algorithm, n: int) -> None:
    """SB3's test_callbacks_can_cancel_runs: False stops at once; the model can be evaluated, and can learn on."""
    model = algorithm.make(noise()).learn(1000, callback=Stop(n))
    assert model.num_timesteps == n
    model.learn(60, callback=Stop(1000), reset_num_timesteps=False)
    assert model.num_timesteps >= n + 60
    assert algorithm.make(noise()).learn(1000, callback=lambda *_: False).num_timesteps == 1


@pytest.mark.parametrize("n_envs", [1, 3])
def test_a_maximum_of_episodes(algorithm: Algorithm, n_envs: int) -> None:
    """SB3's StopTrainingOnMaxEpisodes counts trials, so many for each environment."""
    callback = StopTrainingOnMaxEpisodes(max_episodes=4)
    algorithm.make(DummyVecEnv([noise] * n_envs)).learn(10_000, callback=callback)
    assert 4 * n_envs <= callback.n_episodes < 5 * n_envs


def test_a_reward_threshold_and_no_improvement(algorithm: Algorithm) -> None:
    """SB3's EvalCallback with what stops it: the first evaluation is good enough; or none after the first is better."""
    model = algorithm.make(noise())
    good = EvalCallback(unseen(), callback_on_new_best=StopTrainingOnRewardThreshold(-1e9), eval_freq=15)
    assert model.learn(1000, callback=good).num_timesteps == 15

    class Constant(Noise):
        def step(self, action: int) -> Any:
            observation, _, *rest = super().step(action)
            return observation, 0.0, *rest

    stop = StopTrainingOnNoModelImprovement(max_no_improvement_evals=2)
    stuck = EvalCallback(trials(Constant()), callback_after_eval=stop, eval_freq=10, n_eval_episodes=1)
    assert model.learn(1000, callback=stuck).num_timesteps == 40  # one that is best, and three that are no better


def test_several_environments_to_evaluate_on(algorithm: Algorithm) -> None:
    """SB3's test_eval_callback_vec_env: the memory of a model that trains on one environment must fit four."""
    callback = EvalCallback(DummyVecEnv([unseen] * 4), eval_freq=40, n_eval_episodes=10, warn=False)
    algorithm.make(noise()).learn(100, callback=callback)
    assert np.isfinite(callback.last_mean_reward)
    assert callback.n_calls >= 80


def test_successes_are_logged(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_eval_success_logging: what the family says of success at the end of a trial reaches the log of training
    and of evaluation."""
    model = algorithm.make(DummyVecEnv([noise] * 2))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    callback = EvalCallback(unseen(), eval_freq=50, n_eval_episodes=8, log_path=str(tmp_path), warn=False)
    model.learn(200, callback=callback, log_interval=2)
    with np.load(tmp_path / "evaluations.npz") as written:
        assert written["successes"].shape == (2, 8)
        assert 0 < written["successes"].mean() < 1
        rate = written["successes"].mean(axis=1)
    rows = table(tmp_path)
    assert [float(row["eval/success_rate"]) for row in rows if row["eval/success_rate"]] == pytest.approx(list(rate))
    assert any(0 < float(row["rollout/success_rate"]) < 1 for row in rows if row["rollout/success_rate"])


def table(folder: Path) -> list[dict[str, str]]:
    """progress.csv by column."""
    header, *lines = (folder / "progress.csv").read_text().splitlines()
    return [dict(zip(header.split(","), line.split(","), strict=True)) for line in lines]


@pytest.mark.parametrize("n_envs", [1, 4])
def test_evaluations_are_logged_with_their_timestep(algorithm: Algorithm, tmp_path: Path, n_envs: int) -> None:
    """SB3's test_eval_callback_logs_are_written_with_the_correct_timestep."""
    model = algorithm.make(DummyVecEnv([noise] * n_envs))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    callback = EvalCallback(unseen(), eval_freq=20, n_eval_episodes=2, warn=False)
    model.learn(100 * n_envs, callback=callback, log_interval=None)  # type: ignore[arg-type]
    evaluated = [row for row in table(tmp_path) if row["eval/mean_reward"]]
    assert [int(row["time/total_timesteps"]) for row in evaluated] == [n_envs * step for step in (20, 40, 60, 80, 100)]


@pytest.mark.filterwarnings("ignore:Training and eval env are not of the same type")
def test_evaluation_without_the_training_wrappers(algorithm: Algorithm) -> None:
    """SB3's test_eval_friendly_error: VecNormalize in training and none in evaluation is an error that says so."""
    model = algorithm.make(VecNormalize(DummyVecEnv([noise])))
    with pytest.raises(AssertionError, match="not being wrapped the same way"):
        model.learn(100, callback=EvalCallback(DummyVecEnv([unseen]), eval_freq=10))


def test_checkpoints_to_go_on_from(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_checkpoint_additional_info: model, replay buffer and VecNormalize are saved side by side, and are all that
    a new process needs to go on."""
    env = VecNormalize(DummyVecEnv([noise] * 2))
    callback = CheckpointCallback(50, str(tmp_path), save_replay_buffer=True, save_vecnormalize=True)
    model = algorithm.make(env).learn(100, callback=callback)
    assert {path.name for path in tmp_path.iterdir()} == {
        "rl_model_100_steps.zip",
        "rl_model_replay_buffer_100_steps.pkl",
        "rl_model_vecnormalize_100_steps.pkl",
    }
    resumed_env = VecNormalize.load(str(tmp_path / "rl_model_vecnormalize_100_steps.pkl"), DummyVecEnv([noise] * 2))
    resumed: Any = algorithm.load(tmp_path / "rl_model_100_steps", env=resumed_env)
    resumed.load_replay_buffer(tmp_path / "rl_model_replay_buffer_100_steps")
    assert resumed.num_timesteps == 100
    assert resumed.replay_buffer.n_episodes > 3
    assert resumed_env.obs_rms["observation"].count == pytest.approx(102, abs=0.1)
    resumed.learn(100, reset_num_timesteps=False)
    assert resumed._n_updates > model._n_updates


def test_callbacks_in_callbacks(algorithm: Algorithm) -> None:
    """SB3's test_eval_callback_chaining: the callback of an EvalCallback is told the local variables, and can stop."""

    class Child(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.parent, EvalCallback)
            assert np.isfinite(self.parent.last_mean_reward)
            assert self.locals["new_obs"]["exploring"].shape == (1, 1)
            return self.parent.n_calls < 40

    callback = EvalCallback(unseen(), callback_after_eval=Child(), eval_freq=20, n_eval_episodes=1)
    assert algorithm.make(noise()).learn(1000, callback=callback).num_timesteps == 40


def test_logging_every_n_timesteps(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's LogEveryNTimesteps: trials may be long, and a log by steps is even."""
    model = algorithm.make(DummyVecEnv([noise] * 2))
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, callback=LogEveryNTimesteps(20), log_interval=None)  # type: ignore[arg-type]
    assert [int(row["time/total_timesteps"]) for row in table(tmp_path)] == [20, 40, 60, 80, 100]


@pytest.mark.filterwarnings("ignore:rich is experimental")
def test_progress_bar(algorithm: Algorithm, capsys: pytest.CaptureFixture[str]) -> None:
    """SB3's progress bar counts the steps of this call, over all environments."""
    model = algorithm.make(DummyVecEnv([noise] * 2))
    for reset in (True, False):
        callback = ProgressBarCallback()
        model.learn(64, callback=callback, reset_num_timesteps=reset)
        assert callback.pbar.total == callback.pbar.n == 64
    model.learn(64, progress_bar=True)
    assert "64/64" in "".join(capsys.readouterr())


def test_what_a_callback_can_see(algorithm: Algorithm) -> None:
    """SB3's documented attributes and the local variables of collect_rollouts, which custom callbacks read; and that
    evaluating on the way, or not, gives the same model."""

    class Look(BaseCallback):
        def _on_step(self) -> bool:
            assert isinstance(self.model, BaseAlgorithm)
            assert self.training_env.num_envs == 2
            for name in ("actions", "rewards", "dones", "infos", "new_obs"):
                assert len(self.locals[name]) > 0
            assert self.locals["actions"].shape == self.locals["rewards"].shape == self.locals["dones"].shape == (2,)
            assert all("problem_id" in info for info in self.locals["infos"])
            assert self.logger is self.model.logger
            return True

    looked = algorithm.make(DummyVecEnv([noise] * 2)).learn(100, callback=Look())
    evaluated = algorithm.make(DummyVecEnv([noise] * 2)).learn(
        100, callback=EvalCallback(DummyVecEnv([unseen] * 3), eval_freq=7, n_eval_episodes=3)
    )
    assert_same(parameters(looked), parameters(evaluated))
