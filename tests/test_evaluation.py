"""evaluate_problems: every problem once, whatever the model and however many environments; and SB3's evaluate_policy."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecExtractDictObs,
    VecFrameStack,
    VecMonitor,
    VecNormalize,
)

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


def staircase(
    n_envs: int, n_execution_episodes: int = 1, training: bool = False, family: type[Staircase] = Staircase
) -> tuple[VecEnv, list[Any]]:
    """Environments, and the list of the problems they are asked for."""
    asked: list[Any] = []

    def make() -> Trials:
        env = Trials(family(), list(range(7)), n_execution_episodes=n_execution_episodes, training=training)
        env.asked = asked
        return env

    return DummyVecEnv([make for _ in range(n_envs)]), asked


class FirstAction:
    """A model that sees whatever the wrappers make of the observations, and always takes action 0."""

    def predict(self, observation: Any, state: Any = None, episode_start: Any = None, deterministic: bool = False) -> Any:
        """Action 0."""
        return np.zeros(len(episode_start), dtype=int), None


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


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize(
    ("algorithm", "policy"),
    [(RecurrentPPO, "MultiInputLstmPolicy"), (PPO, "MultiInputPolicy"), (DQN, "MultiInputPolicy"), (DREAM, "MlpPolicy")],
)
def test_other_algorithms_are_evaluated_alike(algorithm: Any, policy: str, n_envs: int) -> None:
    """A paper's table needs the rivals in the same figures; and a model's policy does as well as the model."""
    env_kwargs = {"n_arms": 4}
    model = algorithm(policy, make_vec_env("MetaBandit-v0", env_kwargs=env_kwargs), seed=0, device="cpu")
    test_env = make_vec_env("MetaBandit-v0", n_envs=n_envs, env_kwargs={**env_kwargs, "split": "test"})
    results = evaluate_problems(model, test_env)
    assert results.execution_returns.shape == (4, 1)
    assert set(results.execution_returns.flat) <= {0.0, 1.0}
    assert results.exploration_lengths.tolist() == [1, 1, 1, 1]
    assert results.mean_optimal_return == 1.0
    assert results.share_of_optimal == pytest.approx((results.mean_return - 0.25) / 0.75)
    assert same(results, evaluate_problems(model.policy, test_env))


def test_actions_that_are_vectors() -> None:
    """Continuous control, with any algorithm that has it."""

    class Continuous(Staircase):
        action_space: Any = spaces.Box(-1.0, 1.0, (2,), np.float32)

    env = DummyVecEnv([lambda: TrialEnv(Continuous(), [0, 3], training=False)] * 3)
    results = evaluate_problems(PPO("MultiInputPolicy", env, n_steps=8, batch_size=24, device="cpu"), env)
    assert [actions.shape for actions in results.exploration_actions] == [(1, 2), (4, 2)]


def test_several_trials_of_each_problem() -> None:
    """Where instructions are drawn, one trial is not enough; and each problem must still weigh the same."""
    env, asked = staircase(4)
    env.seed(0)
    results = evaluate_problems(Clock(), env, problem_ids=[6, 1, 3], n_trials_per_problem=5)
    assert asked == [6] * 5 + [1] * 5 + [3] * 5 + [3]
    assert results.problem_ids.tolist() == [6] * 5 + [1] * 5 + [3] * 5
    assert (results.execution_returns[:, 0] // 10).tolist() == results.problem_ids.tolist()
    assert len(np.unique(results.execution_returns)) > 3
    assert [row["trials"] for row in results.per_problem()] == [5, 5, 5]


# ---- limits ------------------------------------------------------------------------------------------------------------


class Limited(Staircase):
    """A staircase that knows its limits."""

    n_instructions = 3

    def optimal_return(self, problem_id: int) -> float:
        """The mean over the instructions."""
        return 10.0 * problem_id + 1

    def no_exploration_return(self) -> float:
        """Whatever."""
        return 11.0


def test_results_know_the_limits() -> None:
    """The share of the optimum needs both; through Monitor and other wrappers, and for each trial's own problem."""
    env = make_vec_env(lambda: TrialEnv(Limited(), list(range(7)), n_execution_episodes=3), n_envs=2)
    results = evaluate_problems(Clock(), VecMonitor(env), [4, 2], instructions=[0, 1, 2], n_trials_per_problem=2)
    assert results.optimal_returns.tolist() == [41.0, 41.0, 21.0, 21.0]
    assert results.no_exploration_return == 11.0
    assert results.share_of_optimal == 1.0
    drawn = evaluate_problems(Clock(), env, [4, 2])
    assert drawn.optimal_returns.tolist() == [41.0, 21.0]


