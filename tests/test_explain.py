"""``DREAM.explain``: what it says of a trial is what the algorithm learns from."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_dream import DREAM, TrialEnv, TrialExplanation, play_trial
from tests.conftest import collect, keep_exploring


def test_rows_are_the_trial_as_it_was(model: DREAM) -> None:
    """A picture that shows other actions or rewards than those that were played would explain nothing."""
    env = gym.make("MetaMap-v0", n_execution_episodes=2)
    explained = model.explain(env, seed=3)
    observation, _ = env.reset(seed=3)
    state, over, row, returns = None, False, 0, 0.0
    while not over:
        assert explained.exploring[row] == observation["exploring"][0]
        assert explained.episode_end[row] == observation["episode_end"][0]
        assert explained.rewards[row] == pytest.approx(float(observation["previous_reward"][0]))
        action, state = model.predict(observation, state=state, deterministic=True)
        assert explained.actions[row] == (None if explained.episode_end[row] else action)
        observation, reward, over, _, info = env.step(action)
        returns, row = returns + float(reward), row + 1
    assert len(explained.exploring) == row + 1 and explained.episode_end[row] and explained.actions[row] is None
    assert np.isnan(explained.q_values[explained.episode_end]).all()
    acted = ~explained.episode_end
    assert [action for action in explained.actions if action is not None] == explained.q_values[acted].argmax(axis=1).tolist()
    assert explained.execution_returns.sum() == pytest.approx(returns)
    assert explained.problem_id == info["problem_id"]
    starts = np.flatnonzero(explained.steps == 0)
    assert explained.episodes[starts].tolist() == [0, 1, 2]
    assert explained.steps[starts[1:] - 1].tolist() == [info["exploration_length"], info["execution_lengths"][0]]


def test_distances_and_rewards_are_those_of_the_loss(model: DREAM) -> None:
    """They are what exploration is paid; a slip by one step would praise the wrong action."""
    keep_exploring(model)
    env = gym.make("MetaMap-v0")
    explained = model.explain(env, seed=1)
    observation, _ = env.reset(seed=1)
    seen = [observation]
    for action in explained.actions[: int(explained.exploring.sum()) - 1]:
        seen.append(env.step(action)[0])
    sequence = {key: th.as_tensor(np.stack([each[key] for each in seen])).unsqueeze(1) for key in observation}
    with th.no_grad():
        f = model.policy.problem_encoder(th.tensor([explained.problem_id]))
        g, _ = model.policy.trajectory_decoder(model.policy.steps(sequence))
    distances = (f - g).pow(2).sum(dim=-1).squeeze(1).numpy()
    n = len(seen)
    assert n > 2 and explained.target_is_own and explained.target_id == explained.problem_id
    np.testing.assert_allclose(explained.distances[:n], distances, rtol=1e-4)
    np.testing.assert_allclose(explained.exploration_rewards[1:n], distances[:-1] - distances[1:] - 0.01, atol=1e-5)
    assert np.isnan(explained.exploration_rewards[[0, *range(n, len(explained.distances))]]).all()
    assert (explained.z[n:] == explained.z[n - 1]).all(), "while executing the guess stays"
    assert explained.other_distances.shape == explained.distances.shape


def test_rewards_of_several_exploration_episodes() -> None:
    """They are one exploration to the loss: the bars' sum must be ‖f − g(∅)‖² − ‖f − g(τ)‖² − cT here too, and nothing is paid
    at a step that was no action."""
    model = collect(env_kwargs={"n_exploration_episodes": 3})
    explained = model.explain(gym.make("MetaMap-v0", n_exploration_episodes=3), seed=1)
    n = int(explained.exploring.sum())
    paid = explained.exploration_rewards[~np.isnan(explained.exploration_rewards)]
    assert len(paid) == n - 3
    d = explained.distances
    assert paid.sum() == pytest.approx(d[0] - d[n - 1] - 0.01 * len(paid), abs=1e-5)
    starts = np.flatnonzero(explained.steps == 0)
    assert explained.episodes[starts].tolist() == [0, 1, 2, 3]
    assert np.isnan(explained.exploration_rewards[starts]).all()
    end = starts[1] - 1
    assert explained.exploration_rewards[end] == pytest.approx(d[end - 1] - d[end + 1] - 0.01, abs=1e-5)
    assert d[end] != d[end + 1], "the test needs a beginning that tells something"


def test_the_cost_is_todays(model: DREAM) -> None:
    """With a cost that grows, a picture from the middle of training shows what a step costs then."""
    env = gym.make("MetaMap-v0")
    before = model.explain(env, seed=1).exploration_rewards
    model.exploration_cost_schedule = lambda progress_remaining: 1.0 - progress_remaining
    model._current_progress_remaining = 0.25
    after = model.explain(env, seed=1).exploration_rewards
    np.testing.assert_allclose((before - after)[~np.isnan(before)], 0.75 - 0.01, rtol=1e-5)


def test_the_agent_acts_without_the_problem_id(model: DREAM) -> None:
    """Else the picture shows an agent that peeks: trials that hide the ID must look just the same."""
    explained = [model.explain(gym.make("MetaMap-v0", training=training), seed=5) for training in (True, False)]
    assert explained[0].problem_id == explained[1].problem_id
    assert explained[0].actions == explained[1].actions
    for name in ("q_values", "z", "distances", "exploration_rewards"):
        np.testing.assert_array_equal(getattr(explained[0], name), getattr(explained[1], name))


def test_options_choose_problem_and_instructions(model: DREAM) -> None:
    """Otherwise one cannot look at the problem that fails."""
    env = gym.make("MetaMap-v0", n_execution_episodes=2)
    explained = model.explain(env, seed=0, options={"problem_id": 7, "instructions": [3, 1]})
    assert explained.problem_id == 7 and explained.target_id == 7


def test_a_problem_that_training_never_drew_has_no_distance_of_its_own() -> None:
    """The embedding of such an ID has learned nothing: a curve of the distance to it would be noise that looks like truth."""
    model = collect("MetaDistractingBus-v0")
    assert model.trained_problem_ids.tolist() == list(range(0, 576, 11))
    explained = model.explain(gym.make("MetaDistractingBus-v0", split="test"), seed=0)
    assert explained.problem_id % 11 and not explained.target_is_own
    distances = np.square(explained.problem_means - explained.z[-1]).sum(axis=1)
    assert explained.target_id == explained.problem_ids[int(distances.argmin())]
    np.testing.assert_allclose(explained.distances[-1], distances.min(), rtol=1e-5)
    assert (explained.other_distances[-1:] >= explained.distances[-1:]).all()
    known = model.explain(gym.make("MetaDistractingBus-v0"), seed=0)
    assert known.target_is_own and known.target_id == known.problem_id


def test_known_problems_can_be_given(model: DREAM) -> None:
    """A model from before the problems were noted can still be explained."""
    model.trained_problem_ids = np.empty(0)
    env = gym.make("MetaMap-v0")
    with pytest.raises(ValueError, match="problem_ids: the model has not learned yet"):
        model.explain(env)
    given = model.explain(env, options={"problem_id": 5}, problem_ids=[2, 5])
    assert given.problem_ids == (2, 5) and given.problem_means.shape == (2, 16) and given.target_is_own
    other = model.explain(env, options={"problem_id": 6}, problem_ids=[2])
    assert other.target_id == 2 and not other.target_is_own and np.isnan(other.other_distances).all()
    with pytest.raises(ValueError, match="outside problem_space"):
        model.explain(env, problem_ids=[24])


def test_trained_problems_are_noted_and_saved(model: DREAM, tmp_path: Any) -> None:
    """A model is mostly explained after it was loaded, on other trials than it learned from."""
    model.save(tmp_path / "model")
    loaded = DREAM.load(tmp_path / "model", env=make_vec_env("MetaMap-v0", n_envs=4), device="cpu")
    np.testing.assert_array_equal(loaded.trained_problem_ids, np.arange(24))
    few = TrialEnv(gym.make("MetaMap-v0").unwrapped.env, [3, 1])  # type: ignore[attr-defined]
    fresh = DREAM("MlpPolicy", few, seed=0, device="cpu", buffer_size=2000)
    assert len(fresh.trained_problem_ids) == 0
    fresh.learn(10)
    fresh.learn(10, reset_num_timesteps=False)
    assert fresh.trained_problem_ids.tolist() == [1, 3]


class Told(gym.Env[Any, Any]):
    """Told its problem by a call; observes nothing of it."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode of three steps."""
        super().reset(seed=seed)
        self.left = 3
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        """One step."""
        self.left -= 1
        return np.zeros(1, np.float32), 0.0, self.left == 0, False, {}


