"""How a family is told its problem: each way reaches it in every inner episode, is found by itself, and can be chosen."""

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit, TransformReward

from sb3_dream import TrialEnv
from tests.context_family import ContextCartPole


class Family(gym.Env[Any, Any]):
    """Shows its problem, a random number from its generator, and how often it was told or made. It never ends by itself."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)
    made = closed = 0

    def __init__(self, **kwargs: Any):
        self.problem = kwargs.get("problem")
        self.told: list[Any] = []
        self.resets: list[tuple[int | None, Any]] = []
        Family.made += 1

    def tell(self, problem: Any) -> None:
        """Be another problem."""
        self.problem = problem
        self.told.append(problem)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        self.resets.append((seed, None if options is None else dict(options)))
        self.number = self.np_random.random()
        return np.array([-1.0, self.number]), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Show the problem, if it is a number."""
        shown = self.problem if isinstance(self.problem, int | float) else -1.0
        return np.array([shown, self.number]), 1.0, False, False, {}

    def close(self) -> None:
        """Count it."""
        Family.closed += 1


class WithSetTask(Family):
    """As Meta-World and learn2learn have it."""

    def set_task(self, task: Any) -> None:
        """Be that task."""
        self.tell(task)


class WithResetTask(Family):
    """As VariBAD has it."""

    def reset_task(self, task: Any) -> None:
        """Be that task."""
        self.tell(task)


class WithBoth(WithSetTask, WithResetTask):
    """As some of VariBAD's have it."""


class WithOptions(Family):
    """As this package has it."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Be the problem in the options."""
        assert options is not None
        self.tell(options["problem_id"])
        return super().reset(seed=seed, options=options)


def times(factor: float, env: gym.Env) -> gym.Env:
    """The environment with other rewards."""
    return TransformReward(env, lambda reward: factor * float(reward))


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    gym.register("Family-v0", entry_point=Family, max_episode_steps=3)
    gym.register("Wrapped-v0", entry_point=lambda **kwargs: times(2.0, Family(**kwargs)))
    Family.made = Family.closed = 0
    yield
    del gym.registry["Family-v0"], gym.registry["Wrapped-v0"]


def play(env: TrialEnv, **reset: Any) -> list[tuple[Any, float, dict]]:
    """One trial: (observation, reward, info) of the reset and of every step."""
    observation, info = env.reset(**reset)
    steps, over = [(observation, 0.0, info)], False
    while not over:
        observation, reward, over, _, info = env.step(0)
        steps.append((observation, float(reward), info))
    return steps


def shown(steps: list[tuple[Any, float, dict]], place: int = 0) -> list[float]:
    """What a Family showed in each inner episode's last observation."""
    return [observation["observation"][place] for observation, *_ in steps if observation["episode_end"][0] > 0]


# ---- finding the way ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "problems", "way"),
    [
        (WithSetTask, [0, 1], "set_task"),
        (WithResetTask, [0, 1], "reset_task"),
        (WithBoth, [0, 1], "set_task"),
        (lambda: TimeLimit(WithSetTask(), 3), [{"problem": 1}], "set_task"),
        (ContextCartPole, [{"gravity": 5.0}], "context"),
        (lambda: gym.make("Family-v0"), [{"problem": 1}], "kwargs"),
        (lambda: gym.make("Family-v0"), [0, 1], "options"),
        (Family, [{"problem": 1}], "options"),
        (WithOptions, [0, 1], "options"),
    ],
)
def test_the_way_is_found(make: Callable[[], gym.Env], problems: list[Any], way: str) -> None:
    """The one line of a user is TrialEnv(env, problems), and what it does must be the documented order."""
    assert TrialEnv(make(), problems).set_problem == way


def test_the_way_can_be_chosen() -> None:
    """What is found may not be what is meant, e.g. where a family has both methods."""
    family = WithBoth()
    env = TrialEnv(TimeLimit(family, 2), [5], set_problem="options")
    play(env)
    assert family.told == []
    assert family.resets[0][1] == {"problem_id": 5, "exploring": True}
    assert TrialEnv(WithBoth(), [0], set_problem="reset_task").set_problem == "reset_task"


