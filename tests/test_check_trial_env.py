"""check_trial_env finds each mistake that a family can make, names it, and finds none where there is none."""

import re
from contextlib import nullcontext
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import FlattenObservation, TimeLimit
from stable_baselines3.common.monitor import Monitor

from sb3_dream import TrialEnv, check_trial_env
from sb3_dream.envs import FAMILIES
from tests.context_family import ContextCartPole

PROBLEMS = range(10, 16)


class Lights(gym.Env[Any, Any]):
    """
    A family without a mistake: the light of one of 8 buttons goes on when it is pressed, another in each problem. While
    executing, a goal says to press it or not to. Subclasses make one mistake each.
    """

    action_space = spaces.Discrete(8)
    observation_space: spaces.Space = spaces.Dict(
        {
            "light": spaces.Box(0.0, 1.0, (1,), np.float32),
            "noise": spaces.Box(0.0, 1.0, (1,), np.float32),
            "extra": spaces.Box(-100.0, 100.0, (6,), np.float32),
            "instruction": spaces.Box(-1.0, 1.0, (1,), np.float32),
        }
    )

    def extra(self) -> Any:
        """What else is shown: six numbers."""
        return np.zeros(6)

    def observe(self) -> dict[str, Any]:
        """All of it."""
        parts = {"light": self.light, "noise": self.np_random.random(), "extra": self.extra(), "instruction": self.goal}
        return {key: np.array(value, np.float32).reshape(-1) for key, value in parts.items()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        options = options or {}
        self.problem, self.exploring = options.get("problem_id", 10), options.get("exploring", True)
        self.goal = 0.0 if self.exploring else self.np_random.choice([-1.0, 1.0])
        self.light, self.t = 0.0, 0
        return self.observe(), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Press a button."""
        self.light, self.t = float(action == self.problem % 8), self.t + 1
        return self.observe(), self.goal * self.light, self.t == 20, False, {}


def trials(family: type[gym.Env], **kwargs: Any) -> TrialEnv:
    """Trials in it."""
    return TrialEnv(family(), PROBLEMS, **kwargs)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("n_exploration_episodes", "n_execution_episodes"), [(1, 1), (1, 3), (3, 1)])
def test_nothing_wrong(training: bool, n_exploration_episodes: int, n_execution_episodes: int) -> None:
    """An alarm where nothing is wrong, and nobody would look at the next one. Warnings are errors in these tests."""
    numbers = {"n_exploration_episodes": n_exploration_episodes, "n_execution_episodes": n_execution_episodes}
    env = trials(Lights, training=training, **numbers)
    for seed in range(5):
        check_trial_env(env, seed)
    assert isinstance(env.env, Lights)
    assert (env.n_exploration_episodes, env.n_execution_episodes) == (n_exploration_episodes, n_execution_episodes)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    check_trial_env(Monitor(env))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("env_id", sorted(FAMILIES))
def test_the_families_of_this_package(env_id: str, split: str) -> None:
    """They are the examples that others are written after."""
    # a random walk hardly ever gets to see the sign
    unseen = pytest.warns(UserWarning, match="3 problems gave the same") if env_id == "MetaSign-v0" else nullcontext()
    with unseen:
        check_trial_env(gym.make(env_id, split=split))


def test_an_episode_that_does_not_end() -> None:
    """The most likely mistake with a class that is not registered: no time limit, and exploration goes on for ever."""

    class Endless(Lights):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, reward, *_ = super().step(action)
            return observation, reward, False, False, {}

    with pytest.raises(ValueError, match=r"not ended after 10000 steps: put gymnasium\.wrappers\.TimeLimit"):
        check_trial_env(trials(Endless))
    check_trial_env(TrialEnv(TimeLimit(Endless(), 30), PROBLEMS))


def test_seeds_that_do_not_repeat() -> None:
    """A run could not be repeated."""

    class Unseeded(Lights):
        def extra(self) -> Any:
            return np.full(6, np.random.random())  # noqa: NPY002

    with pytest.raises(ValueError, match=r"seeds do not repeat.*the observation of step 0 differs"):
        check_trial_env(trials(Unseeded))


def test_rewards_that_do_not_repeat() -> None:
    """Randomness need not show in the observation."""

    class Unseeded(Lights):
        def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            observation, _, *rest = super().step(action)
            return observation, np.random.random(), *rest  # noqa: NPY002

    with pytest.raises(ValueError, match=r"seeds do not repeat.*the reward of step 1 differs"):
        check_trial_env(trials(Unseeded))


@pytest.mark.parametrize("told", ["options", "callable"])
def test_a_problem_that_changes_within_a_trial(told: str) -> None:
    """What was explored would not be what is executed. E.g. a family that draws a problem at each reset, as Meta-World's
    own wrapper does."""

    class Restless(Lights):
        n_resets = 0

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            result = super().reset(seed=seed, options=options)
            self.n_resets += 1
            self.problem += self.n_resets % 3
            return result

    env = trials(Restless, set_problem=(lambda env, problem: None) if told == "callable" else None)
    with pytest.raises(ValueError, match="the problem changes within a trial") as error:
        check_trial_env(env)
    assert "seeds do not repeat" not in str(error.value)


def test_a_problem_that_changes_from_one_exploration_episode_to_the_next() -> None:
    """The second would find out about another problem than the first. With one there is nothing to be found."""

    class Restless(Lights):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            result = super().reset(seed=seed, options=options)
            self.n_explored = getattr(self, "n_explored", 0) + self.exploring
            self.problem += self.exploring * (self.n_explored % 2)
            return result

    with pytest.raises(ValueError, match="the problem changes within a trial"):
        check_trial_env(trials(Restless, n_exploration_episodes=3))


def test_a_problem_that_is_told_once_and_lost_at_reset() -> None:
    """set_problem is called once for each trial. A family whose reset goes back to the first problem forgets it."""

    class Forgetful(Lights):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            wanted, self.wanted = getattr(self, "wanted", 10), 10
            return super().reset(seed=seed, options={"problem_id": wanted})

    def set_problem(env: Any, problem: int) -> None:
        env.unwrapped.wanted = problem

    with pytest.raises(ValueError, match="the problem changes within a trial"):
        check_trial_env(trials(Forgetful, set_problem=set_problem))


@pytest.mark.parametrize(
    "extra",
    [
        lambda self: [0, 0, self.problem, 0, 0, 0],
        lambda self: [0, 0, self.problem / 24 - 0.5, 0, 0, 0],
        lambda self: [0, 0, 0 if self.exploring else self.problem, 0, 0, 0],
        lambda self: [0, 0, self.problem if self.exploring else 0, 0, 0, 0],
    ],
)
def test_the_problem_id_shows(extra: Any) -> None:
    """An agent that can read it off has nothing to explore, and its return at test time means nothing."""

    class Leak(Lights):
        pass

    Leak.extra = extra  # type: ignore[method-assign]
    message = "the problem ID shows in the observation while (exploring|executing): number 2 of 'extra' goes with it"
    with pytest.raises(ValueError, match=message):
        check_trial_env(trials(Leak))


def test_the_one_hot_of_the_problem_id_shows() -> None:
    """The other way to write a label."""

    class Leak(Lights):
        def extra(self) -> Any:
            return np.arange(6) == self.problem

    with pytest.raises(ValueError, match="the problem ID shows in the observation while exploring: number 0 of 'extra'"):
        check_trial_env(TrialEnv(Leak(), range(6)))
    check_trial_env(TrialEnv(Lights(), range(6)))


def test_another_start_in_each_problem_is_no_leak() -> None:
    """What is seen and passes is what exploring is for."""

    class Start(Lights):
        def extra(self) -> Any:
            return [0, 0, self.problem if self.t == 0 else 0, 0, 0, 0]

    check_trial_env(trials(Start))


def test_a_number_of_a_vector_shows() -> None:
    """A goal's coordinates are the problem as much as an index is."""

    class Leak(Lights):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            self.goals = (options or {"problem_id": (0, 0)})["problem_id"]
            return super().reset(seed=seed)

        def extra(self) -> Any:
            return [0, 0, 0, 0, 0, self.goals[1]]

    problems = [[0.5, 0.1], [0.2, 0.9], [0.7, -0.4], [0.1, 0.3]]
    with pytest.raises(ValueError, match=r"number 1 of the problem ID shows.*number 5 of 'extra'") as error:
        check_trial_env(TrialEnv(Leak(), problems))
    assert "number 0 of the problem ID" not in str(error.value)


def test_a_context_that_shows() -> None:
    """A wrapper that mixes the context into the observation puts it out of TrialEnv's reach."""
    contexts = [{"gravity": gravity} for gravity in (3.0, 5.0, 9.0, 14.0)]
    check_trial_env(TrialEnv(ContextCartPole(), contexts))
    with pytest.raises(ValueError, match="'gravity' of the problem shows in the observation"):
        check_trial_env(TrialEnv(FlattenObservation(Numbers(ContextCartPole())), contexts))


class Numbers(gym.ObservationWrapper[Any, Any, Any]):
    """A context of numbers as arrays, which is what its space says."""

    def observation(self, observation: Any) -> Any:
        """In arrays."""
        context = {name: np.array([value], np.float32) for name, value in observation["context"].items()}
        return {**observation, "context": context}


def test_an_instruction_that_shows_while_exploring() -> None:
    """Exploration could serve one goal. The key ``instruction`` is zeros then, but the goal may show in another one too."""

    class Leak(Lights):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            self.drawn = 0.0
            _, info = super().reset(seed=seed, options=options)
            self.drawn = self.goal or self.np_random.choice([-1.0, 1.0])
            return self.observe(), info

        def extra(self) -> Any:
            return [0, self.drawn, 0, 0, 0, 0]

    with pytest.raises(ValueError, match=r"the instruction shows in the observation while exploring: number 1 of 'extra'"):
        check_trial_env(trials(Leak))


def test_an_instruction_that_shows_while_executing_only() -> None:
    """That is no leak."""

    class Fine(Lights):
        def extra(self) -> Any:
            return [0, self.goal, 0, 0, 0, 0]

    check_trial_env(trials(Fine))


def test_a_goal_while_exploring() -> None:
    """It is not shown, but the reward depends on it, and the next observation has the reward."""

    class Goal(Lights):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            return super().reset(seed=seed, options={**(options or {}), "exploring": False})

    with pytest.warns(UserWarning, match="has an instruction while exploring"):
        check_trial_env(trials(Goal))


@pytest.mark.parametrize("way", ["options", "kwargs"])
def test_problems_that_do_not_differ(way: str) -> None:
    """E.g. options that the family does not read, or an attribute that it does not have."""
    env = gym.make("CartPole-v1", max_episode_steps=30)
    problems: Any = range(3) if way == "options" else [{"sutton_barto_reward": False}, {}]
    message = f"{len(problems)} problems gave the same observations and rewards.*set_problem={way!r}"
    with pytest.warns(UserWarning, match=message):
        check_trial_env(TrialEnv(env, problems, set_problem=way))


def test_everything_that_is_wrong_is_said_at_once() -> None:
    """Mending one thing only to hear of the next is a nuisance."""

    class Bad(Lights):
        def extra(self) -> Any:
            return [self.problem, np.random.random(), 0, 0, 0, 0]  # noqa: NPY002

    with pytest.raises(ValueError, match="These trials are not right") as error:
        check_trial_env(trials(Bad))
    assert len(re.findall(r"^- ", str(error.value), re.MULTILINE)) == 3
    assert "(Or it is the seeds, see above.)" in str(error.value)


@pytest.mark.parametrize("env", [Lights(), "MetaMap-v0"])
def test_the_environment_must_be_a_trial(env: Any) -> None:
    """The family itself, or an id, given by mistake."""
    with pytest.raises(TypeError, match="checks a TrialEnv, got"):
        check_trial_env(env)


def test_a_time_limit_around_the_trial() -> None:
    """It would cut trials in the middle of an episode; people put it there, as gym.make does."""
    with pytest.raises(ValueError, match=r"TimeLimit is around the trial.* around the family"):
        check_trial_env(Monitor(TimeLimit(trials(Lights), 10)))


def test_a_mistake_in_the_family_is_shown_as_it_is() -> None:
    """SB3's check says of any TypeError in reset that it must accept a seed: the user would look in the wrong place."""

    class Family(Lights):
        def observe(self) -> dict[str, Any]:
            return {"light": len(3)}  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="object of type 'int' has no len"):
        check_trial_env(trials(Family))


def test_observations_without_bounds() -> None:
    """An infinite number is not what goes with the ID, and no reason to stumble."""

    class Infinite(Lights):
        observation_space = spaces.Dict({**Lights.observation_space, "extra": spaces.Box(-np.inf, np.inf, (6,), np.float32)})  # type: ignore[dict-item]

        def extra(self) -> Any:
            return [np.inf, -np.inf, 0, 0, 0, 0]

    with pytest.warns(UserWarning, match="found inf"):  # SB3's check, which comes first
        check_trial_env(trials(Infinite))


def test_an_observation_outside_its_space() -> None:
    """SB3's check comes first."""

    class Outside(Lights):
        def extra(self) -> Any:
            return np.full(6, 1000.0)

    with pytest.raises(AssertionError, match="extra"):
        check_trial_env(trials(Outside))
