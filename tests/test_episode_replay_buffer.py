"""EpisodeReplayBuffer: windows of episodes come out as they were lived, and say what may be bootstrapped from."""

import pickle
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_dream import EpisodeBatch, EpisodeReplayBuffer, RecurrentDQN
from tests.counting_env import Counting, counting
from tests.random_families import FLAT_SPACES


def filled(env: DummyVecEnv, rows: int, n_steps: int) -> EpisodeReplayBuffer:
    """So many rows for each environment, filled with so many steps of each."""
    n_envs = env.num_envs
    buffer = EpisodeReplayBuffer(rows * n_envs, env.observation_space, env.action_space, device="cpu", n_envs=n_envs)
    rng = np.random.default_rng(0)
    observations: Any = env.reset()
    for _ in range(n_steps):
        actions = rng.integers(3, size=n_envs)
        following: Any
        following, rewards, dones, infos = env.step(actions)
        buffer.add(observations, following, actions, rewards, dones, infos)
        observations = following
    return buffer


def windows(batch: EpisodeBatch) -> set[tuple[int, int, int, int]]:
    """Environment, episode, first step and number of learned steps of each; with a look at whether they are whole."""
    places = set()
    burn_in = th.zeros_like(batch.lengths) if batch.burn_in is None else batch.burn_in
    rows = batch.observations["observation"]
    assert batch.terminated is not None
    for b, (length, before, terminated) in enumerate(
        zip(batch.lengths.tolist(), burn_in.tolist(), batch.terminated.tolist(), strict=True)
    ):
        env, episode, first = (int(value) for value in rows[0, b])
        assert batch.mask[:, b].tolist() == [float(before <= t < length) for t in range(len(batch.actions))]
        assert batch.dones[:, b].tolist() == [float(terminated and t == length - 1) for t in range(len(batch.actions))]
        for t in range(length):
            assert rows[t, b].tolist() == [env, episode, first + t]
            assert batch.rewards[t, b].item() == 1000.0 * episode + first + t
        # what values are bootstrapped from: the next observation of the same episode, also where a time limit has cut it
        assert rows[length, b].tolist() == [env, episode, first + length - int(terminated)]
        places.add((env, episode, first + before, length - before))
    return places


@settings(max_examples=60, deadline=None)
@given(
    n_envs=st.integers(1, 3),
    max_length=st.integers(1, 12),
    rows=st.integers(2, 40),
    n_steps=st.integers(1, 80),
    sequence_length=st.integers(1, 14),
    burn_in=st.integers(0, 6),
)
def test_windows_are_pieces_of_episodes(
    n_envs: int, max_length: int, rows: int, n_steps: int, sequence_length: int, burn_in: int
) -> None:
    """Whatever the lengths and however often the ring was overwritten: a window lies within one episode, is full unless the
    episode is shorter, is preceded by as much burn-in as there is, and ends at a termination only where the episode did."""
    env = counting(n_envs, max_length=max_length)
    buffer = filled(env, rows, n_steps)
    if buffer.n_windows(sequence_length) == 0:
        with pytest.raises(ValueError, match="No whole episode"):
            buffer.sample(4, sequence_length=sequence_length)
        assert n_steps <= max(max_length, sequence_length) or rows <= 2 * max_length
        return
    batch = buffer.sample(32, rng=np.random.default_rng(0), sequence_length=sequence_length, burn_in=burn_in)
    assert batch.terminated is not None
    fitting = min(sequence_length, rows - 1)
    before = [0] * 32 if batch.burn_in is None else batch.burn_in.tolist()
    for (index, episode, first, n), n_before in zip(ordered(batch), before, strict=True):
        ended = env.envs[index].unwrapped.ended  # type: ignore[attr-defined]
        length = ended[episode][0] if episode < len(ended) else max_length
        assert n == min(fitting, length) or (n == fitting and n <= length)
        assert n_before <= burn_in
        assert n_before in (burn_in, first) or first - n_before > 0, "only the ring's end may cut the burn-in short"
    windows(batch)


