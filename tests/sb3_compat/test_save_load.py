"""Saving and loading, as SB3's own algorithms do it. (tests/test_saving.py goes deeper into what DREAM remembers.)"""

import io
import pathlib
import warnings
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from tests.sb3_compat.common import Algorithm, actions_on, assert_same, images, parameters, random_trials, shake, trials
from tests.test_bad_input import Family


def test_random_parameters_survive(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_save_load: weights that no seed would give again come back, act the same, and go on learning."""
    env = algorithm.make_env(n_envs=2)
    model = algorithm.make(env).learn(200)
    random = {name: th.randn_like(value) if value.is_floating_point() else value for name, value in parameters(model).items()}
    model.set_parameters({"policy": random}, exact_match=False)  # type: ignore[dict-item]
    assert_same(random, parameters(model))
    expected = actions_on(model, algorithm.make_env(n_envs=2, seed=5))
    assert len(np.unique(expected)) > 1

    model.save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=env)
    assert_same(random, parameters(loaded))
    np.testing.assert_array_equal(actions_on(loaded, algorithm.make_env(n_envs=2, seed=5)), expected)
    loaded.learn(100, reset_num_timesteps=False)


def test_parameters_that_do_not_fit(algorithm: Algorithm) -> None:
    """SB3's test_save_load, its errors: weights of a wrong name or half of them must not be loaded without a word."""
    model = algorithm.make()
    wanted = model.get_parameters()
    assert {"policy", "policy.optimizer"} <= set(wanted)
    with pytest.raises(ValueError, match="Key magic is an invalid object name"):
        model.set_parameters({**wanted, "magic": {}})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="do not match agents' parameters"):
        model.set_parameters({"policy": wanted["policy"]})  # type: ignore[dict-item]
    missing = {key: value for index, (key, value) in enumerate(wanted["policy"].items()) if index > 0}
    with pytest.raises(RuntimeError, match="Missing key"):
        model.set_parameters({**wanted, "policy": missing})  # type: ignore[dict-item]
    model.set_parameters({"policy": missing}, exact_match=False)  # type: ignore[dict-item]


def test_set_env(algorithm: Algorithm) -> None:
    """SB3's test_set_env: a VecEnv, another one, and a plain environment that is wrapped on the way."""
    model = algorithm.make(algorithm.make_env()).learn(64)
    other = algorithm.make_env(seed=1)
    model.set_env(other, force_reset=False)
    assert model.get_env() is other
    model.learn(64, reset_num_timesteps=False)

    plain = algorithm.make_env(seed=2).envs[0].unwrapped  # type: ignore[attr-defined]
    model.set_env(plain)
    wrapped = model.get_env()
    assert isinstance(wrapped, DummyVecEnv)
    assert isinstance(wrapped.envs[0], Monitor)
    assert wrapped.envs[0].env is plain
    model.learn(64, reset_num_timesteps=False)
    assert model.num_timesteps == 3 * 64


def test_exclude_and_include(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_exclude_include_saved_params: what is left out gets its default when it is loaded; include wins."""
    model = algorithm.make(verbose=2)
    model.save(tmp_path / "model", exclude=["verbose"])
    assert algorithm.load(tmp_path / "model").verbose == 0
    model.save(tmp_path / "model", exclude=["verbose"], include=["verbose"])
    assert algorithm.load(tmp_path / "model").verbose == 2


@pytest.mark.parametrize("where", ["name", "path", "memory", "open file"])
def test_open_files(algorithm: Algorithm, tmp_path: pathlib.Path, where: str) -> None:
    """SB3's test_open_file and test_open_file_str_pathlib: model and replay buffer go to and come from a name, a Path (the
    suffix and missing folders are added), and anything open for writing."""

    def target(path: pathlib.Path) -> Any:
        if where == "open file":
            path.parent.mkdir(parents=True)
            return path.open("wb+")
        return {"name": str(path), "path": path, "memory": io.BytesIO()}[where]

    model = algorithm.make(algorithm.make_env(n_envs=2)).learn(100)
    model_file, buffer_file = target(tmp_path / "a" / "b" / "model"), target(tmp_path / "c" / "d" / "buffer")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Path .* does not exist. Will create it")
        model.save(model_file)
        model.save_replay_buffer(buffer_file)
    if where in ("name", "path"):
        assert (tmp_path / "a" / "b" / "model.zip").is_file()
        assert (tmp_path / "c" / "d" / "buffer.pkl").is_file()
    else:
        assert not model_file.closed and not buffer_file.closed, "a file that the user has opened is the user's to close"
        model_file.seek(0), buffer_file.seek(0)

    loaded = algorithm.load(model_file, env=algorithm.make_env(n_envs=2))
    loaded.load_replay_buffer(buffer_file)
    if where == "open file":
        model_file.close(), buffer_file.close()
    assert_same(parameters(model), parameters(loaded))
    ours: Any = model.replay_buffer
    theirs: Any = loaded.replay_buffer
    assert ours.size() == theirs.size() > 10
    for key, rows in ours.observations.items():
        np.testing.assert_array_equal(rows, theirs.observations[key])
    np.testing.assert_array_equal(ours.actions, theirs.actions)
    np.testing.assert_array_equal(ours.rewards, theirs.rewards)
    loaded.learn(32, reset_num_timesteps=False)


def test_files_that_cannot_be_used(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_open_file, its errors: a closed file, one that is open the wrong way round, one that is not there."""
    model = algorithm.make()
    path = tmp_path / "model.zip"
    model.save(path)
    closed = io.BytesIO()
    closed.close()
    with pytest.raises(ValueError, match="closed"):
        model.save(closed)
    with path.open("rb") as readable, pytest.raises(ValueError, match="writable"):
        model.save(readable)
    algorithm.load(path)  # nothing was overwritten
    with path.open("ab") as writable, pytest.raises(ValueError, match="readable"):
        algorithm.load(writable)
    with pytest.raises(FileNotFoundError):
        algorithm.load(tmp_path / "nowhere")


