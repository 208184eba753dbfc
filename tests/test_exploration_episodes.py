"""Several exploration episodes in a trial: one trajectory, one memory and one return, and no action between them."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dream import DREAM, EpisodeBatch, RecurrentDQN, TrialBatch, TrialEnv, evaluate_problems
from sb3_dream.envs.bus import RIDE
from sb3_dream.envs.grid import END_EPISODE
from tests.conftest import collect
from tests.test_acting import shaken, stored_rows
from tests.test_losses import losses_with_noise, random_output_biases

K = 3


@pytest.fixture
def explorers() -> DREAM:
    """Map trials of three exploration episodes, whose networks answer to everything that they see."""
    model = collect(n_steps=1500, env_kwargs={"n_exploration_episodes": K, "n_execution_episodes": 2})
    random_output_biases(model)
    return model


@pytest.fixture
def explored(explorers: DREAM) -> TrialBatch:
    """Eight of its trials."""
    assert explorers.replay_buffer is not None
    return explorers.replay_buffer.sample(8, rng=np.random.default_rng(0))


# ---- trials ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check_env", [gymnasium_check_env, sb3_check_env])
@pytest.mark.parametrize("env_id", ["MetaBandit-v0", "MetaCooking-v0", "MetaDistractingBus-v0", "MetaMap-v0"])
def test_registered_ids_take_them(env_id: str, check_env: Callable[..., None]) -> None:
    """By the keyword alone, and nothing for Gymnasium or SB3 to complain about. What they show is in
    test_trial_properties.py."""
    env: Any = gym.make(env_id, n_exploration_episodes=2, n_execution_episodes=2).unwrapped
    assert (env.n_exploration_episodes, env.n_execution_episodes) == (2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env)


def test_instructions_are_those_of_the_execution_episodes() -> None:
    """Counted from the wrong episode, an evaluation would ask for other goals than it says; and the picture's caption says
    where one is."""
    env: Any = gym.make("MetaMap-v0", n_exploration_episodes=2, n_execution_episodes=2, render_mode="rgb_array")
    observation, _ = env.reset(seed=0, options={"problem_id": 3, "instructions": [2, 1]})
    shown, captions, over = [], [], False
    while not over:
        if observation["episode_start"][0]:
            shown.append(np.flatnonzero(observation["instruction"]).tolist())
            env.render()
            captions.append(env.unwrapped.env.unwrapped.caption.removeprefix("problem 3: "))
        observation, _, over, _, info = env.step(END_EPISODE)
    assert shown == [[], [], [2], [1]]
    assert captions == ["exploration 1 of 2", "exploration 2 of 2", "execution 1 of 2", "execution 2 of 2"]
    assert info["exploration_length"] == 2


# ---- losses ------------------------------------------------------------------------------------------------------------


def distances(model: DREAM, batch: TrialBatch, b: int) -> tuple[np.ndarray, list[int]]:
    """‖f − g‖² after each observation of trial b, and at which of them actions were taken. One trial, without padding."""
    n = int(batch.exploration.lengths[b])
    observations = {key: value[: n + 1, b : b + 1] for key, value in batch.exploration.observations.items()}
    with th.no_grad():
        g, _ = model.policy.trajectory_decoder(model.policy.steps(observations))
        f = model.policy.problem_encoder(batch.problem_ids[b : b + 1])
    between = batch.exploration.between
    assert between is not None
    ends = between[:n, b].numpy()
    assert ends.sum() == K - 1
    return (f - g).pow(2).sum(-1)[:, 0].numpy(), np.flatnonzero(~ends).tolist()


def test_the_reward_of_all_exploration_episodes_telescopes(explorers: DREAM, explored: TrialBatch) -> None:
    """Σ r = ‖f − g(∅)‖² − ‖f − g(τ)‖² − cT over all of them, T the number of actions. If what an episode's end or the next
    one's beginning tells were lost (or cost c), exploration would be paid for something else than what is known after it."""
    expected = []
    for b in range(8):
        d, acted = distances(explorers, explored, b)
        expected.append(d[0] - d[-1] - 0.01 * len(acted))
    losses = losses_with_noise(explorers, explored)
    assert losses.exploration_reward.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_each_action_is_paid_for_what_is_known_at_the_next(explorers: DREAM, explored: TrialBatch) -> None:
    """γ = 0 and Q = 0 leave the mean r². The last action of an episode is paid for what the end and the beginning after it
    tell, for no other action led there; and the step between is none, so it is not averaged over."""
    with th.no_grad():
        for parameter in explorers.policy.explorer.head.streams.parameters():
            parameter.zero_()
    explorers.gamma = 0.0
    rewards: list[float] = []
    for b in range(8):
        d, acted = distances(explorers, explored, b)
        rewards += (d[acted] - d[[*acted[1:], -1]] - 0.01).tolist()
    losses = losses_with_noise(explorers, explored)
    assert losses.exploration_td.item() == pytest.approx(np.mean(np.square(rewards)), rel=1e-4)


