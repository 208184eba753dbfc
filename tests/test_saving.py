"""What is saved comes back, learning goes on after a stop, and seeded runs repeat."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.save_util import load_from_zip_file
from stable_baselines3.common.vec_env import VecEnv

from sb3_dream import DREAM, TrialReplayBuffer


def make_env(seed: int = 0, n_envs: int = 3, **kwargs: Any) -> VecEnv:
    """Trials on the map, which take 3 to 41 steps."""
    return make_vec_env("MetaMap-v0", n_envs=n_envs, seed=seed, env_kwargs=kwargs)


def make_model(env: VecEnv | None = None, **kwargs: Any) -> DREAM:
    """A model that learns a little."""
    arguments: dict[str, Any] = {
        "learning_starts": 200,
        "train_freq": 10,
        "batch_size": 8,
        "buffer_size": 6000,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [16], "lstm_hidden_size": 8, "embedding_dim": 4},
    }
    return DREAM("MlpPolicy", env or make_env(), **{**arguments, **kwargs})


@pytest.fixture(scope="module")
def trained() -> DREAM:
    """Has learned; do not change it."""
    return make_model().learn(600)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where to save."""
    return tmp_path / "model.zip"


def parameters(model: DREAM) -> dict[str, th.Tensor]:
    """Networks and targets."""
    return dict(model.policy.state_dict())


def assert_same_parameters(first: DREAM, second: DREAM) -> None:
    """To the last bit."""
    assert parameters(first).keys() == parameters(second).keys()
    for name, value in parameters(first).items():
        assert th.equal(value, parameters(second)[name]), name


def q_values(model: DREAM) -> Iterator[np.ndarray]:
    """What the model thinks at each step of a few trials."""
    env, rng = make_env(seed=5), np.random.default_rng(0)
    observation: Any = env.reset()
    state: Any = None
    for _ in range(60):
        values, state, _ = model.policy.predict_q_values(observation, state)
        yield values
        observation, *_ = env.step(rng.integers(7, size=3))


