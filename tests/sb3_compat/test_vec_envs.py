"""SB3's vectorized environments and their wrappers, in all numbers. (SubprocVecEnv is in test_dict_env.py.)"""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    VecCheckNan,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
    VecVideoRecorder,
)

from tests.sb3_compat.common import Algorithm, Noise, actions_on, assert_same, parameters, random_trials, shake, trials


def noise() -> Any:
    """Monitored trials of different lengths."""
    return trials(Noise())


def unmonitored() -> Any:
    """The same without a Monitor."""
    return noise().env


@pytest.mark.parametrize("n_envs", [1, 3, 16, 64])
def test_numbers_of_environments(algorithm: Algorithm, n_envs: int) -> None:
    """Trials of different lengths side by side: every one that has ended is counted, stored and learned from, in the column
    of its own environment, and none is mixed with its neighbours'."""
    env = DummyVecEnv([noise] * n_envs)
    model: Any = algorithm.make(env, stats_window_size=10_000)
    model.learn(max(160, 16 * n_envs))
    assert model._n_updates > 0
    ended = model.ep_info_buffer
    assert len(ended) == model._episode_num >= n_envs
    assert len({info["l"] for info in ended}) > 3
    buffer = model.replay_buffer
    assert sum(info["l"] for info in ended) <= model.num_timesteps == buffer.n_envs * buffer.n_rows
    assert buffer.n_episodes == model._episode_num
    # what was stored is one trial after the other, in each environment: its first step follows the end of the one before
    observations = {key: rows[: buffer.n_rows] for key, rows in buffer.observations.items()}
    starts = (observations["episode_start"] * observations["exploring"])[:, :, 0]
    assert starts[0].all()
    assert starts.sum() - n_envs <= model._episode_num <= starts.sum()
    within = starts[1:] == 0
    actions = np.eye(3)[buffer.actions[: buffer.n_rows - 1, :, 0]]
    between = observations["episode_end"][:-1, :, 0] == 1  # the action that answers the last observation is ignored
    np.testing.assert_array_equal(observations["previous_action"][1:][within & ~between], actions[within & ~between])


@pytest.mark.parametrize(("n_trained", "n_used"), [(16, 1), (1, 16)])
def test_trained_on_some_and_used_on_others(algorithm: Algorithm, tmp_path: Path, n_trained: int, n_used: int) -> None:
    """A model trained on 16 evaluates on 1, and the reverse: the memory is made for as many as are observed, and what an
    environment is answered does not depend on how many stand beside it."""
    model = algorithm.make(DummyVecEnv([noise] * n_trained)).learn(200)
    shake(model).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    used, one = DummyVecEnv([noise] * n_used), DummyVecEnv([noise])
    used.seed(3)
    one.seed(3)
    np.testing.assert_array_equal(actions_on(loaded, used, 1)[:, 0], actions_on(model, one, 1)[:, 0])
    returns, _ = evaluate_policy(loaded, used, n_eval_episodes=20, return_episode_rewards=True)
    assert len(returns) == 20  # type: ignore[arg-type]


def test_vec_monitor(algorithm: Algorithm, tmp_path: Path) -> None:
    """VecMonitor records trials as Monitor does, in its file too."""
    env = VecMonitor(DummyVecEnv([unmonitored] * 3), str(tmp_path / "monitor"))
    model = algorithm.make(env, stats_window_size=10_000).learn(150)
    env.close()
    lines = (tmp_path / "monitor.monitor.csv").read_text().splitlines()[2:]
    assert model.ep_info_buffer is not None
    assert len(lines) == len(model.ep_info_buffer) == model._episode_num > 5
    plain = algorithm.make(DummyVecEnv([noise] * 3), stats_window_size=10_000).learn(150)
    assert plain.ep_info_buffer is not None
    for one, other in zip(model.ep_info_buffer, plain.ep_info_buffer, strict=True):
        assert one["l"] == other["l"]
        assert one["r"] == pytest.approx(other["r"], abs=1e-4)


@pytest.mark.parametrize("keys", [None, ["observation"], ["observation", "previous_reward"]])
@pytest.mark.parametrize("norm_reward", [True, False])
def test_vec_normalize(algorithm: Algorithm, keys: list[str] | None, norm_reward: bool) -> None:
    """SB3's test_dict_env::test_vec_normalize: with all keys or the user's choice normalised, flags included, phases are
    still told apart, and learning sees what acting sees."""
    env = VecNormalize(DummyVecEnv([noise] * 3), norm_obs_keys=keys, norm_reward=norm_reward)
    model: Any = algorithm.make(env).learn(200)
    assert model._n_updates > 5
    assert all(value.isfinite().all() for value in parameters(model).values())
    assert len(evaluate_policy(model, env, n_eval_episodes=5, return_episode_rewards=True)[0]) == 5  # type: ignore[arg-type]
    first, *_ = algorithm.sample(model, 64, env=env, rng=np.random.default_rng(0))
    rows = {key: value[: model.replay_buffer.n_rows] for key, value in model.replay_buffer.observations.items()}
    for key in keys or ["observation"]:
        raw = env.normalize_obs(rows)[key]
        assert np.abs(rows[key] - raw).max() > 1e-3, "the buffer keeps what the environment has said"
        sampled = first.observations[key].flatten(0, 1).numpy()
        distance = np.abs(sampled[:, None] - raw.reshape(1, -1, raw.shape[-1])).max(axis=-1).min(axis=1)
        assert distance.max() < 1e-5, f"a sample of {key} was never observed"


