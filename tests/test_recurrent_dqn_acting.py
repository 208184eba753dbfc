"""How RecurrentDQN acts: its memory is an episode's, of one environment, and random actions leave no hole in it."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import RecurrentDQN
from tests.counting_env import counting
from tests.test_recurrent_dqn_losses import shake


def acted(env: Any = None, n_steps: int = 600, epsilon: float = 0.0, **kwargs: Any) -> RecurrentDQN:
    """A model with large weights that has collected with its own ε-greedy policy and learned nothing."""
    arguments: dict[str, Any] = {"learning_starts": 0, "gradient_steps": 0, "exploration_fraction": 1e-9, "seed": 0}
    model = RecurrentDQN(
        "MlpPolicy",
        env or make_vec_env("CartPole-v1", n_envs=4, seed=0),
        exploration_initial_eps=epsilon,
        exploration_final_eps=epsilon,
        buffer_size=20_000,
        device="cpu",
        **{**arguments, **kwargs},
    )
    shake(model)
    return model.learn(n_steps)


def replay(model: RecurrentDQN) -> tuple[np.ndarray, np.ndarray]:
    """What predict does on the stored observations, told where episodes start; and what was done. Each (steps, n_envs)."""
    buffer = model.replay_buffer
    assert buffer is not None
    table = buffer._table[: buffer._n_table]
    starts = {(0, env) for env in range(model.n_envs)} | {
        (int(row["start"]) + int(row["ends"][-1]), int(row["env"])) for row in table
    }
    state, greedy = None, []
    for t in range(buffer.n_rows):
        observation: Any = {key: rows[t] for key, rows in buffer.observations.items()}
        if not isinstance(model.observation_space, spaces.Dict):
            observation = observation["observation"]
        begun = np.array([(t, env) in starts for env in range(model.n_envs)])
        actions, state = model.predict(observation, state=state, episode_start=begun, deterministic=True)
        greedy.append(actions)
    return np.array(greedy), buffer.actions[: len(greedy), :, 0]


def test_collecting_without_epsilon_is_predict() -> None:
    """Acting in training and at test time are the same function: the memory of each environment is kept to the end of its
    episode and no further, while the others go on."""
    model = acted()
    greedy, done = replay(model)
    np.testing.assert_array_equal(greedy, done)
    assert len(np.unique(done)) > 1
    assert model._episode_num > 10


def test_the_memory_matters() -> None:
    """If what predict returns were not used, or an episode's start not told, other actions would come out: else the test
    above could not fail."""
    model = acted()
    buffer = model.replay_buffer
    assert buffer is not None
    kept: Any = None
    differs = np.zeros(2, dtype=int)
    for t in range(100):
        observation = buffer.observations["observation"][t]
        start = np.zeros(4, dtype=bool)
        q_values, kept, _ = model.policy.predict_q_values(observation, kept, start)
        fresh, _, _ = model.policy.predict_q_values(observation)
        differs += [not np.allclose(q_values, fresh), (q_values.argmax(1) != fresh.argmax(1)).any()]
    assert differs[0] >= 99
    assert differs[1] > 3


def test_episode_start_forgets_for_that_environment_alone() -> None:
    """evaluate_policy says with episode_start that a new episode begins; the other environments must not notice."""
    model = acted(n_steps=40)
    buffer = model.replay_buffer
    assert buffer is not None
    state: Any = None
    rows = buffer.observations["observation"]
    for t in range(5):
        _, state = model.predict(rows[t], state=state, deterministic=True)
    starts = np.array([True, False, False, True])
    reset, reset_state, _ = model.policy.predict_q_values(rows[5], state, starts)
    kept, kept_state, _ = model.policy.predict_q_values(rows[5], state, np.zeros(4, dtype=bool))
    fresh, fresh_state, _ = model.policy.predict_q_values(rows[5])
    np.testing.assert_array_equal(reset[~starts], kept[~starts])
    np.testing.assert_allclose(reset[starts], fresh[starts], rtol=1e-5)
    assert not np.allclose(kept[starts], fresh[starts])
    for part, fresh_part, kept_part in zip(reset_state, fresh_state, kept_state, strict=True):
        np.testing.assert_allclose(part[:, starts], fresh_part[:, starts], rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(part[:, ~starts], kept_part[:, ~starts])


def test_learn_begins_with_an_empty_memory() -> None:
    """A second learn() begins with a reset: the memory of the episode that was left would be another one's."""
    model = acted(n_steps=50)
    buffer = model.replay_buffer
    assert buffer is not None
    for _ in range(10):
        first = buffer.n_rows
        model.learn(50, reset_num_timesteps=False)
        state: Any = None
        for t in range(first, first + 5):  # no episode is shorter
            actions, state = model.predict(buffer.observations["observation"][t], state=state, deterministic=True)
            np.testing.assert_array_equal(buffer.actions[t, :, 0], actions)