def test_values_are_bootstrapped_from_one_exploration_episode_to_the_next(explorers: DREAM, explored: TrialBatch) -> None:
    """An episode that leaves something to find out is worth what the next one can find. Trial by trial and step by step:
    double Q, γ once for each action, nothing beyond the last episode."""
    policy, errors = explorers.policy, []
    for b in range(8):
        d, acted = distances(explorers, explored, b)
        n = int(explored.exploration.lengths[b])
        steps = policy.steps({key: value[: n + 1, b : b + 1] for key, value in explored.exploration.observations.items()})
        with th.no_grad():
            q, target = (network(steps)[0][0][:, 0] for network in (policy.explorer, policy.explorer_target))
        for t, after in zip(acted, [*acted[1:], n], strict=True):
            value = 0.0 if after == n else 0.99 * target[after, q[after].argmax()].item()
            wanted = d[t] - d[after] - 0.01 + value
            errors.append(wanted - q[t, explored.exploration.actions[t, b]].item())
    losses = losses_with_noise(explorers, explored)
    assert losses.exploration_td.item() == pytest.approx(np.mean(np.square(errors)), rel=1e-4)


def test_the_action_between_is_not_learned_from(explorers: DREAM, explored: TrialBatch) -> None:
    """It did nothing: valued as the others, it would teach Q^exp that some action there is better."""
    actions = explored.exploration.actions.clone()
    actions[explored.exploration.between] = 6 - actions[explored.exploration.between]
    assert not th.equal(actions, explored.exploration.actions)
    other = dataclasses.replace(explored, exploration=dataclasses.replace(explored.exploration, actions=actions))
    before, after = losses_with_noise(explorers, explored), losses_with_noise(explorers, other)
    assert before.exploration_td.item() == after.exploration_td.item()


def test_the_decoder_is_fit_to_every_prefix_of_all(explorers: DREAM, explored: TrialBatch) -> None:
    """The ends of episodes are prefixes as well: the guess there is what the reward of the actions after it counts from, and
    execution acts from the last."""
    every = [distances(explorers, explored, b)[0] for b in range(8)]
    losses = losses_with_noise(explorers, explored)
    assert losses.decoder.item() == pytest.approx(np.concatenate(every).mean(), rel=1e-4)
    assert losses.decoder_distance_end.item() == pytest.approx(np.mean([d[-1] for d in every]), rel=1e-4)


def test_a_mark_of_another_shape_is_refused(explored: TrialBatch) -> None:
    """It would be broadcast without a word."""
    batch: EpisodeBatch = explored.exploration
    assert batch.between is not None
    with pytest.raises(ValueError, match="between must have the shape"):
        dataclasses.replace(batch, between=batch.between[:, :1])