def test_no_file_is_left_open(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_no_resource_warning: a run with a thousand checkpoints would run out of files."""
    model = algorithm.make().learn(30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        model.save(tmp_path / "model")
        loaded = algorithm.load(tmp_path / "model", env=algorithm.make_env())
        model.save_replay_buffer(tmp_path / "buffer")
        loaded.load_replay_buffer(tmp_path / "buffer")


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"])
@pytest.mark.parametrize("share", [False, True])
def test_the_policy_alone(algorithm: Algorithm, tmp_path: pathlib.Path, policy: str, share: bool) -> None:
    """SB3's test_save_load_policy and test_save_load_q_net: networks and targets come back without the algorithm, whatever
    they were made with, and act the same. (The networks of these algorithms share one optimizer and one memory while they
    act, so there is no saving one network of several: the policy is what is saved.)"""
    kwargs = {"net_arch": [8, 4], "n_lstm_layers": 2, "share_features_extractor": share, "activation_fn": th.nn.Tanh}
    if policy == "CnnPolicy":
        kwargs["features_extractor_kwargs"] = {"features_dim": 4}
    space = images(1, 36, 36) if policy == "CnnPolicy" else spaces.MultiDiscrete([3, 4])
    model = shake(algorithm.make(random_trials(space), policy, policy_kwargs=kwargs))
    model.policy.save(str(tmp_path / "policy.pt"))
    loaded = type(model.policy).load(str(tmp_path / "policy.pt"), device="cpu")
    assert_same(parameters(model), dict(loaded.state_dict()))
    assert len(list(loaded.parameters())) == len(list(model.policy.parameters()))
    env = [random_trials(space, n_envs=2, seed=5) for _ in range(2)]
    np.testing.assert_array_equal(actions_on(model.policy, env[0]), actions_on(loaded, env[1]))


def test_schedules_of_numpy_numbers(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_cast_lr_schedule: a schedule that returns numpy's numbers would put them into the optimizer's state, and
    the file could not be loaded with weights only."""
    model = algorithm.make(learning_rate=lambda progress: progress * np.sin(1.0)).learn(60)
    assert type(model.lr_schedule(0.5)) is float
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(
        np.sin(1.0) * model._current_progress_remaining, abs=0.2 * np.sin(1.0)
    )
    assert {type(group["lr"]) for group in model.policy.optimizer.param_groups} == {float}
    model.save(tmp_path / "model")
    assert algorithm.load(tmp_path / "model").lr_schedule(0.25) == pytest.approx(0.25 * np.sin(1.0))


def test_net_arch_none(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_save_load_net_arch_none: None means the default architecture, when it is loaded too."""
    model = algorithm.make(policy_kwargs={"net_arch": None})
    model.save(tmp_path / "model")
    assert_same(parameters(model), parameters(algorithm.load(tmp_path / "model", env=algorithm.make_env())))


def test_target_update_interval(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_dqn_target_update_interval: what was saved is the argument, not what was made of it for three
    environments, or it would shrink with every load."""
    env = algorithm.make_env(n_envs=3)
    model = algorithm.make(env, target_update_interval=100)
    for _ in range(2):
        model.save(tmp_path / "model")
        model = algorithm.load(tmp_path / "model", env=env)
        model.learn(30)
        assert model.target_update_interval == 100  # type: ignore[attr-defined]


def test_custom_objects(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's load(custom_objects=...): arguments can be replaced when they are loaded, e.g. to go on with a lower rate."""
    algorithm.make(learning_rate=1e-2).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model", env=algorithm.make_env(), custom_objects={"learning_rate": 1e-4})
    assert loaded.lr_schedule(1.0) == 1e-4
    loaded.learn(60)
    assert {group["lr"] for group in loaded.policy.optimizer.param_groups} == {1e-4}


def test_arguments_that_are_replaced_when_loading(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's load(**kwargs): the same by keyword; but other policy_kwargs would be other networks, and are refused."""
    algorithm.make().save(tmp_path / "model")
    assert algorithm.load(tmp_path / "model", gamma=0.5).gamma == 0.5
    with pytest.raises(ValueError, match="policy kwargs do not equal"):
        algorithm.load(tmp_path / "model", policy_kwargs={"net_arch": [3]})


def test_loading_with_an_environment_of_other_spaces(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """SB3's test_save_load checks spaces: a model must not be put to work where it cannot see."""
    algorithm.make().save(tmp_path / "model")
    with pytest.raises(ValueError, match="spaces do not match"):
        algorithm.load(tmp_path / "model", env=trials(Family()))


@pytest.mark.skipif(not th.cuda.is_available(), reason="no GPU here")
def test_from_one_device_to_another(algorithm: Algorithm, tmp_path: pathlib.Path) -> None:
    """Trained on a GPU, looked at on a laptop, and back: networks, optimizer and what is remembered while acting."""
    model = algorithm.make(device="cuda").learn(100)
    for device in ("cpu", "cuda"):
        model.save(tmp_path / "model")
        model.save_replay_buffer(tmp_path / "buffer")
        model = algorithm.load(tmp_path / "model", env=algorithm.make_env(), device=device)
        model.load_replay_buffer(tmp_path / "buffer")
        model.learn(60, reset_num_timesteps=False)
        assert {parameter.device.type for parameter in model.policy.parameters()} == {device}