@pytest.mark.parametrize(
    ("make", "problems", "way", "message"),
    [
        (Family, [0], "sed_task", "set_problem must be None, a callable .* or one of .*'seed'.*, got 'sed_task'"),
        (Family, [0], "set_task", "calls set_task.*no such method"),
        (WithSetTask, [0], "reset_task", "calls reset_task.*no such method"),
        (Family, [0], "context", "needs CARL's contexts and context_selector"),
        (ContextCartPole, ["moon"], "context", r"dicts or keys of contexts \[0\], got 'moon'"),
        (Family, [{"problem": 1}], "kwargs", "needs an environment that gymnasium.make has made"),
        (lambda: gym.make("Family-v0"), [1], "kwargs", "must be dicts of arguments, got 1"),
        (Family, [0.5], "seed", "must be integers from 0, got 0.5"),
        (Family, [-1], "seed", "must be integers from 0, got -1"),
        (Family, [True], "seed", "must be integers from 0, got True"),
        (Family, [{"seed": 1}], "seed", "must be integers from 0, got {'seed': 1}"),
    ],
)
def test_a_way_that_does_not_fit(make: Callable[[], gym.Env], problems: list[Any], way: str, message: str) -> None:
    """At once and by name, not as an AttributeError in the first trial."""
    with pytest.raises(ValueError, match=message):
        TrialEnv(make(), problems, set_problem=way)


@pytest.mark.parametrize("way", [None, "seed", "set_task"])
def test_instructions_need_options(way: str | None) -> None:
    """The other ways cannot pass them on: they would be dropped without a word."""
    with pytest.raises(ValueError, match="instructions"):
        TrialEnv(WithSetTask(), [0], set_problem=way).reset(options={"instructions": [0]})


# ---- telling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [WithSetTask, WithResetTask])
def test_a_task_is_set_once_and_holds(make: type[Family]) -> None:
    """Setting it anew for each episode could undo what the family keeps between them."""
    family = make()
    env = TrialEnv(TimeLimit(family, 3), [4, 7], n_execution_episodes=2)
    for seed in range(6):
        family.told = []
        steps = play(env, seed=seed)
        assert family.told == [steps[0][2]["problem_id"]]
        assert shown(steps) == family.told * 3
    assert [options for _, options in family.resets] == [None] * 18


def test_the_seed_is_the_problem() -> None:
    """Every inner episode must be in the world that this seed makes; the trial's own seed must not reach the family."""
    family = Family()
    env = TrialEnv(TimeLimit(family, 2), [3, 8], set_problem="seed", n_execution_episodes=2)
    worlds: dict[int, set[float]] = {3: set(), 8: set()}
    for seed in [0, 0, None, None, None, None]:
        steps = play(env, seed=seed)
        worlds[steps[0][2]["problem_id"]].update(shown(steps, 1))
    assert [len(world) for world in worlds.values()] == [1, 1]
    assert worlds[3] != worlds[8]
    assert {seed for seed, _ in family.resets} == {3, 8}
    assert {options for _, options in family.resets} == {None}


def test_arguments_of_the_constructor() -> None:
    """gymnasium.make(id, **problem): the environment is made anew for a new problem only, the old one is closed, and the
    wrappers around it stay."""
    env = TrialEnv(times(10.0, gym.make("Family-v0")), [{"problem": 4}, {"problem": 7}])
    for place, value in [(0, 4), (0, 4), (1, 7), (0, 4)]:
        steps = play(env, options={"problem_id": place})
        assert steps[0][2]["problem_id"] == place
        assert shown(steps) == [value, value]
        assert steps[-1][2]["execution_returns"] == [30.0], "TimeLimit of 3 steps, 10 each"
    assert Family.made == 1 + 3
    assert Family.closed == 3


def test_arguments_of_a_constructor_that_wraps() -> None:
    """What the id stands for may itself be wrapped: all of it is made anew, once."""
    env = TrialEnv(TimeLimit(gym.make("Wrapped-v0"), 3), [{"problem": 4}, {"problem": 7}])
    for place, value in [(0, 4), (1, 7)]:
        steps = play(env, options={"problem_id": place})
        assert shown(steps) == [value, value]
        assert steps[-1][2]["execution_returns"] == [6.0]