def test_one_observation_is_a_batch_of_one() -> None:
    """predict on a plain environment and on a VecEnv act alike."""
    model = acted(n_steps=200)
    assert model.replay_buffer is not None
    one_state: Any = None
    many_state: Any = None
    for rows in model.replay_buffer.observations["observation"][:40]:
        one, one_state = model.predict(rows[0], state=one_state, deterministic=True)
        many, many_state = model.predict(rows[:1], state=many_state, deterministic=True)
        assert np.shape(one) == () and many.shape == (1,)
        assert one == many[0]
        for first, second in zip(one_state, many_state, strict=True):
            np.testing.assert_array_equal(first, second)


def test_a_state_of_another_number_of_environments_is_an_error() -> None:
    """Broadcasting it would give every environment the memory of one."""
    model = acted(n_steps=40)
    rows: Any = model.env.reset()  # type: ignore[union-attr]
    _, state = model.predict(rows)
    with pytest.raises(ValueError, match="state is of 4 environments, but the observation of 2"):
        model.predict(rows[:2], state=state)


def test_random_actions_leave_no_hole_in_the_memory() -> None:
    """SB3's DQN does not run its network where it acts at random, and tosses one coin for all environments. Here the greedy
    actions between random ones are those of a memory that has seen every step, and each environment has its own coin."""
    model = acted(counting(8, max_length=30), n_steps=6000, epsilon=0.5)
    greedy, done = replay(model)
    random = greedy != done
    share = 0.5 * (1 - 1 / 3)
    assert random.mean() == pytest.approx(share, abs=0.03)
    assert random.sum(axis=1).var() < 2 * 8 * share * (1 - share)


def test_warming_up_is_random() -> None:
    """Until learning_starts, whatever ε says."""
    greedy, done = replay(acted(n_steps=2000, learning_starts=10**9))
    assert (greedy == done).mean() == pytest.approx(0.5, abs=0.06)


def test_predict_is_epsilon_greedy_unless_deterministic() -> None:
    """As DQN's; and the memory goes on under a random action as under any other."""
    model = acted(n_steps=40)
    model.exploration_rate = 0.6
    assert model.replay_buffer is not None
    observation = np.repeat(model.replay_buffer.observations["observation"][:1, 0], 5000, axis=0)
    greedy, greedy_state = model.predict(observation, deterministic=True)
    actions, state = model.predict(observation, deterministic=False)
    assert (actions == greedy).mean() == pytest.approx(1 - 0.6 / 2, abs=0.03)
    for part, greedy_part in zip(state or (), greedy_state or (), strict=True):
        np.testing.assert_array_equal(part, greedy_part)


def test_the_memory_runs_through_a_whole_trial() -> None:
    """E-RL²: what was found out while exploring must be there while executing, so inner episodes begin without forgetting."""
    model = acted(make_vec_env("MetaMap-v0", n_envs=2, seed=0))
    greedy, done = replay(model)
    np.testing.assert_array_equal(greedy, done)
    buffer = model.replay_buffer
    assert buffer is not None
    starts = buffer.observations["episode_start"][: buffer.n_rows, :, 0]
    assert starts.sum() > 1.8 * buffer._n_table > 10, "two inner episodes in a trial"


def test_random_actions_do_not_come_from_a_global_generator() -> None:
    """Evaluation on the way must not change what is learned: predict draws from a generator of its own."""
    model = acted(n_steps=40)
    assert model.rng is not None
    before = model.rng.bit_generator.state
    th.manual_seed(0)
    assert model.env is not None
    observation: Any = model.env.reset()
    model.predict(observation, deterministic=False)
    assert model.rng.bit_generator.state == before