def test_vec_frame_stack(algorithm: Algorithm) -> None:
    """SB3's test_dict_vec_framestack: flags are stacked like all else, and the newest says what is the case. A stack of one
    frame changes nothing; and with three, what is stored has the whole trial."""
    plain = algorithm.make(DummyVecEnv([noise] * 2)).learn(200)
    one = algorithm.make(VecFrameStack(DummyVecEnv([noise] * 2), n_stack=1)).learn(200)
    assert_same(parameters(plain), parameters(one))

    env = VecFrameStack(DummyVecEnv([noise] * 2), n_stack=3)
    model: Any = algorithm.make(env).learn(200)
    assert model.replay_buffer.n_episodes == model._episode_num > 5
    assert model._n_updates > 5
    newest = slice(-3, None)  # of the stacked one-hot actions
    for episodes in algorithm.sample(model, 16, rng=np.random.default_rng(0)):
        for b, length in enumerate(episodes.lengths.tolist()):
            first = episodes.observations["previous_action"][0, b]
            assert (first[newest] == 0).all(), "an inner episode starts where nothing was done yet"
            last = episodes.observations["previous_action"][1:length, b, newest]
            within = last.any(dim=-1)  # not where the next inner episode of a trial starts
            assert (~within).sum() <= 1
            assert (last.argmax(dim=-1) == episodes.actions[: length - 1, b])[within].all()
    shake(model)
    returns, _ = evaluate_policy(model, env, n_eval_episodes=6, return_episode_rewards=True)
    assert len(returns) == 6  # type: ignore[arg-type]


def test_normalised_stacks(algorithm: Algorithm) -> None:
    """VecNormalize around VecFrameStack works. The other way round it knows the raw frames but not the stacks of them that
    the networks see, and the error says so."""
    stacked = VecFrameStack(DummyVecEnv([noise] * 2), n_stack=3)
    assert algorithm.make(VecNormalize(stacked)).learn(100)._n_updates > 2
    with pytest.raises(ValueError, match=r"VecNormalize\(VecFrameStack\(env\)\)"):
        algorithm.make(VecFrameStack(VecNormalize(DummyVecEnv([noise] * 2)), n_stack=3)).learn(100)


def test_frame_stack_of_images(algorithm: Algorithm) -> None:
    """SB3's test_cnn with VecFrameStack: images are stacked along their channels, channels first or last."""
    for shape in ((1, 36, 36), (36, 36, 1)):
        env = VecFrameStack(random_trials(spaces.Box(0, 255, shape, np.uint8), n_envs=2), n_stack=4)
        model = algorithm.make(env, "CnnPolicy", {"features_extractor_kwargs": {"features_dim": 8}}).learn(60)
        assert model._n_updates > 2
        assert model.observation_space["observation"].shape == (4, 36, 36)  # type: ignore[index]
        evaluate_policy(model, env, n_eval_episodes=2)


@pytest.mark.skipif(find_spec("moviepy") is None, reason="moviepy is not installed: pip install sb3_dream[tests]")
def test_vec_video_recorder(algorithm: Algorithm, tmp_path: Path) -> None:
    """SB3's test_vec_envs::test_vec_env_render and its recorder: a film of what is learned on."""
    env = VecVideoRecorder(DummyVecEnv([noise]), str(tmp_path), record_video_trigger=lambda step: step == 10, video_length=20)
    algorithm.make(env).learn(40)
    env.close()
    (film,) = tmp_path.glob("*.mp4")
    assert film.stat().st_size > 500


def test_vec_check_nan(algorithm: Algorithm) -> None:
    """VecCheckNan looks into dict observations, so it can stand around trials; and it stops a NaN reward."""
    algorithm.make(VecCheckNan(DummyVecEnv([noise] * 2), raise_exception=True)).learn(100)

    class Broken(Noise):
        def step(self, action: int) -> Any:
            observation, _, *rest = super().step(action)
            return observation, float("nan"), *rest

    env = VecCheckNan(DummyVecEnv([lambda: trials(Broken())]), raise_exception=True)
    with pytest.raises(ValueError, match=r"(?i)nan"):
        algorithm.make(env).learn(200)