def told(problems: list[Any], training: bool = True, problem_space: spaces.Space | None = None) -> TrialEnv:
    """Trials in these problems."""
    return TrialEnv(Told(), problems, lambda env, problem: None, training=training, problem_space=problem_space)


@pytest.mark.parametrize(
    ("trained", "tested", "is_own"),
    [
        ([[0, 1], [1, 0]], [[0, 0], [1, 1]], True),  # each entry has been trained
        ([[0, 1], [1, 0]], [[0, 2]], False),
        ([[0.0], [1.0]], [[0.5]], True),  # f is a function of the number
        (["here", "there"], ["elsewhere"], False),  # the place in another list
        (["here", "there"], ["here", "there"], False),  # who knows?
        ([0, 2], [2], True),
        ([0, 2], [1], False),
    ],
)
def test_what_f_knows_of_problems_of_each_kind(trained: list[Any], tested: list[Any], is_own: bool) -> None:
    """Wherever f has not learned the problem, no distance to it may be drawn; wherever it has, it must be."""
    space = {"0": spaces.Discrete(3), "[0, 1]": spaces.MultiDiscrete([3, 3])}.get(str(trained[0]))
    model = DREAM("MlpPolicy", told(trained, problem_space=space), seed=0, device="cpu", buffer_size=2000).learn(20)
    explained = model.explain(told(tested, training=False, problem_space=space), seed=0)
    assert explained.target_is_own == is_own
    if is_own:
        assert np.array_equal(explained.target_id, explained.problem_id)
    assert model.explain(told(trained, problem_space=space), seed=0).target_is_own


