"""evaluate_problems: every problem once, whatever the model and however many environments; and SB3's evaluate_policy."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dream import DREAM, TrialEnv, TrialResults, evaluate_problems
from tests.conftest import collect


class Staircase(gym.Env[Any, Any]):
    """In problem p exploration takes p + 1 steps, and execution of instruction i pays 10 p + i in i + 1 steps."""

    problem_space = spaces.Discrete(7)
    observation_space: spaces.Space = spaces.Box(0.0, 20.0, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        assert options is not None
        self.problem, self.t = options["problem_id"], 0
        self.instruction = options.get("instruction", int(self.np_random.integers(3)))
        self.length = self.problem + 1 if options["exploring"] else self.instruction + 1
        return self._observe(), {}

    def _observe(self) -> Any:
        return np.array([self.problem, self.t], np.float32)

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step."""
        self.t += 1
        over = self.t == self.length
        return self._observe(), float(10 * self.problem + self.instruction) if over else 0.0, over, False, {}


class Trials(TrialEnv):
    """Counts the trials that were asked for."""

    asked: list[Any]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Note the problem that was asked for."""
        if options:
            self.asked.append(options["problem_id"])
        return super().reset(seed=seed, options=options)


def staircase(n_envs: int, n_execution_episodes: int = 1, training: bool = False) -> tuple[VecEnv, list[Any]]:
    """Environments, and the list of the problems they are asked for."""
    asked: list[Any] = []

    def make() -> Trials:
        env = Trials(Staircase(), list(range(7)), n_execution_episodes=n_execution_episodes, training=training)
        env.asked = asked
        return env

    return DummyVecEnv([make for _ in range(n_envs)]), asked


class Clock:
    """A recurrent 'model' whose action and state count the steps since the trial began. It checks how it is called."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """Count."""
        assert deterministic
        n_envs = len(episode_start)
        count = np.zeros(n_envs) if state is None else np.where(episode_start, 0, state[0] + 1)
        begins = (observation["exploring"][:, 0] == 1) & (observation["episode_start"][:, 0] == 1)
        np.testing.assert_array_equal(count == 0, begins)
        return (count % 2).astype(int), (count,)


@pytest.mark.parametrize("n_envs", [1, 3, 7, 10])
def test_every_problem_is_visited_once(n_envs: int) -> None:
    """A table row must weigh every problem equally, also where the number of environments does not divide theirs."""
    env, asked = staircase(n_envs, n_execution_episodes=2)
    for _ in range(2):  # per call: nothing is left over from the call before
        asked.clear()
        results = evaluate_problems(Clock(), env, instructions=[0, 2])
        n_padding = -7 % n_envs
        assert sorted(asked) == sorted([*range(7), *[6] * n_padding])
        assert results.problem_ids.tolist() == list(range(7))
        assert results.execution_returns.tolist() == [[10.0 * p, 10.0 * p + 2] for p in range(7)]
        assert results.execution_lengths.tolist() == [[1, 3]] * 7
        assert results.exploration_lengths.tolist() == [p + 1 for p in range(7)]
        assert results.mean_return == pytest.approx(31.0)
        assert results.mean_exploration_length == 4.0


@pytest.mark.parametrize("n_envs", [1, 4])
def test_results_come_in_the_order_asked_for(n_envs: int) -> None:
    """Rows that were swapped would blame one problem for another's failure. A problem may come twice."""
    env, _ = staircase(n_envs)
    results = evaluate_problems(Clock(), env, problem_ids=[5, 2, 5, 0, 6], instructions=[1])
    assert results.problem_ids.tolist() == [5, 2, 5, 0, 6]
    assert results.execution_returns[:, 0].tolist() == [51.0, 21.0, 51.0, 1.0, 61.0]
    assert results.exploration_lengths.tolist() == [6, 3, 6, 1, 7]


def test_what_was_explored_is_reported() -> None:
    """'Which buses did it ride?' is answered from these: the first and the last observation included, and nothing of the
    execution episodes or of the trial after."""
    env, _ = staircase(3)
    results = evaluate_problems(Clock(), env)
    for p in range(7):
        assert results.exploration_observations[p].tolist() == [[p, t] for t in range(p + 2)]
        assert results.exploration_actions[p].tolist() == [t % 2 for t in range(p + 1)]


def test_instructions_are_drawn_unless_given() -> None:
    """Without the option the evaluation samples, with it there is no noise."""
    env, _ = staircase(2, n_execution_episodes=3)
    env.seed(0)
    drawn = evaluate_problems(Clock(), env).execution_lengths - 1
    assert len(np.unique(drawn, axis=0)) > 3
    given = evaluate_problems(Clock(), env, instructions=[2, 1, 0]).execution_lengths - 1
    assert given.tolist() == [[2, 1, 0]] * 7