def ordered(batch: EpisodeBatch) -> list[tuple[int, int, int, int]]:
    """``windows`` of each entry by itself, in the order of the batch."""
    burn_in = th.zeros_like(batch.lengths) if batch.burn_in is None else batch.burn_in
    rows = batch.observations["observation"][0]
    return [
        (int(row[0]), int(row[1]), int(row[2]) + before, length - before)
        for row, before, length in zip(rows, burn_in.tolist(), batch.lengths.tolist(), strict=True)
    ]


def test_an_episode_that_fits_is_learned_whole() -> None:
    """On trials the memory must run from the first exploration step to the last execution step."""
    env = counting(2, max_length=8)
    buffer = filled(env, rows=60, n_steps=60)
    batch = buffer.sample(500, rng=np.random.default_rng(0), sequence_length=8, burn_in=4)
    assert batch.burn_in is not None
    assert batch.burn_in.max() == 0
    lived = {
        (index, episode, 0, length)
        for index, each in enumerate(env.envs)
        for episode, (length, _) in enumerate(each.unwrapped.ended)  # type: ignore[attr-defined]
    }
    assert windows(batch) == lived


def test_every_step_of_a_long_episode_is_learned_from() -> None:
    """Also its first and its last ones: windows at random offsets would hardly ever reach them, and there the reward is."""
    buffer = filled(counting(1, max_length=50, min_length=50), rows=200, n_steps=50)
    counts = np.zeros(50)
    for _, _, first, n in ordered(buffer.sample(3000, rng=np.random.default_rng(0), sequence_length=10)):
        assert n == 10
        counts[first : first + n] += 1
    assert counts.min() > 0.4 * counts.mean()


def test_long_episodes_are_drawn_as_often_as_they_have_windows() -> None:
    """Drawing episodes would show the steps of a long one as seldom as those of a short one."""
    env = counting(1, max_length=50)
    buffer = filled(env, rows=2000, n_steps=1500)
    drawn = np.array(
        [episode for _, episode, _, _ in ordered(buffer.sample(20_000, rng=np.random.default_rng(0), sequence_length=10))]
    )
    lengths = np.array([length for length, _ in env.envs[0].unwrapped.ended])  # type: ignore[attr-defined]
    n_windows = np.ceil(lengths / 10)
    assert buffer.n_windows(10) - n_windows.sum() in range(6), "besides what the episode under way has"
    counts = np.bincount(drawn, minlength=len(lengths))[: len(lengths)]
    for n in (1, 5):
        share = counts[n_windows == n].sum() / len(drawn)
        assert share == pytest.approx(n_windows[n_windows == n].sum() / buffer.n_windows(10), rel=0.1)


def test_an_episode_that_never_ends_is_learned_from() -> None:
    """There are environments without an end: waiting for it would mean learning nothing, without a word."""
    env = counting(1, max_length=10**6, min_length=10**6)
    buffer = filled(env, rows=300, n_steps=40)
    assert buffer.n_windows(50) == 0
    places = windows(buffer.sample(200, rng=np.random.default_rng(0), sequence_length=10))
    assert min(first for _, _, first, _ in places) == 0
    assert max(first + n for _, _, first, n in places) == 39, "the last row is what the last window bootstraps from"
    buffer = filled(counting(1, max_length=10**6, min_length=10**6), rows=30, n_steps=100)
    places = windows(buffer.sample(200, rng=np.random.default_rng(0), sequence_length=10))
    assert {min(first for _, _, first, _ in places), max(first for _, _, first, _ in places)} == {70, 89}


def test_an_episode_longer_than_the_ring_is_learned_from() -> None:
    """Its beginning has been overwritten when it ends. What is left is still its end."""
    env = counting(1, max_length=50, min_length=50)
    buffer = filled(env, rows=20, n_steps=50)
    places = windows(buffer.sample(200, rng=np.random.default_rng(0), sequence_length=100))
    assert max(first + n for _, _, first, n in places) == 50
    assert all(n == 19 for *_, n in places), "a window fits into the ring, with the row after it"