# ---- acting ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_lstm_layers", [1, 2])
def test_acting_and_learning_remember_the_same(n_lstm_layers: int) -> None:
    """Q^exp and g step by step, in trials side by side, are what the batch makes of the same trajectory: they remember the
    exploration episodes before, and nothing of other trials."""
    model = shaken(
        collect(n_steps=1500, env_kwargs={"n_exploration_episodes": K}, policy_kwargs={"n_lstm_layers": n_lstm_layers})
    )
    buffer, state = model.replay_buffer, None
    assert buffer is not None
    q_values, guesses = [], []
    for observation in stored_rows(model):  # many trials one after the other, as the observation alone tells
        q, state, _ = model.policy.predict_q_values(observation, state)
        q_values.append(q)
        guesses.append(state[-1][0])
    table = buffer._table[buffer._whole()]
    batch = buffer.batch(table, np.ones(len(table), dtype=int)).exploration
    with th.no_grad():
        steps = model.policy.steps(batch.observations, batch.prefix_mask)
        (q_batch,), g_batch = model.policy.explorer(steps)[0], model.policy.trajectory_decoder(steps)[0]
    assert len(table) > 12
    for b, trial in enumerate(table):
        first, env = int(trial["start"]), int(trial["env"])
        for t in range(int(batch.lengths[b]) + 1):
            np.testing.assert_allclose(q_values[first + t][env], q_batch[t, b], rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(guesses[first + t][env], g_batch[t, b], rtol=1e-4, atol=1e-5)


def test_a_trial_that_was_given_up_is_forgotten() -> None:
    """After a reset in the middle of exploration the first action must not depend on what was seen in the trial before,
    whether the caller says that an episode starts or not."""
    model = shaken(collect(n_steps=400, env_kwargs={"n_exploration_episodes": K}))
    env = make_vec_env("MetaMap-v0", n_envs=2, env_kwargs={"n_exploration_episodes": K})
    first: Any = env.reset()
    fresh, _, _ = model.policy.predict_q_values(first)
    observation, state = first, None
    for _ in range(30):
        _, state, _ = model.policy.predict_q_values(observation, state)
        np.testing.assert_array_equal(model.policy.predict_q_values(first, state, np.ones(2))[0], fresh)
        if not observation["episode_end"].any():
            np.testing.assert_array_equal(model.policy.predict_q_values(first, state)[0], fresh)
        observation, *_ = env.step(np.array([1, END_EPISODE]))


# ---- evaluation ----------------------------------------------------------------------------------------------------------


class Script:
    """Rides at the start of each exploration episode and at its end, and ends it; then no-op."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """By the flags alone."""
        edge = (observation["episode_start"] + observation["episode_end"])[:, 0] > 0
        return np.where(edge, RIDE, END_EPISODE), None


def test_what_was_explored_is_reported_of_all_episodes() -> None:
    """Actions and observations must go on fitting together, and an action that was ignored is not one that was taken: 'buses
    ridden' would count it."""
    env = make_vec_env("MetaMap-v0", n_envs=2, env_kwargs={"split": "test", "n_exploration_episodes": 2})
    results = evaluate_problems(Script(), env, [0, 5, 7])
    assert results.exploration_lengths.tolist() == [4, 4, 4]
    for observations, actions in zip(results.exploration_observations, results.exploration_actions, strict=True):
        assert actions.tolist() == [RIDE, END_EPISODE, -1, RIDE, END_EPISODE]
        assert len(observations) == 6
        np.testing.assert_array_equal(observations[:3], observations[3:])
    continuous = TrialEnv(gym.make("Pendulum-v1", max_episode_steps=2), [{}], n_exploration_episodes=2, n_execution_episodes=1)

    class Push:
        def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
            """Half."""
            return np.full((1, 1), 0.5, np.float32), None

    (actions,) = evaluate_problems(Push(), continuous).exploration_actions
    np.testing.assert_array_equal(actions[:, 0], [0.5, 0.5, np.nan, 0.5, 0.5])


# ---- saving ------------------------------------------------------------------------------------------------------------


def test_a_model_refuses_trials_of_another_number(tmp_path: Path) -> None:
    """Half of its exploration would be missing, or the buffer would cut trials at the wrong places."""
    env, other = (make_vec_env("MetaBandit-v0", n_envs=2, env_kwargs={"n_exploration_episodes": n}) for n in (2, 1))
    settings: dict[str, Any] = {"learning_starts": 40, "train_freq": 8, "batch_size": 4, "buffer_size": 500, "device": "cpu"}
    model = DREAM("MlpPolicy", env, seed=0, **settings).learn(200)
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    with pytest.raises(ValueError, match="n_exploration_episodes of the environment is 1, but must be 2 as in the model"):
        DREAM.load(tmp_path / "model", env=other)
    loaded = DREAM.load(tmp_path / "model")
    with pytest.raises(ValueError, match="n_exploration_episodes of the environment is 1, but must be 2 as in the model"):
        loaded.set_env(other)
    loaded = DREAM.load(tmp_path / "model", env=env)
    loaded.load_replay_buffer(tmp_path / "replay")
    loaded.learn(100, reset_num_timesteps=False)
    mixed = DummyVecEnv([lambda: halves(1), lambda: halves(2)])
    with pytest.raises(ValueError, match="n_exploration_episodes of the environment is 2, but must be 1"):
        DREAM("MlpPolicy", mixed)
    with pytest.raises(ValueError, match="one family, but n_exploration_episodes is 1 here and 2 there"):
        evaluate_problems(model, mixed)


# ---- learning ----------------------------------------------------------------------------------------------------------


class Halves(gym.Env[Any, Any]):
    """Four arms, one of which pays. While exploring, an episode is one pull: arm 0 tells one bit of which arm it is, and arm
    1 the other bit. So one exploration episode brings 1/2, and two bring 1 if the second is used for what the first was not;
    only memory can tell, as both episodes begin alike."""

    action_space = spaces.Discrete(4)
    observation_space = spaces.Discrete(5)
    problem_space = spaces.Discrete(4)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Begin."""
        super().reset(seed=seed)
        assert options is not None
        self.problem, self.exploring = options["problem_id"], options["exploring"]
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """Pull."""
        if self.exploring:
            return 1 + 2 * action + (self.problem >> action) % 2 if action < 2 else 0, 0.0, True, False, {}
        return 0, float(action == self.problem), True, False, {}


def halves(n_exploration_episodes: int) -> TrialEnv:
    """Trials in it."""
    return TrialEnv(Halves(), range(4), n_exploration_episodes=n_exploration_episodes)


def test_two_exploration_episodes_find_out_what_one_cannot() -> None:
    """The whole thing. An agent that forgets between the episodes comes to 1/2."""
    env = make_vec_env(lambda: halves(2), n_envs=16, seed=0)
    model = DREAM("MlpPolicy", env, seed=0, learning_starts=500, train_freq=2, batch_size=32, buffer_size=20_000, device="cpu")
    model.learn(12_000)
    results = evaluate_problems(model, halves(2))
    assert results.mean_return == pytest.approx(1.0)
    for actions in results.exploration_actions:
        assert sorted(actions.tolist()) == [-1, 0, 1], "both bits"
    # with one episode, the same model knows one bit
    assert evaluate_problems(model, halves(1)).mean_return <= 0.5


def test_recurrent_dqn_takes_the_trial_as_one_episode() -> None:
    """E-RL²: one memory from the first exploration episode to the last execution episode."""
    env = make_vec_env(lambda: halves(2), n_envs=2, seed=0)
    model = RecurrentDQN("MlpPolicy", env, seed=0, learning_starts=50, batch_size=8, device="cpu").learn(200)
    assert model._n_updates > 2
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(8, sequence_length=64)
    for b, length in enumerate(batch.lengths.tolist()):
        flags = [batch.observations[key][:length, b, 0].tolist() for key in ("exploring", "episode_start")]
        assert flags == [[1, 1, 1, 1, 0], [1, 0, 1, 0, 1]]
    assert evaluate_problems(model, env, [0, 3]).execution_returns.shape == (2, 1)