def test_a_normalised_model_sees_normalised_observations() -> None:
    """Otherwise a model trained on VecNormalize is shown acting on inputs that it never met."""
    venv = VecNormalize(make_vec_env("MetaMap-v0", n_envs=2, seed=0), norm_obs_keys=["previous_reward"], norm_reward=False)
    model = DREAM("MlpPolicy", venv, seed=0, learning_starts=10**9, buffer_size=2000, device="cpu").learn(400)
    assert not np.isclose(venv.obs_rms["previous_reward"].var, 1.0)
    env = gym.make("MetaMap-v0")
    explained = model.explain(env, seed=2)
    observation, _ = env.reset(seed=2)
    q_values, _, _ = model.policy.predict_q_values(venv.normalize_obs(observation))
    np.testing.assert_allclose(explained.q_values[0], q_values[0], rtol=1e-5)
    raw, _, _ = model.policy.predict_q_values(observation)
    assert not np.allclose(raw, q_values)


def test_explaining_leaves_training_as_it_is() -> None:
    """A picture now and then must not change the run that it is of."""
    parameters = []
    for explains in (True, False):
        model = collect("MetaBandit-v0", n_envs=2, n_steps=60)
        model.learning_starts = 0
        if explains:
            model.explain(gym.make("MetaBandit-v0"), seed=0)
        model.learn(300, reset_num_timesteps=False)
        parameters.append(th.nn.utils.parameters_to_vector(model.policy.parameters()))
    assert th.equal(*parameters)


@pytest.mark.parametrize("run", [lambda model, env: model.explain(env), play_trial])
def test_bad_environments(run: Callable[[DREAM, Any], Any], model: DREAM) -> None:
    """An error that names what is wrong, and not one from the depths of a network."""
    with pytest.raises(ValueError, match="env must be made of trials"):
        run(model, gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match=r"env must be a gymnasium\.Env, got DummyVecEnv"):
        run(model, make_vec_env("MetaMap-v0"))
    with pytest.raises(ValueError, match="cut off at its time limit"):
        run(model, gym.wrappers.TimeLimit(gym.make("MetaMap-v0"), 2))


def test_frames_come_if_the_environment_draws(model: DREAM) -> None:
    """No frames where nobody asked for them: drawing takes most of the time."""
    assert model.explain(gym.make("MetaMap-v0"), seed=0).frames == ()
    drawn = model.explain(gym.make("MetaMap-v0", render_mode="rgb_array"), seed=0)
    assert isinstance(drawn, TrialExplanation)
    assert len(drawn.frames) == len(drawn.distances) and drawn.frames[0].shape == (624, 480, 3)
    assert not np.array_equal(drawn.frames[-2], drawn.frames[-1]), "the last frame is of the end, not of the next trial"
    assert drawn.action_names[5] == "ride"