def test_the_table_makes_room() -> None:
    """In a long run the ring is overwritten many times: the table must stay as short as what is stored, and must not lose
    an episode that is still there."""
    env = counting(3, max_length=4)
    buffer = filled(env, rows=100, n_steps=3000)
    assert len(buffer._table) < 3 * 100
    sampled = {place[:2] for place in windows(buffer.sample(3000, sequence_length=4))}  # 25 times each, on average
    for index in range(3):
        lengths = [length for length, _ in env.envs[index].unwrapped.ended]  # type: ignore[attr-defined]
        starts = np.cumsum([0, *lengths[:-1]])
        still_there = {(index, int(episode)) for episode in np.flatnonzero(starts >= 3000 - 100)}
        assert len(still_there) > 30
        assert sampled >= still_there


def test_draws_without_a_generator() -> None:
    """As with SB3's buffers, set_random_seed is all that a repetition needs, and two draws in a row differ."""
    buffer = filled(counting(2), rows=100, n_steps=70)
    draws = []
    for seed in (1, None, 1):
        if seed is not None:
            set_random_seed(seed)
        draws.append(buffer.sample(16, sequence_length=4).rewards)
    assert draws[0].equal(draws[2])
    assert not draws[0].equal(draws[1])


@pytest.mark.parametrize(
    "space", [*FLAT_SPACES, spaces.Dict({"a": spaces.Discrete(3), "b": spaces.Box(-1.0, 1.0, (2, 2), np.float32)})], ids=str
)
def test_the_last_observation_of_any_space(space: spaces.Space) -> None:
    """Where a time limit cuts an episode, what was seen last is not what the next episode begins with."""

    class Cut(gym.Env):
        observation_space = space
        action_space = spaces.Discrete(3)
        seen: list[Any]

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            self.seen = [space.sample()]
            return self.seen[0], {}

        def step(self, action: int) -> tuple[Any, float, bool, bool, dict]:
            self.seen.append(space.sample())
            if len(self.seen) == 4:
                episodes.append(self.seen)
            return self.seen[-1], 0.0, False, len(self.seen) == 4, {}

    space.seed(0)
    episodes: list[list[Any]] = []
    buffer = filled(DummyVecEnv([Cut]), rows=20, n_steps=4)
    batch = buffer.sample(1, sequence_length=3)
    assert batch.dones.sum() == 0
    for t, observation in enumerate(episodes[0]):
        expected = observation if isinstance(observation, dict) else {"observation": observation}
        for key, value in expected.items():
            np.testing.assert_array_equal(batch.observations[key][t, 0], value)


def test_pickle_round_trip() -> None:
    """save_replay_buffer pickles it: the same windows come out, and new steps go in behind."""
    buffer = filled(counting(2), rows=100, n_steps=70)
    copy = pickle.loads(pickle.dumps(buffer))
    first, second = (each.sample(16, rng=np.random.default_rng(5), sequence_length=4) for each in (buffer, copy))
    assert th.equal(first.observations["observation"], second.observations["observation"])
    assert len(copy.rewards) == 100


def test_episodes_under_way_can_be_dropped() -> None:
    """When learn() begins anew, new episodes begin: their steps must not be joined to those of the ones that were cut."""
    env = counting(2, max_length=30, min_length=20)
    buffer = filled(env, rows=200, n_steps=50)
    buffer.drop_unfinished_episodes()
    before = {place[:2] for place in windows(buffer.sample(300, sequence_length=5))}
    assert before == {(index, episode) for index in (0, 1) for episode in range(len(env.envs[index].unwrapped.ended))}  # type: ignore[attr-defined]
    observations: Any = env.reset()
    for _ in range(70):
        following: Any
        following, rewards, dones, infos = env.step(np.zeros(2, dtype=int))
        buffer.add(observations, following, np.zeros(2), rewards, dones, infos)
        observations = following
    windows(buffer.sample(300, sequence_length=5))


def test_episodes_under_way_can_be_cut() -> None:
    """When learn() is called in chunks, what was stored of an episode that did not end must not be lost: what came before its
    last row stays, and is bootstrapped from that."""
    for rows in (200, 40):  # 40 has begun to overwrite itself
        buffer = filled(counting(2, max_length=300, min_length=290), rows=rows, n_steps=50)
        before = buffer.n_windows(5)
        buffer.cut_unfinished_episodes()
        assert buffer.n_windows(5) == before > 0
        batch = buffer.sample(300, sequence_length=5)
        places = windows(batch)
        assert max(first + length for _, _, first, length in places) == 49
        assert batch.terminated is not None and not batch.terminated.any()
        assert (buffer.n_steps_under_way == 0).all()
        buffer.cut_unfinished_episodes()  # there is none any more
        assert buffer.n_windows(5) == before