def test_no_limits_for_some_of_the_instructions() -> None:
    """The family's limits are means over its instructions. Of one recipe alone, the share would be wrong and look right."""
    env = TrialEnv(Limited(), [4, 2], n_execution_episodes=3)
    results = evaluate_problems(Clock(), env, instructions=[0, 1, 1])
    assert np.isnan(results.optimal_returns).all()
    assert np.isnan(results.no_exploration_return)


def test_a_family_without_limits() -> None:
    """Most users' families have none."""
    env, _ = staircase(2)
    results = evaluate_problems(Clock(), env)
    assert np.isnan(results.optimal_returns).all()
    assert np.isnan(results.share_of_optimal)
    assert "execution return" in str(results)


# ---- wrappers ----------------------------------------------------------------------------------------------------------


WRAPPERS: dict[str, Callable[[VecEnv], VecEnv]] = {
    "none": lambda env: env,
    "monitor": VecMonitor,
    "normalize": VecNormalize,
    "stack": lambda env: VecFrameStack(env, 4),
    "stack, normalized": lambda env: VecNormalize(VecFrameStack(env, 2)),
    "normalized, stack, monitor": lambda env: VecMonitor(VecFrameStack(VecNormalize(VecMonitor(env)), 3)),
    "extract": lambda env: VecExtractDictObs(env, "observation"),
}


@pytest.mark.parametrize("name", WRAPPERS)
def test_wrappers_do_not_change_the_results(name: str) -> None:
    """Which cells did it visit? Under VecNormalize cell 3 would be 0.87, and from stacked flags one read phases that were
    three steps old."""
    plain, _ = staircase(3, n_execution_episodes=2)
    expected = evaluate_problems(FirstAction(), plain, instructions=[2, 0])
    env = WRAPPERS[name](staircase(3, n_execution_episodes=2)[0])
    env.reset()
    for _ in range(50):  # normalisation has something to work with
        env.step(np.zeros(3, dtype=int))
    results = evaluate_problems(FirstAction(), env, instructions=[2, 0])
    assert same(results, expected)
    for observed, raw in zip(results.exploration_observations, expected.exploration_observations, strict=True):
        np.testing.assert_array_equal(observed, raw)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_leaves_normalisation_as_it_was(training: bool) -> None:
    """Statistics that learn from test problems make training depend on how often one evaluates."""
    env = VecNormalize(staircase(3)[0], training=training)
    env.reset()
    before = deepcopy((env.obs_rms, env.ret_rms))
    evaluate_problems(FirstAction(), env)
    for key, rms in before[0].items():
        assert env.obs_rms[key].count == rms.count
        np.testing.assert_array_equal(env.obs_rms[key].mean, rms.mean)
    assert env.ret_rms.count == before[1].count
    assert env.training is training


def test_environments_are_usable_afterwards() -> None:
    """Nothing of the evaluation stays: neither the problem that was asked for nor what watched the observations; not even if
    the evaluation failed."""

    class Broken(Staircase):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            observation, info = super().reset(seed=seed, options=options)
            if asked == [4]:
                raise RuntimeError("problem 4 is broken")
            return observation, info

    inner, asked = staircase(2, family=Broken)
    env = VecNormalize(VecMonitor(inner))
    wrappers = (env.venv, env.venv.venv)  # type: ignore[attr-defined]
    evaluate_problems(FirstAction(), env, [3])
    asked.clear()
    with pytest.raises(RuntimeError, match="problem 4 is broken"):
        evaluate_problems(FirstAction(), env, [4])
    with pytest.raises(ValueError, match="outside problem_space"):
        evaluate_problems(FirstAction(), env, [9])
    assert (env.venv, env.venv.venv) == wrappers  # type: ignore[attr-defined]
    assert env.training
    asked.clear()
    env.reset()
    for _ in range(100):
        env.step(np.zeros(2, dtype=int))
    assert asked == []
    assert env.obs_rms["observation"].mean[0] > 0.5


