"""What goes wrong in long runs: full disks, killed processes, NaN, files of others. Each is a clear error, and nothing that
was saved is lost."""

import errno
import json
import os
import resource
import signal
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_dream import DREAM, TrialEnv, VariBAD
from tests.test_saving import assert_same_parameters, make_env, make_model


@contextmanager
def file_size_limit(n_bytes: int) -> Iterator[None]:
    """No file may grow beyond so many bytes: what a full disk does, done by the kernel."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_last_file_and_the_run(tmp_path: Path) -> None:
    """The checkpoint before must survive the one that does not fit, and training can go on and save elsewhere."""
    model = make_model().learn(600)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    model.learn(300, reset_num_timesteps=False)
    with file_size_limit(10_000):
        with pytest.raises(OSError, match=r"Could not save to .*model\.zip .* training can go on") as failure:
            model.save(tmp_path / "model")
        with pytest.raises(OSError, match=r"Could not save to .*replay\.pkl"):
            model.save_replay_buffer(tmp_path / "replay")
    assert failure.value.errno == errno.EFBIG
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before, "no half file may be left beside it"
    model.learn(300, reset_num_timesteps=False)
    model.save(tmp_path / "model")
    assert_same_parameters(model, DREAM.load(tmp_path / "model", device="cpu"))


@pytest.mark.parametrize("name", ["model.zip", "replay.pkl"])
def test_a_save_that_is_killed_leaves_the_last_file(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGKILL in the middle of writing: the file of before is there, whole."""
    model = make_model().learn(300)
    save: Callable[[Path], None] = {"model.zip": model.save, "replay.pkl": model.save_replay_buffer}[name]
    save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    child = os.fork()
    if child == 0:  # dies when half of the file is written

        def die(descriptor: int) -> None:
            os.ftruncate(descriptor, len(before) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

        monkeypatch.setattr(os, "fsync", die)
        save(tmp_path / name)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "the child must have been killed before it had finished"
    assert (tmp_path / name).read_bytes() == before
    save(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name], "the next save takes the place of what was left"


def test_a_truncated_model_file(tmp_path: Path) -> None:
    """A copy that broke off: the error says so, at whatever byte it broke off."""
    make_model().save(tmp_path / "model.zip")
    whole = (tmp_path / "model.zip").read_bytes()
    for n_bytes in (0, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.zip").write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match=r"cut\.zip is not a model file, or was cut short"):
            DREAM.load(tmp_path / "cut.zip")


def test_a_damaged_model_file(tmp_path: Path) -> None:
    """A flipped bit in the weights must not load as other weights."""
    make_model().save(tmp_path / "model.zip")
    data = bytearray((tmp_path / "model.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        place = archive.getinfo("policy.pth").header_offset + 5000
    data[place] ^= 0xFF
    (tmp_path / "model.zip").write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        DREAM.load(tmp_path / "model.zip")


def with_saved_by(path: Path, saved_by: str) -> None:
    """Rewrite the model file as if something else had saved it."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    data = json.loads(content["data"])
    data["saved_by"] = saved_by
    content["data"] = json.dumps(data).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)


def test_a_model_file_of_another_version(tmp_path: Path) -> None:
    """Networks change between versions: the error names both, instead of a missing key in a state_dict."""
    make_model().save(tmp_path / "model.zip")
    with_saved_by(tmp_path / "model.zip", "DREAM 7.3.1")
    with pytest.raises(ValueError, match=r"saved by sb3_dream 7\.3\.1"):
        DREAM.load(tmp_path / "model.zip")


def test_a_model_file_of_another_algorithm(tmp_path: Path) -> None:
    """Of this package or of SB3."""
    make_model().save(tmp_path / "model.zip")
    with_saved_by(tmp_path / "model.zip", "VariBAD 0.1.0")
    with pytest.raises(ValueError, match=r"load it with VariBAD\.load"):
        DREAM.load(tmp_path / "model.zip")
    DQN("MlpPolicy", "CartPole-v1").save(tmp_path / "dqn.zip")
    with pytest.raises(ValueError, match="was not saved by sb3_dream"):
        DREAM.load(tmp_path / "dqn.zip")
    with pytest.raises(FileNotFoundError):
        DREAM.load(tmp_path / "nothing.zip")


def test_a_replay_buffer_that_does_not_fit(tmp_path: Path) -> None:
    """Trials of another family, of more environments or of another length would be learned from as if they were these."""
    make_model().learn(300).save_replay_buffer(tmp_path / "replay.pkl")
    for name, other in {
        "n_envs": make_model(make_env(n_envs=2)),
        "n_exploration_episodes": make_model(make_env(n_exploration_episodes=2)),
        "n_execution_episodes": make_model(make_env(n_execution_episodes=2)),
        "observation_space": DREAM("MlpPolicy", "MetaBandit-v0", device="cpu"),
        "buffer_size": make_model(buffer_size=9000),
    }.items():
        untouched = other.replay_buffer
        with pytest.raises(ValueError, match=rf"replay\.pkl does not fit the model: its {name} is .* but must be"):
            other.load_replay_buffer(tmp_path / "replay.pkl")
        assert other.replay_buffer is untouched


def test_a_replay_buffer_of_another_kind(tmp_path: Path) -> None:
    """VariBAD learns from whole episodes, and DREAM's buffer gives inner ones: its first update would fail."""
    make_model().learn(300).save_replay_buffer(tmp_path / "replay.pkl")
    with pytest.raises(ValueError, match=r"replay\.pkl holds a TrialReplayBuffer, not a EpisodeReplayBuffer"):
        VariBAD("MlpPolicy", make_env(), device="cpu").load_replay_buffer(tmp_path / "replay.pkl")


def test_a_replay_buffer_file_that_is_none(tmp_path: Path) -> None:
    """Cut short, or something else."""
    model = make_model().learn(300)
    model.save_replay_buffer(tmp_path / "replay.pkl")
    whole = (tmp_path / "replay.pkl").read_bytes()
    for n_bytes in (0, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.pkl").write_bytes(whole[:n_bytes])
        with pytest.raises(ValueError, match=r"cut\.pkl is not a TrialReplayBuffer, or was cut short"):
            model.load_replay_buffer(tmp_path / "cut.pkl")
    dqn = DQN("MlpPolicy", "CartPole-v1", buffer_size=10)
    dqn.save_replay_buffer(tmp_path / "dqn.pkl")
    with pytest.raises(ValueError, match=r"dqn\.pkl holds a ReplayBuffer, not a TrialReplayBuffer"):
        model.load_replay_buffer(tmp_path / "dqn.pkl")


class Spoiled(gym.Wrapper):
    """Gives a bad number at one step."""

    def __init__(self, env: gym.Env, where: str, value: float, at_step: int):
        super().__init__(env)
        self.where, self.value, self.at_step, self.n_steps = where, value, at_step, 0

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Count, and spoil."""
        self.n_steps += 1
        observation, reward, *rest = self.env.step(action)
        if self.n_steps == self.at_step and self.where == "reward":
            reward = self.value
        elif self.n_steps == self.at_step:
            observation = {**observation, self.where: np.full_like(observation[self.where], self.value)}
        return observation, reward, *rest


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", ["reward", "previous_reward"])
def test_nan_and_infinity_are_stopped_at_the_door(where: str, value: float) -> None:
    """One NaN in the buffer, and all networks are NaN some hours later. The error says where it came from, and nothing of it
    is stored."""

    def make(index: int) -> Callable[[], gym.Env]:
        return lambda: Spoiled(gym.make("MetaMap-v0"), where, value, at_step=37 if index == 2 else 10**9)

    model = make_model(DummyVecEnv([make(index) for index in range(3)]))
    with pytest.raises(ValueError, match=rf"Environment 2 gave .*{where}.* at its step 37 \(111 over all"):
        model.learn(600)
    assert model.replay_buffer is not None
    assert model.replay_buffer.n_rows == 36
    model.learn(600, reset_num_timesteps=False)  # the bad number is past


class DieAt(gym.Wrapper):
    """Its process is killed at one step, as the kernel does when memory is short."""

    def __init__(self, env: gym.Env, at_step: int):
        super().__init__(env)
        self.left = at_step

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Count down."""
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.env.step(action)


def test_a_dead_worker_is_an_error_and_not_a_hang(tmp_path: Path) -> None:
    """The error says which worker and why; what was learned can be saved and goes on elsewhere."""

    def make(index: int) -> Callable[[], gym.Env]:
        return lambda: DieAt(gym.make("sb3_dream:MetaMap-v0"), at_step=50 if index == 1 else 10**9)

    model = make_model(SubprocVecEnv([make(index) for index in range(3)]))
    with pytest.raises(RuntimeError, match=r"Worker processes have died, by environment and exit code: \{1: -9\}"):
        model.learn(600)
    model.save(tmp_path / "model")
    model.set_env(make_env())
    model.learn(600, reset_num_timesteps=False)


class Slow(gym.Wrapper):
    """Each step takes a while."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict]:
        """Take long over it."""
        time.sleep(0.3)
        return self.env.step(action)


def test_learning_on_after_an_interrupt_in_the_middle_of_a_step() -> None:
    """A notebook's stop button interrupts the main process alone: answers to the step that was given up would then be taken
    for those to a reset."""

    class StopSoon(BaseCallback):
        def _on_step(self) -> bool:
            signal.setitimer(signal.ITIMER_REAL, 0.15)
            return True

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    model = make_model(SubprocVecEnv([lambda: Slow(gym.make("sb3_dream:MetaMap-v0"))] * 3))
    before = signal.signal(signal.SIGALRM, stop)
    with pytest.raises(KeyboardInterrupt):
        model.learn(600, callback=StopSoon())
    signal.signal(signal.SIGALRM, before)
    assert model.env is not None
    assert model.env.waiting  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match=r"env was interrupted in the middle of a step.*set_env with new environments"):
        model.learn(600, reset_num_timesteps=False)
    model.set_env(make_env())
    model.learn(600, reset_num_timesteps=False)


def test_an_error_of_another_connection_is_not_taken_for_a_dead_worker() -> None:
    """A callback that talks to a server must get its own error back."""

    class Talk(BaseCallback):
        def _on_step(self) -> bool:
            raise ConnectionError("the server is away")

    with pytest.raises(ConnectionError, match="the server is away"):
        make_model().learn(600, callback=Talk())


def test_a_trial_env_passes_raw_nan_on() -> None:
    """While exploring the reward is 0, but the agent sees the raw one a step later: NaN must not hide there."""

    class NaNFamily(gym.Env):
        observation_space = gym.spaces.Discrete(2)
        action_space = gym.spaces.Discrete(2)
        problem_space = gym.spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict]:
            super().reset(seed=seed)
            return 0, {}

        def step(self, action: int) -> tuple[int, float, bool, bool, dict]:
            return 0, float("nan"), True, False, {}

    model = DREAM("MlpPolicy", TrialEnv(NaNFamily(), [0, 1], set_problem="options"), device="cpu")
    with pytest.raises(ValueError, match=r"Environment 0 gave observation 'previous_reward' = \[nan\] at its step 1 "):
        model.learn(100)