def test_a_single_environment_will_do() -> None:
    """Users hand over what they have."""
    env = TrialEnv(Staircase(), list(range(7)), training=False)
    assert evaluate_problems(Clock(), env, instructions=[0]).execution_returns[:, 0].tolist() == [10.0 * p for p in range(7)]


def test_a_dict_family_without_the_key_observation() -> None:
    """A family's Dict observation keeps its own keys; evaluation must not ask for one that it does not have."""

    class DictStaircase(Staircase):
        observation_space = spaces.Dict({"problem": spaces.Discrete(7), "t": spaces.Box(0.0, 20.0, (1,), np.float32)})

        def _observe(self) -> Any:
            return {"problem": self.problem, "t": np.array([self.t], np.float32)}

    env = TrialEnv(DictStaircase(), [0, 3], training=False)
    results = evaluate_problems(Clock(), env, instructions=[0])
    assert results.execution_returns[:, 0].tolist() == [0.0, 30.0]
    explored = results.exploration_observations[1]
    assert explored["problem"].tolist() == [3] * 5
    assert explored["t"][:, 0].tolist() == [0, 1, 2, 3, 4]


def same(first: TrialResults, second: TrialResults) -> bool:
    """Whether two evaluations saw the same trials."""
    return (
        np.array_equal(first.execution_returns, second.execution_returns)
        and np.array_equal(first.execution_lengths, second.execution_lengths)
        and all(
            np.array_equal(one, other)
            for one, other in zip(first.exploration_actions, second.exploration_actions, strict=True)
        )
    )


def test_the_number_of_environments_does_not_matter(model: DREAM) -> None:
    """A model trained on 16 environments is judged on 1 or on 24: same trials, same figures. A state that went to the wrong
    environment would show here."""
    results = [
        evaluate_problems(
            model,
            make_vec_env("MetaMap-v0", n_envs=n_envs, env_kwargs={"split": "test", "n_execution_episodes": 2}),
            instructions=[0, 3],
        )
        for n_envs in (1, 5, 24)
    ]
    assert len({len(actions) for actions in results[0].exploration_actions} | {results[0].execution_lengths.sum()}) > 1
    assert same(results[0], results[1])
    assert same(results[0], results[2])


def test_ids_in_info_do_not_matter(model: DREAM) -> None:
    """On a training environment the IDs are in info. The evaluation must not come out better for it."""
    results = [
        evaluate_problems(model, make_vec_env("MetaMap-v0", n_envs=6, env_kwargs={"training": training}), instructions=[2])
        for training in (True, False)
    ]
    assert same(*results)


@pytest.mark.parametrize(("algorithm", "policy"), [(RecurrentPPO, "MultiInputLstmPolicy"), (DQN, "MultiInputPolicy")])
def test_other_algorithms_are_evaluated_alike(algorithm: Any, policy: str) -> None:
    """A paper's table needs the rivals in the same figures."""
    env = make_vec_env("MetaBandit-v0", n_envs=1, seed=0, env_kwargs={"n_arms": 4})
    rival = algorithm(policy, env, seed=0, device="cpu")
    rival.exploration_rate = 0.0
    results = evaluate_problems(rival, make_vec_env("MetaBandit-v0", n_envs=2, env_kwargs={"n_arms": 4, "split": "test"}))
    assert results.execution_returns.shape == (4, 1)
    assert set(results.execution_returns.flat) <= {0.0, 1.0}
    assert results.exploration_lengths.tolist() == [1, 1, 1, 1]


def test_evaluate_policy_agrees_with_evaluate_problems() -> None:
    """SB3's own function (and so EvalCallback) runs DREAM as it runs RecurrentPPO, and its mean reward per episode is the
    execution return per trial."""
    model = collect("MetaBandit-v0", n_steps=60, env_kwargs={"n_arms": 5})
    env = make_vec_env("MetaBandit-v0", n_envs=4, seed=0, env_kwargs={"n_arms": 5, "split": "test", "n_execution_episodes": 2})
    rewards, lengths = evaluate_policy(model, env, n_eval_episodes=40, return_episode_rewards=True)
    assert isinstance(lengths, list)
    assert set(lengths) == {2 * 3 - 1}
    results = evaluate_problems(model, env)
    assert set(rewards) == set(results.execution_returns.sum(axis=1))  # type: ignore[arg-type]


def test_no_problems_is_an_error() -> None:
    """A mean over nothing is not a result."""
    env, _ = staircase(2)
    with pytest.raises(ValueError, match="problem_ids is empty"):
        evaluate_problems(Clock(), env, problem_ids=[])


def test_a_problem_that_the_family_does_not_have_is_an_error() -> None:
    """Evaluating on a problem outside of the space is a mistake in the user's list."""
    env, _ = staircase(2)
    with pytest.raises(ValueError, match="Problem 7 is outside problem_space"):
        evaluate_problems(Clock(), env, problem_ids=[6, 7])