def test_chunks_of_learning_lose_no_experience() -> None:
    """``for _ in range(100): model.learn(300, reset_num_timesteps=False)`` with episodes that are longer than that."""
    env = counting(1, max_length=400, min_length=400)
    model = RecurrentDQN("MlpPolicy", env, seed=0, learning_starts=10**9, buffer_size=4000, device="cpu")
    for _ in range(5):
        model.learn(300, reset_num_timesteps=False)
    buffer: Any = model.replay_buffer
    transitions = {
        (episode, first + t)
        for _, episode, first, length in windows(buffer.sample(3000, sequence_length=1))
        for t in range(length)
    }
    assert buffer.n_windows(1) == buffer.n_rows - 5  # of each chunk all but its last row
    assert transitions == {(0, step) for step in range(buffer.n_rows // 5 - 1)}


def test_an_integer_that_was_normalised_comes_back_whole() -> None:
    """VecNormalize takes back what it did but for the last bits: of a time limit's last observation 8.9999 would become 8."""

    class Whole(Counting):
        observation_space = spaces.Box(0, 1000, (3,), np.int64)  # type: ignore[arg-type]

        def _observe(self) -> np.ndarray:
            return super()._observe().astype(np.int64)

    env = VecNormalize(DummyVecEnv([lambda: Whole(max_length=9)]))
    model = RecurrentDQN("MlpPolicy", env, seed=0, learning_starts=10**9, buffer_size=4000, device="cpu").learn(600)
    windows(model.replay_buffer.sample(500, sequence_length=4))  # type: ignore[union-attr]


def test_memory_is_that_of_the_raw_data() -> None:
    """A million steps must fit where a user reckons they fit, also if every episode is short and cut."""
    buffer = filled(counting(4, max_length=40), rows=2000, n_steps=2500)
    raw = 4 * 2000 * (3 * 4 + 8 + 4)
    held = sum(each.nbytes for each in (buffer.observations["observation"], buffer.actions, buffer.rewards, buffer._table))
    assert raw < held <= 1.1 * raw


def test_sampling_with_vec_normalize_normalises() -> None:
    """The buffer stores raw data, the last observations of episodes that were cut too, though VecNormalize hands these out
    normalised."""
    env = VecNormalize(counting(2))
    arguments: dict[str, Any] = {"seed": 0, "learning_starts": 10**9, "buffer_size": 4000, "device": "cpu"}
    buffer = RecurrentDQN("MlpPolicy", env, **arguments).learn(400).replay_buffer
    assert buffer is not None
    raw, normal = (
        buffer.sample(64, env=each, rng=np.random.default_rng(0), sequence_length=4, burn_in=2) for each in (None, env)
    )
    rows, length = raw.observations["observation"].numpy(), raw.lengths.numpy()
    assert raw.terminated is not None and not raw.terminated.all()
    for b in np.flatnonzero(~raw.terminated.numpy()):
        # clipping at 10 standard deviations is all that is lost on the way
        np.testing.assert_allclose(rows[length[b], b], rows[length[b] - 1, b] + [0, 0, 1], rtol=1e-4, atol=1e-3)
    normalized: Any = env.normalize_obs(rows)
    np.testing.assert_allclose(normal.observations["observation"], normalized, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(normal.rewards, env.normalize_reward(raw.rewards.numpy()), rtol=1e-4, atol=1e-5)


def test_marks_of_a_wrong_shape_are_refused() -> None:
    """They would broadcast, and mark all windows."""
    arguments: dict[str, Any] = {
        "observations": {},
        "actions": th.zeros(3, 2, dtype=th.int64),
        "rewards": th.zeros(3, 2),
        "lengths": th.tensor([3, 1]),
    }
    for name in ("terminated", "burn_in"):
        with pytest.raises(ValueError, match=rf"{name} must have the shape \(2,\), got \(1,\)"):
            EpisodeBatch(**{**arguments, name: th.zeros(1)})
