"""Families of random spaces, lengths and early ends that write down all they see and say, for the hypothesis tests."""

from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import strategies as st

from sb3_dream import TrialEnv

BOXES = (
    spaces.Box(-1.0, 1.0, (2,), np.float32),
    spaces.Box(-np.inf, np.inf, (1, 3), np.float64),
    spaces.Box(0, 255, (2, 2, 1), np.uint8),
)
FLAT_SPACES: tuple[spaces.Space, ...] = (
    *BOXES,
    spaces.Discrete(5),
    spaces.MultiDiscrete([3, 2, 4]),
    spaces.MultiDiscrete([2, 7], dtype=np.uint8),
    spaces.MultiBinary(3),
)


@dataclass
class Episode:
    """One inner episode as the family lived it."""

    options: dict[str, Any] | None
    observations: list[Any]
    actions: list[int] = field(default_factory=list)
    rewards: list[float] = field(default_factory=list)
    ended: bool = False


class RandomFamily(gym.Env[Any, Any]):
    """Random observations, rewards and ends, whatever the actions. ``log`` holds every episode."""

    def __init__(
        self, observation_space: spaces.Space, n_actions: int, problem_space: spaces.Space, max_length: int, seed: int
    ):
        self.observation_space = observation_space
        self.action_space = spaces.Discrete(n_actions)
        self.problem_space = problem_space
        self.max_length = max_length
        self.rng = np.random.default_rng(seed)
        self._drawn_from = deepcopy(observation_space)  # others draw from the space itself, e.g. SB3's NatureCNN
        self._drawn_from.seed(seed)
        self.log: list[Episode] = []
        self._left = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode of random length."""
        super().reset(seed=seed)
        self._left = int(self.rng.integers(1, self.max_length + 1))
        observation = self._drawn_from.sample()
        self.log.append(Episode(None if options is None else dict(options), [observation]))
        return observation, {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the end is a termination or a truncation."""
        assert self._left > 0, "the family was stepped past the end of its episode"
        self._left -= 1
        observation, reward = self._drawn_from.sample(), float(self.rng.normal())
        ended = self._left == 0
        terminated = ended and bool(self.rng.integers(2))
        episode = self.log[-1]
        episode.observations.append(observation)
        episode.actions.append(int(action))
        episode.rewards.append(reward)
        episode.ended = ended
        return observation, reward, terminated, ended and not terminated, {"family": len(self.log)}


@st.composite
def observation_spaces(draw: st.DrawFn) -> spaces.Space:
    """A flat space, or a Dict of one to three of them, with or without an instruction."""
    if draw(st.booleans()):
        return draw(st.sampled_from(FLAT_SPACES))
    keys = draw(st.lists(st.sampled_from(["observation", "a", "b"]), min_size=1, max_size=3, unique=True))
    own: dict[str, spaces.Space] = {key: draw(st.sampled_from(FLAT_SPACES)) for key in keys}
    if draw(st.booleans()):
        own["instruction"] = spaces.Box(-2.0, 2.0, (draw(st.integers(1, 3)),), np.float32)
    return spaces.Dict(own)


@st.composite
def problems(draw: st.DrawFn) -> tuple[spaces.Space, list[Any]]:
    """A problem space, and some of its problems."""
    space: spaces.Space = draw(
        st.sampled_from(
            [spaces.Discrete(1), spaces.Discrete(9), spaces.MultiDiscrete([3, 4]), spaces.Box(-1.0, 1.0, (2,), np.float32)]
        )
    )
    space.seed(draw(st.integers(0, 1000)))
    return space, [space.sample() for _ in range(draw(st.integers(1, 4)))]


@dataclass(frozen=True)
class FamilyPlan:
    """What a RandomFamily and its trials are made of."""

    observation_space: spaces.Space
    n_actions: int
    problem_space: spaces.Space
    problem_ids: list[Any]
    max_length: int
    n_execution_episodes: int
    seed: int
    n_exploration_episodes: int = 1

    def family(self, index: int = 0) -> RandomFamily:
        """A family of this plan; another index draws other observations, rewards and lengths."""
        return RandomFamily(self.observation_space, self.n_actions, self.problem_space, self.max_length, self.seed + index)

    def trials(self, index: int = 0, **kwargs: Any) -> TrialEnv:
        """Trials in it."""
        return TrialEnv(
            self.family(index),
            self.problem_ids,
            n_execution_episodes=self.n_execution_episodes,
            n_exploration_episodes=self.n_exploration_episodes,
            **kwargs,
        )


@st.composite
def family_plans(draw: st.DrawFn) -> FamilyPlan:
    """Any of them."""
    problem_space, problem_ids = draw(problems())
    return FamilyPlan(
        observation_space=draw(observation_spaces()),
        n_actions=draw(st.integers(1, 4)),
        problem_space=problem_space,
        problem_ids=problem_ids,
        max_length=draw(st.integers(1, 5)),
        n_execution_episodes=draw(st.integers(1, 3)),
        seed=draw(st.integers(0, 2**20)),
        n_exploration_episodes=draw(st.integers(1, 3)),
    )


def own_observations(space: spaces.Space, observation: Any) -> dict[str, np.ndarray]:
    """The family's observation as the keys of a trial's observation."""
    own = dict(observation) if isinstance(space, spaces.Dict) else {"observation": observation}
    return {key: np.asarray(value) for key, value in own.items()}