def test_an_environment_made_anew_is_seeded() -> None:
    """A new environment has a fresh generator: without a seed of the trial's, runs would not repeat."""

    def numbers() -> list[float]:
        env = TrialEnv(gym.make("Family-v0"), [{"problem": 4}, {"problem": 7}])
        return [number for seed in (5, None, None) for number in shown(play(env, seed=seed), 1)]

    assert numbers() == numbers()
    assert len(set(numbers())) == 6


def test_arguments_that_change_the_spaces() -> None:
    """Networks have the spaces of the first problem."""

    class Resized(Family):
        def __init__(self, **kwargs: int):
            super().__init__()
            self.observation_space = spaces.Box(-1.0, 1.0, (kwargs.get("size", 2),), np.float64)

    gym.register("Resized-v0", entry_point=Resized)
    try:
        env = TrialEnv(gym.make("Resized-v0"), [{"size": 3}])
        with pytest.raises(ValueError, match=r"Problem {'size': 3} changes the spaces of Resized-v0"):
            env.reset()
    finally:
        del gym.registry["Resized-v0"]


def test_contexts() -> None:
    """CARL goes on to another context at each reset, and shows it. Neither may happen in a trial; what a context leaves out
    is the default again."""
    family = ContextCartPole({"moon": {"gravity": 1.6}, "long": {"length": 2.0}})
    env = TrialEnv(family, ["moon", "long"], n_execution_episodes=2)
    assert env.observation_space["observation"] == gym.make("CartPole-v1").observation_space  # type: ignore[index]
    wanted = {0: (1.6, 0.5), 1: (9.8, 2.0)}
    for place in [0, 1, 1, 0]:
        observation, _ = env.reset(options={"problem_id": place})
        over = False
        while not over:
            assert (family.unwrapped.gravity, family.unwrapped.length) == wanted[place]  # type: ignore[attr-defined]
            assert env.observation_space.contains(observation)
            assert "context" not in observation
            observation, _, over, _, _ = env.step(0)


def test_contexts_given_as_dicts() -> None:
    """The family need not know the contexts beforehand: train and test are two lists."""
    family = ContextCartPole()
    env = TrialEnv(family, [{"gravity": 3.0}, {"length": 2.0}])
    physics: Any = family.unwrapped
    for place, wanted in [(0, (3.0, 0.5)), (1, (9.8, 2.0)), (0, (3.0, 0.5))]:
        env.reset(options={"problem_id": place})
        assert (physics.gravity, physics.length) == wanted


def test_the_other_keys_of_a_context_family_stay() -> None:
    """Only the context is taken out."""

    class Two(ContextCartPole):
        def __init__(self) -> None:
            super().__init__()
            space: Any = self.observation_space
            self.observation_space = spaces.Dict({**space.spaces, "x": spaces.Box(0.0, 1.0, (1,), np.float32)})

        def _observe(self, observation: Any) -> dict[str, Any]:
            return {**super()._observe(observation), "x": np.zeros(1, np.float32)}

    env = TrialEnv(Two(), [{"gravity": 3.0}])
    assert {"obs", "x"} < set(env.observation_space.spaces)  # type: ignore[attr-defined]
    assert "context" not in env.observation_space.spaces  # type: ignore[attr-defined]
    assert env.observation_space.contains(env.reset()[0])


# ---- options that nobody reads -----------------------------------------------------------------------------------------


def test_a_family_that_ignores_the_options() -> None:
    """All problems would be one and the same, and training would go on for hours: say so in the first reset, and what to
    do."""

    class Deaf(Family):
        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            return super().reset(seed=seed, options={"low": (options or {}).get("low")})

    with pytest.raises(ValueError, match=r"did not look at options\['problem_id'\].*set_problem='seed'.*callable"):
        TrialEnv(Deaf(), [0, 1]).reset()
    with pytest.raises(ValueError, match="CartPole"):
        TrialEnv(gym.make("CartPole-v1"), [0, 1]).reset()
    assert TrialEnv(Deaf(), [0, 1], set_problem="options").reset()[0]["exploring"] == [1.0], "whoever says so is believed"


