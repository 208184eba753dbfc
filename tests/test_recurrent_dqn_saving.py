"""RecurrentDQN's files: what comes back acts and learns the same, and a resumed run can be repeated."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

from sb3_dream import DREAM, EpisodeReplayBuffer, RecurrentDQN
from tests.counting_env import counting
from tests.test_episode_replay_buffer import windows


def make_env(seed: int = 0, n_envs: int = 3) -> VecEnv:
    """CartPole: episodes of different lengths."""
    return make_vec_env("CartPole-v1", n_envs=n_envs, seed=seed)


def make_model(env: VecEnv | None = None, **kwargs: Any) -> RecurrentDQN:
    """A model that learns a little."""
    arguments: dict[str, Any] = {
        "learning_starts": 200,
        "train_freq": 10,
        "batch_size": 8,
        "buffer_size": 6000,
        "sequence_length": 12,
        "burn_in": 4,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [16], "lstm_hidden_size": 8},
    }
    return RecurrentDQN("MlpPolicy", env or make_env(), **{**arguments, **kwargs})


def assert_same_parameters(first: RecurrentDQN, second: RecurrentDQN) -> None:
    """To the last bit: network and target."""
    ours, theirs = first.policy.state_dict(), second.policy.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert th.equal(value, theirs[name]), name


def saved_run(folder: Path) -> RecurrentDQN:
    """600 steps, then a checkpoint of everything."""
    model = make_model().learn(600)
    model.save(folder / "model")
    model.save_replay_buffer(folder / "replay")
    return model


def resume(folder: Path) -> tuple[RecurrentDQN, list[float]]:
    """As another process would: a new environment of the same seed, the model, its buffer. And the first observations."""
    model = RecurrentDQN.load(folder / "model", env=make_env(), device="cpu")
    model.load_replay_buffer(folder / "replay")
    seen: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            seen.extend(self.locals["new_obs"].ravel().tolist())
            return True

    return model.learn(600, callback=Watch(), reset_num_timesteps=False), seen


def test_everything_comes_back(tmp_path: Path) -> None:
    """Network, target, optimizer, ε, counters and arguments, without an environment too; and no second copies of them."""
    model = saved_run(tmp_path)
    loaded = RecurrentDQN.load(tmp_path / "model", device="cpu")
    assert_same_parameters(model, loaded)
    ours, theirs = model.policy.optimizer.state_dict()["state"], loaded.policy.optimizer.state_dict()["state"]
    assert len(ours) == len(theirs) > 0
    for key, value in ours.items():
        assert th.equal(value["exp_avg"], theirs[key]["exp_avg"])
    for name in ("sequence_length", "burn_in", "exploration_rate", "_n_updates", "_n_calls", "num_timesteps", "gamma", "tau"):
        assert getattr(loaded, name) == getattr(model, name), name
    assert model._n_updates > 10
    observations: Any = make_env(seed=5).reset()
    ours_acted, theirs_acted = (each.predict(observations, deterministic=True) for each in (model, loaded))
    np.testing.assert_array_equal(ours_acted[0], theirs_acted[0])
    for part, other in zip(ours_acted[1] or (), theirs_acted[1] or (), strict=True):
        np.testing.assert_array_equal(part, other)
    data, *_ = load_from_zip_file(tmp_path / "model", device="cpu")
    assert data is not None
    assert not {"replay_buffer", "env", "_acting", "_parameters", "_target_parameters"} & set(data)


def test_two_resumes_are_the_same_run_and_go_somewhere_new(tmp_path: Path) -> None:
    """A result of a run that was interrupted can be repeated to the last bit; and it is not the run's beginning again."""
    model = saved_run(tmp_path)
    first, first_seen = resume(tmp_path)
    th.rand(7)
    second, second_seen = resume(tmp_path)
    assert first_seen == second_seen
    assert_same_parameters(first, second)
    assert first.num_timesteps >= 1200 and first._n_updates > model._n_updates
    beginning: list[float] = []

    class Watch(BaseCallback):
        def _on_step(self) -> bool:
            beginning.extend(self.locals["new_obs"].ravel().tolist())
            return True

    make_model().learn(300, callback=Watch())
    assert not set(beginning) & set(first_seen[:300])