def test_subprocesses() -> None:
    """The family and its limits live in other processes."""
    env = SubprocVecEnv([lambda: TrialEnv(Limited(), [0, 2, 5], n_execution_episodes=3)] * 2, start_method="fork")
    try:
        with pytest.raises(ValueError, match="outside problem_space"):  # and the workers live on
            evaluate_problems(Clock(), env, [9])
        results = evaluate_problems(Clock(), env, instructions=[2, 1, 0])
    finally:
        env.close()
    assert results.execution_returns[:, 0].tolist() == [2.0, 22.0, 52.0]
    assert results.share_of_optimal == 1.0


def test_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """It counts the trials that are wanted, not those that fill up the last round; and there is none unless asked for."""
    env, _ = staircase(4)
    evaluate_problems(Clock(), env, progress_bar=True)
    assert "7/7" in capsys.readouterr().err
    evaluate_problems(Clock(), env)
    assert capsys.readouterr().err == ""


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


def test_an_environment_that_is_none() -> None:
    """An id is not enough, for it does not say how many side by side, or which split."""
    with pytest.raises(TypeError, match=r"env must be a gymnasium.Env or a VecEnv, got 'MetaMap-v0'"):
        evaluate_problems(Clock(), "MetaMap-v0")  # type: ignore[arg-type]


def test_an_environment_without_trials() -> None:
    """The family itself, or CartPole."""
    with pytest.raises(ValueError, match="env must be made of trials"):
        evaluate_problems(Clock(), make_vec_env("CartPole-v1"))


def test_different_families() -> None:
    """A mean over apples and pears. Some environments would be asked for problems that they do not have."""
    env = DummyVecEnv([lambda: TrialEnv(Staircase(), [0]), lambda: TrialEnv(Staircase(), [0], n_execution_episodes=2)])
    with pytest.raises(ValueError, match="one family, but n_execution_episodes is 1 here and 2 there"):
        evaluate_problems(Clock(), env)
    env = DummyVecEnv([lambda: TrialEnv(Staircase(), [0, 1]), lambda: TrialEnv(Staircase(), [2, 3])])
    with pytest.raises(ValueError, match=r"problem_ids is \[0, 1\] here and \[2, 3\] there"):
        evaluate_problems(Clock(), env)
    assert evaluate_problems(Clock(), env, [0, 3]).problem_ids.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        ([0, 1], "instructions needs one index for each of 3 execution episodes, got \\[0, 1\\]"),
        ([0, 1, 3], "instructions must be indices from 0 to 2, got \\[0, 1, 3\\]"),
        ([0, 1, -1], "instructions must be indices from 0 to 2, got \\[0, 1, -1\\]"),
    ],
)
def test_wrong_instructions(instructions: list[int], message: str) -> None:
    """Said before anything is run: in a subprocess it would be the end of the worker."""
    env = TrialEnv(Limited(), [0, 1], n_execution_episodes=3)
    with pytest.raises(ValueError, match=message):
        evaluate_problems(Clock(), env, instructions=instructions)


def test_instructions_for_a_family_that_does_not_read_them() -> None:
    """As before: in a subprocess it would be the end of the worker."""
    env = SubprocVecEnv([lambda: TrialEnv(Staircase(), [0, 1], set_problem=lambda env, problem: None)])
    with pytest.raises(ValueError, match="instructions can be given to a family that reads its problem in reset"):
        evaluate_problems(Clock(), env, instructions=[0])
    env.close()


def test_less_than_one_trial() -> None:
    """Nothing to evaluate."""
    env, _ = staircase(1)
    with pytest.raises(ValueError, match="n_trials_per_problem must be at least 1, got 0"):
        evaluate_problems(Clock(), env, n_trials_per_problem=0)


def test_a_time_limit_around_the_trial() -> None:
    """It cuts trials off, and returns would be missing. A KeyError would not say why."""
    env: Any = TimeLimit(TrialEnv(Staircase(), [3]), 3)
    with pytest.raises(ValueError, match="trial of problem 3 was cut off at its time limit, which belongs inside TrialEnv"):
        evaluate_problems(Clock(), env)