@pytest.mark.parametrize(
    "read",
    [
        lambda options: options["problem_id"],
        lambda options: options.get("problem_id"),
        lambda options: options.pop("problem_id"),
        lambda options: "problem_id" in options,
        dict,
        lambda options: {**options},
        lambda options: dict(**options),
        lambda options: options | {},
        lambda options: options.copy(),
        lambda options: list(options.items()),
        list,
        copy.copy,
        copy.deepcopy,
        pickle.dumps,
    ],
)
def test_every_way_to_read_options_counts(read: Callable[[dict[str, Any]], Any]) -> None:
    """A family that was told must not be accused of not listening."""

    class Reader(gym.Env[Any, Any]):
        observation_space = action_space = spaces.Discrete(2)

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
            read(options or {})
            return 0, {}

    TrialEnv(Reader(), [0, 1]).reset()


# ---- what problems are called ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "problems",
    [
        ["red", "blue"],
        [{"gravity": 1.0}, {"gravity": 2.0, "wind": None}],
        [("reach", b"data"), ("reach", b"other")],
        [-1, 1],
        [False, True],
        [None, 3],
        [[0, 1], [2]],
        [np.zeros((2, 2)), np.ones((2, 2))],
        [object(), object()],
    ],
)
def test_problems_that_are_no_numbers_go_by_their_place(problems: list[Any]) -> None:
    """Names, dicts and tasks: the networks are given a number, and the family the thing itself."""
    family = WithSetTask()
    env = TrialEnv(TimeLimit(family, 2), problems)
    assert env.problem_space == spaces.Discrete(2)
    assert env.problem_ids == [0, 1]
    for place in [1, 0]:
        assert env.reset(options={"problem_id": place})[1]["problem_id"] == place
        assert family.problem is problems[place]
    drawn = {env.reset(seed=seed)[1]["problem_id"]: family.problem for seed in range(20)}
    assert {place: id(problem) for place, problem in drawn.items()} == {0: id(problems[0]), 1: id(problems[1])}
    with pytest.raises(ValueError, match="outside problem_space"):
        env.reset(options={"problem_id": 2})


@pytest.mark.parametrize(
    ("problems", "space"),
    [
        ([0, 4, 2], spaces.Discrete(5)),
        (range(3), spaces.Discrete(3)),
        (np.arange(3), spaces.Discrete(3)),
        ([0.5, 0.25], spaces.Box(0.25, 0.5, (1,), np.float32)),
        (np.array([[0.5, 1.0], [0.25, 1.5]]), spaces.Box(np.array([0.25, 1.0], np.float32), np.array([0.5, 1.5], np.float32))),
        ([(0, 1), (2, 0)], spaces.MultiDiscrete([3, 2])),
    ],
)
def test_the_family_is_given_the_problem_as_it_was_listed(problems: Any, space: spaces.Space) -> None:
    """A gravity of 9.81 must reach the simulator as the number that it is, not as an array with one entry."""
    family = WithSetTask()
    env = TrialEnv(TimeLimit(family, 2), problems)
    assert env.problem_space == space
    for problem_id, problem in zip(env.problem_ids, problems, strict=True):
        assert env.problem_space.contains(problem_id)
        seen = env.reset(options={"problem_id": problem_id})[1]["problem_id"]
        assert np.array_equal(seen, problem_id)
        assert type(family.problem) is type(problem)
        assert np.array_equal(np.asarray(family.problem), np.asarray(problem))
    env.reset()
    assert type(family.problem) is type(next(iter(problems)))


def test_a_problem_that_was_not_listed() -> None:
    """Evaluation may try one more: it is given as it is."""
    family = WithSetTask()
    env = TrialEnv(TimeLimit(family, 2), [0.0, 1.0])
    env.reset(options={"problem_id": 0.3})
    assert family.problem == 0.3