def test_the_same_seed_gives_the_same_model() -> None:
    """To the last bit, whatever global generators did before; and another seed gives another."""
    first = make_model(make_env(seed=3), seed=3).learn(600)
    th.rand(3)
    second = make_model(make_env(seed=3), seed=3).learn(600)
    third = make_model(make_env(seed=4), seed=4).learn(600)
    assert_same_parameters(first, second)
    assert not th.equal(*(m.policy.q_net.head.streams.bias for m in (first, third)))


def test_the_policy_alone_can_be_saved(tmp_path: Path) -> None:
    """What is deployed is often the policy without the algorithm."""
    model = make_model().learn(300)
    model.policy.save(str(tmp_path / "policy.pt"))
    policy = type(model.policy).load(str(tmp_path / "policy.pt"), device="cpu")
    observations: Any = make_env(seed=5).reset()
    ours, theirs = (each.predict_q_values(observations) for each in (model.policy, policy))
    np.testing.assert_array_equal(ours[0], theirs[0])


class StopAfter(BaseCallback):
    """Returns False after so many calls."""

    def __init__(self, n_calls: int):
        super().__init__()
        self.left = n_calls

    def _on_step(self) -> bool:
        self.left -= 1
        return self.left > 0


def test_a_stop_by_a_callback_stores_no_wrong_transition() -> None:
    """SB3 skips the last transition and keeps the observation before it: an episode resumed from there would have a step that
    never happened."""
    model = make_model(counting(2, max_length=12))
    for n_calls in (5, 17, 33, 41):
        model.learn(10_000, callback=StopAfter(n_calls), reset_num_timesteps=False)
    model.learn(400, reset_num_timesteps=False)
    assert model.replay_buffer is not None
    assert len(windows(model.replay_buffer.sample(500, sequence_length=12, burn_in=4))) > 30


def test_files_of_others_are_refused(tmp_path: Path) -> None:
    """A model of DREAM, and a replay buffer of other spaces or another number of environments: each error says what is wrong,
    and the model stays as it was."""
    DREAM("MlpPolicy", "MetaMap-v0", device="cpu").save(tmp_path / "dream")
    with pytest.raises(ValueError, match=r"holds a model of DREAM: load it with DREAM\.load, not RecurrentDQN\.load"):
        RecurrentDQN.load(tmp_path / "dream")
    make_model().save_replay_buffer(tmp_path / "replay")
    for env, name in ((counting(3), "observation_space"), (make_env(n_envs=2), "n_envs")):
        model = make_model(env)
        untouched = model.replay_buffer
        assert isinstance(untouched, EpisodeReplayBuffer)
        with pytest.raises(ValueError, match=f"does not fit the model: its {name} is"):
            model.load_replay_buffer(tmp_path / "replay")
        assert model.replay_buffer is untouched


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_nan_is_stopped_at_the_door(value: float) -> None:
    """In an observation, in a reward, and in the observation that a cut episode is bootstrapped from."""
    for where in ("observation", "reward", "last"):
        env: Any = counting(3, max_length=12, min_length=12)
        model, spoiled = make_model(env), env.envs[2].unwrapped
        step = spoiled.step

        def bad(action: int, where: str = where, spoiled: Any = spoiled, step: Any = step) -> Any:
            observation, reward, terminated, truncated, info = step(action)
            if spoiled.n_steps == 5 and where != "last":
                observation, reward = (observation + value, reward) if where == "observation" else (observation, value)
            elif truncated and where == "last":
                observation = observation + value
            return observation, reward, terminated, truncated, info

        spoiled.step = bad
        name = "reward" if where == "reward" else "observation 'observation'"
        with pytest.raises(ValueError, match=f"Environment 2 gave {name} = .* at its step"):
            model.learn(600)