def test_a_loaded_model_acts_the_same(trained: DREAM, path: Path) -> None:
    """Without an environment too: that is how models are passed on. Every network, target and optimizer comes back."""
    trained.save(path)
    for loaded in (DREAM.load(path, device="cpu"), DREAM.load(path, env=make_env(), device="cpu")):
        assert_same_parameters(trained, loaded)
        for ours, theirs in zip(q_values(trained), q_values(loaded), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        ours_state, theirs_state = trained.policy.optimizer.state_dict(), loaded.policy.optimizer.state_dict()
        assert len(ours_state["state"]) == len(theirs_state["state"]) > 0
        for key, value in ours_state["state"].items():
            assert th.equal(value["exp_avg"], theirs_state["state"][key]["exp_avg"])
        assert [g["weight_decay"] for g in ours_state["param_groups"]] == [
            g["weight_decay"] for g in theirs_state["param_groups"]
        ]
        assert loaded.num_timesteps == trained.num_timesteps
        assert loaded.explorer_rate == trained.explorer_rate
        assert loaded.exploration_rate == trained.exploration_rate
    data, *_ = load_from_zip_file(path, device="cpu")
    assert data is not None
    unwanted = {"replay_buffer", "env", "_acting", "_acting_z", "_problem_ids", "_parameters", "_target_parameters"}
    assert not unwanted & set(data), "hidden states and second copies of the weights have no place in the file"


def test_load_takes_the_users_own_arguments(path: Path) -> None:
    """As SB3's: policy_kwargs must be those that the model was made with, and arguments of the buffer can be others. What the
    model has learned of the environment is not the user's to repeat."""
    policy_kwargs = {"net_arch": [16], "lstm_hidden_size": 8, "embedding_dim": 4}
    make_model(policy_kwargs=dict(policy_kwargs)).save(path)
    loaded = DREAM.load(path, device="cpu", policy_kwargs=dict(policy_kwargs), replay_buffer_kwargs={"random_shift": 0})
    assert loaded.policy_kwargs == policy_kwargs
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.problem_space == loaded.policy.problem_space
    with pytest.raises(ValueError, match="n_execution_episodes of the environment is 1, but must be 3"):
        make_model(replay_buffer_kwargs={"n_execution_episodes": 3})
    with pytest.raises(ValueError, match="policy kwargs do not equal the stored"):
        DREAM.load(path, device="cpu", policy_kwargs={"net_arch": [32]})
    with pytest.raises(ValueError, match="n_execution_episodes of the environment is 2, but must be 1"):
        DREAM.load(path, env=make_env(n_execution_episodes=2), device="cpu")


def test_figures_of_the_phases_are_of_the_same_trials_as_those_of_sb3(path: Path) -> None:
    """Both windows come back from a file, and begin anew with a new run: else two figures of one log would be of other
    trials."""
    model = make_model().learn(300)
    n_trials = len(model.ep_info_buffer)  # type: ignore[arg-type]
    model.save(path)
    loaded = DREAM.load(path, env=make_env(), device="cpu")
    assert len(model._trial_figures) == len(loaded._trial_figures) == n_trials > 3  # type: ignore[arg-type]
    loaded.learn(30, reset_num_timesteps=False)
    assert len(loaded._trial_figures) == len(loaded.ep_info_buffer) >= n_trials  # type: ignore[arg-type]
    loaded.learn(30)
    assert len(loaded._trial_figures) == len(loaded.ep_info_buffer) < n_trials  # type: ignore[arg-type]


def test_a_loaded_model_evaluates_on_another_number_of_environments(trained: DREAM, path: Path) -> None:
    """Trained on 3, used on 1."""
    trained.save(path)
    loaded = DREAM.load(path, device="cpu")
    observation: Any = make_env(n_envs=1).reset()
    assert loaded.predict(observation, deterministic=True)[0].shape == (1,)


def test_a_model_saved_before_learning_can_be_loaded(path: Path) -> None:
    """What exists only after learn() must not be needed."""
    model = make_model()
    model.save(path)
    loaded = DREAM.load(path, env=make_env(), device="cpu")
    assert_same_parameters(model, loaded)
    loaded.learn(300)


def test_learning_goes_on_after_loading(trained: DREAM, path: Path) -> None:
    """The networks that are updated, and the targets that follow, must be the loaded ones, not leftovers of the setup."""
    trained.save(path)
    loaded = DREAM.load(path, env=make_env(), device="cpu")
    loaded.learn(600, reset_num_timesteps=False)
    assert loaded.num_timesteps >= 1200
    assert loaded._n_updates > trained._n_updates
    for name, value in parameters(loaded).items():
        if value.numel() > 1:
            assert not th.equal(value, parameters(trained)[name]), name


def test_learning_can_be_called_twice() -> None:
    """Warm-up does not come again, ε goes on, and the buffer is kept."""
    model = make_model().learn(600)
    assert model.replay_buffer is not None
    n_rows, n_trials = model.replay_buffer.n_rows, model.replay_buffer.n_episodes
    model.learn(600, reset_num_timesteps=False)
    assert model.replay_buffer.n_rows == 2 * n_rows
    assert model.replay_buffer.n_episodes > n_trials


def test_save_and_load_replay_buffer(trained: DREAM, tmp_path: Path) -> None:
    """A run that is resumed needs its experience. The same trials come out, and new ones go in behind."""
    trained.save_replay_buffer(tmp_path / "replay.pkl")
    model = make_model()
    model.load_replay_buffer(tmp_path / "replay.pkl")
    ours, theirs = trained.replay_buffer, model.replay_buffer
    assert ours is not None
    assert isinstance(theirs, TrialReplayBuffer)
    assert theirs.n_episodes == ours.n_episodes > 10
    first, second = (buffer.sample(16, rng=np.random.default_rng(0)) for buffer in (ours, theirs))
    assert th.equal(first.execution.rewards, second.execution.rewards)
    assert th.equal(first.exploration.observations["observation"], second.exploration.observations["observation"])
    n_trials = theirs.n_episodes
    model.learn(300)
    assert theirs.n_episodes > n_trials
    assert_consistent(theirs)


def test_a_replay_buffer_in_memory(trained: DREAM) -> None:
    """SB3 takes open files as well as paths."""
    file = io.BytesIO()
    trained.save_replay_buffer(file)
    file.seek(0)
    model = make_model()
    model.load_replay_buffer(file)
    assert model.replay_buffer is not None
    assert trained.replay_buffer is not None
    assert model.replay_buffer.n_episodes == trained.replay_buffer.n_episodes


def assert_consistent(buffer: TrialReplayBuffer) -> None:
    """Every transition stored is one that the map allows: the flags fit together, the action that was taken is the previous
    action of the next row, and one step goes no further than one cell unless a bus was ridden."""
    batches = []
    table = buffer._table[buffer._whole()]
    assert len(table) > 5
    for trial in table:
        rows = (int(trial["start"]) + np.arange(int(trial["ends"][-1]))) % buffer.buffer_size
        env = int(trial["env"])
        observations = {key: value[rows, env] for key, value in buffer.observations.items()}
        actions = buffer.actions[rows, env, 0]
        start, end = observations["episode_start"][:, 0], observations["episode_end"][:, 0]
        assert start[0] == 1
        assert observations["exploring"][0, 0] == 1
        assert np.array_equal(np.flatnonzero(start)[1:], np.flatnonzero(end) + 1), "an episode starts where one has ended"
        within = np.flatnonzero(start[1:] == 0)
        assert np.array_equal(observations["previous_action"][within + 1].argmax(axis=1), actions[within])
        cells = observations["observation"][:, :2].astype(int)
        distance = np.abs(np.diff(cells, axis=0)).sum(axis=1)[within]
        assert (distance[actions[within] != 5] <= 1).all()
        assert (cells[start == 1] == 4).all()
        batches.append(len(rows))
    assert len(set(batches)) > 1


class StopAfter(BaseCallback):
    """Returns False after so many calls."""

    def __init__(self, n_calls: int):
        super().__init__()
        self.left = n_calls

    def _on_step(self) -> bool:
        self.left -= 1
        return self.left > 0


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_a_stop_by_a_callback_stores_no_wrong_transition(reset_num_timesteps: bool) -> None:
    """SB3 skips the last transition and keeps the observation before it: a trial resumed from there would have a step that
    never happened (observation 9 followed by observation 11), and hidden states of another moment."""
    model = make_model()
    for n_calls in (5, 17, 33, 41):
        model.learn(10_000, callback=StopAfter(n_calls), reset_num_timesteps=reset_num_timesteps)
    model.learn(600, reset_num_timesteps=reset_num_timesteps)
    assert model.replay_buffer is not None
    assert_consistent(model.replay_buffer)


def test_a_keyboard_interrupt_leaves_a_model_that_goes_on(path: Path) -> None:
    """Ctrl-C in a notebook, then save and learn on."""

    class Interrupt(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls == 123:
                raise KeyboardInterrupt
            return True

    model = make_model()
    with pytest.raises(KeyboardInterrupt):
        model.learn(10_000, callback=Interrupt())
    model.save(path)
    assert_same_parameters(model, DREAM.load(path, device="cpu"))
    model.learn(600, reset_num_timesteps=False)
    assert model.replay_buffer is not None
    assert_consistent(model.replay_buffer)


def test_the_same_seed_gives_the_same_model() -> None:
    """To the last bit, whatever global generators did before; and another seed gives another."""
    first = make_model(make_env(seed=3), seed=3).learn(600)
    np.random.default_rng().random(), th.rand(3)
    second = make_model(make_env(seed=3), seed=3).learn(600)
    third = make_model(make_env(seed=4), seed=4).learn(600)
    assert first._n_updates > 10
    assert_same_parameters(first, second)
    assert not th.equal(parameters(first)["explorer.head.streams.bias"], parameters(third)["explorer.head.streams.bias"])


def test_a_seed_given_to_load(trained: DREAM, path: Path) -> None:
    """It branches a run: each seed goes on in its own way, and the same one in the same. (Without one, the saved generators go
    on.)"""
    trained.save(path)
    first, second, third = (DREAM.load(path, make_env(), device="cpu", seed=seed).learn(600) for seed in (1, 1, 2))
    assert_same_parameters(first, second)
    assert not th.equal(parameters(first)["explorer.head.streams.bias"], parameters(third)["explorer.head.streams.bias"])


def test_evaluating_on_the_way_does_not_change_what_is_learned() -> None:
    """An EvalCallback must be an observer: evaluation, greedy or not, draws no numbers from the generator that learning
    draws from, and leaves the acting state alone."""

    class Evaluate(BaseCallback):
        def _on_step(self) -> bool:
            if self.n_calls % 50 == 0:
                for _ in q_values(self.model):  # type: ignore[arg-type]
                    pass
                for deterministic in (True, False):
                    self.model.predict(make_env(seed=9).reset(), deterministic=deterministic)  # type: ignore[arg-type]
            return True

    assert_same_parameters(make_model().learn(600), make_model().learn(600, callback=Evaluate()))


def test_set_env(trained: DREAM, path: Path) -> None:
    """Another environment of the same kind takes over, from its first observation on."""
    trained.save(path)
    model = DREAM.load(path, device="cpu")
    with pytest.raises((ValueError, AssertionError, AttributeError)):
        model.learn(100)  # there is nothing to learn on
    env = make_env(seed=77)
    model.set_env(env)
    model.learn(600)
    assert model.env is not None
    assert model.replay_buffer is not None
    assert_consistent(model.replay_buffer)


def test_set_env_between_two_calls_of_learn() -> None:
    """The trial under way in the old environment must not go on in the new one."""
    model = make_model().learn(600)
    model.set_env(make_env(seed=77))
    model.learn(600, reset_num_timesteps=False)
    assert model.replay_buffer is not None
    assert_consistent(model.replay_buffer)


def test_set_env_needs_as_many_environments(trained: DREAM, path: Path) -> None:
    """The buffer has a column for each: SB3's own error, before anything is overwritten."""
    trained.save(path)
    with pytest.raises((ValueError, AssertionError), match="number of environments"):
        DREAM.load(path, device="cpu").set_env(make_env(n_envs=2))


@pytest.mark.parametrize("device", ["auto", "cpu", th.device("cpu")])
def test_load_on_a_device(trained: DREAM, path: Path, device: Any) -> None:
    """A model trained on a GPU machine is looked at on a laptop: everything, the acting state too, goes to the device."""
    trained.save(path)
    loaded = DREAM.load(path, env=make_env(), device=device)
    assert {parameter.device.type for parameter in loaded.policy.parameters()} == {loaded.device.type}
    loaded.learn(300)
    assert loaded.replay_buffer is not None
    assert loaded.replay_buffer.sample(2).problem_ids.device.type == loaded.device.type


def test_schedules_and_arguments_come_back(path: Path) -> None:
    """Resuming with the defaults instead of what was chosen would go unnoticed."""
    chosen: dict[str, Any] = {
        "exploration_initial_eps": 0.9,
        "exploration_final_eps": 0.2,
        "exploration_fraction": 0.7,
        "explorer_final_eps": 0.4,
        "explorer_fraction": 0.8,
        "problem_std": 0.3,
        "bottleneck_weight": 2.0,
        "bottleneck_size": 5.0,
        "exploration_cost": 0.02,
        "problem_id_probability": 0.25,
        "max_grad_norm": 3.0,
        "tau": 0.5,
        "gamma": 0.9,
        "target_update_interval": 40,
    }
    model = make_model(learning_rate=lambda progress: 1e-3 * progress, **chosen)
    model.save(path)
    loaded = DREAM.load(path, device="cpu")
    for name, value in chosen.items():
        assert getattr(loaded, name) == value, name
    assert loaded.lr_schedule(0.5) == pytest.approx(5e-4)
    assert loaded.exploration_schedule(1 - 0.35) == pytest.approx(0.9 - 0.7 / 2)
    assert loaded.explorer_schedule(1 - 0.4) == pytest.approx(0.9 - 0.5 / 2)
    assert loaded.policy.embedding_dim == 4


def test_get_and_set_parameters(trained: DREAM) -> None:
    """SB3's way to copy weights: networks, targets and optimizer."""
    model = make_model(seed=9)
    model.set_parameters(trained.get_parameters())  # type: ignore[arg-type]
    assert_same_parameters(model, trained)


def test_the_policy_alone_can_be_saved(trained: DREAM, tmp_path: Path) -> None:
    """What is deployed is often the policy without the algorithm."""
    trained.policy.save(str(tmp_path / "policy.pt"))
    policy = type(trained.policy).load(str(tmp_path / "policy.pt"), device="cpu")
    observation: Any = make_env(seed=5).reset()
    ours, theirs = (p.predict(observation) for p in (trained.policy, policy))
    np.testing.assert_array_equal(ours[0], theirs[0])
    for one, other in zip(ours[1] or (), theirs[1] or (), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_loaded_replay_buffer_samples_as_the_model_says(tmp_path: Path) -> None:
    """An argument of ``load`` would be undone without a word."""
    env = make_env(n_execution_episodes=2)
    model = make_model(env).learn(400)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    loaded = DREAM.load(tmp_path / "model", env=env, replay_buffer_kwargs={"n_sampled_executions": 2})
    loaded.load_replay_buffer(tmp_path / "replay")
    assert len(loaded._sample(3).execution.lengths) == 6
