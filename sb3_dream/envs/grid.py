"""What every grid family shares: walking, the clock, resetting into a problem, and drawing."""

from collections.abc import Hashable
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_dream.envs import oracle
from sb3_dream.envs.drawing import Picture

LEFT, UP, RIGHT, DOWN, NO_OP, RIDE, END_EPISODE, PICK_UP, DROP = range(9)
NOTHING, BUS_STOP, BOWL, DRAWER = range(4)

MAX_STEPS = 20
STEP_REWARD = -0.1

Cell = tuple[int, int]


def walks(width: int, height: int) -> dict[Cell, tuple[Cell, Cell, Cell, Cell, Cell]]:
    """
    Where each of the actions 0..4 (left, up, right, down, no-op) leads from each cell.

    :param width: number of columns
    :param height: number of rows
    :return: for each cell the five next cells, clipped to the grid
    """
    return {
        (x, y): (
            (max(x - 1, 0), y),
            (x, min(y + 1, height - 1)),
            (min(x + 1, width - 1), y),
            (x, max(y - 1, 0)),
            (x, y),
        )
        for x in range(width)
        for y in range(height)
    }


def read_options(options: dict[str, Any] | None, n_problems: int, n_instructions: int) -> tuple[int | None, bool, int | None]:
    """
    Check what ``reset`` was told.

    :param options: the options given to ``reset``
    :param n_problems: number of problems of the family
    :param n_instructions: number of instructions of the family
    :return: ``problem_id`` or None, ``exploring``, ``instruction`` or None
    """
    options = dict(options or {})
    problem = options.pop("problem_id", None)
    exploring = bool(options.pop("exploring", False))
    instruction = options.pop("instruction", None)
    if options:
        raise ValueError(f"unknown reset options {sorted(options)}; known are problem_id, exploring and instruction")
    if exploring and instruction is not None:
        raise ValueError(f"an exploration episode has no instruction, yet instruction={instruction!r} was given")
    return _index("problem_id", problem, n_problems), exploring, _index("instruction", instruction, n_instructions)


def _index(name: str, value: Any, size: int) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < size:
        raise ValueError(f"{name} must be an integer in 0..{size - 1}, not {value!r}")
    return int(value)


class GridEnv(gym.Env[Any, Any]):
    """
    Base class of the grid families. A family states its rules as pure class methods, and both ``step`` and
    the exact oracle call those very methods, so that what is played and what is solved cannot differ.

    :param render_mode: ``"rgb_array"`` or None
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 4}  # noqa: RUF012

    #: What the family's subclass fills in.
    width: ClassVar[int]
    height: ClassVar[int]
    start: ClassVar[Hashable]
    n_actions: ClassVar[int]
    #: for pictures
    action_names: ClassVar[tuple[str, ...]]
    n_problems: ClassVar[int]
    n_instructions: ClassVar[int]
    instruction_size: ClassVar[int]
    observation_sizes: ClassVar[tuple[int, ...]]

    max_steps: ClassVar[int] = MAX_STEPS
    end_episode: ClassVar[int] = END_EPISODE

    def __init__(self, render_mode: str | None = None) -> None:
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or one of {self.metadata['render_modes']}, not {render_mode!r}")
        self.render_mode = render_mode
        self.problem_space = spaces.Discrete(self.n_problems)
        self.action_space = spaces.Discrete(self.n_actions)
        self.observation_space = spaces.Dict(
            {
                "observation": spaces.MultiDiscrete(list(self.observation_sizes), dtype=np.uint8),
                "instruction": spaces.Box(0.0, 1.0, (self.instruction_size,), np.float32),
            }
        )
        self.caption = ""
        #: arguments of ``observe`` that this instance was made with
        self.view: dict[str, Any] = {}
        self._problem: int | None = None
        self._instruction: int | None = None
        self._instruction_vector = np.zeros(self.instruction_size, np.float32)
        self._exploring = False
        self._state: Any = self.start
        self._steps_left = 0
        self._last_reward = 0.0
        self._return = 0.0

    @classmethod
    def problem_ids(cls, split: str) -> list[int]:
        """
        The problems of a split.

        :param split: ``"train"`` or ``"test"``
        :return: their IDs, in increasing order
        """
        raise NotImplementedError

    @classmethod
    def rules(cls, problem: int, instruction: int | None, state: Any, action: int) -> tuple[Any, float, bool]:
        """
        What one action does, the clock and ``END_EPISODE`` aside (they are the same in every family).

        :param problem: the problem ID
        :param instruction: index of the instruction; None while exploring, when there is no goal
        :param state: the family's own state, hashable
        :param action: any action but ``END_EPISODE``
        :return: the next state, the reward, and whether the goal ends the episode
        """
        raise NotImplementedError

    @classmethod
    def observe(cls, problem: int, state: Any) -> tuple[int, ...]:
        """
        What the agent sees of a state.

        :param problem: the problem ID
        :param state: the family's own state
        :return: the entries of the observation
        """
        raise NotImplementedError

    @classmethod
    def end_reward(cls, steps_left: int) -> float:
        """
        What ``END_EPISODE`` costs: its own step, and as much for every step that was left after it.

        :param steps_left: steps left, the one of the action itself included
        :return: the reward
        """
        return STEP_REWARD * steps_left

    @classmethod
    def simplify(cls, problem: int, instruction: int, state: Any) -> Any:
        """
        One state to stand for all that differ in nothing which can still matter; the oracle then has fewer to visit.

        :param problem: the problem ID
        :param instruction: index of the instruction
        :param state: the family's own state
        :return: a state from which every action sequence brings the same rewards and the same news
        """
        return state

    @classmethod
    def instruction_vector(cls, problem: int, instruction: int) -> tuple[int, ...]:
        """
        The instruction as the agent sees it.

        :param problem: the problem ID
        :param instruction: index of the instruction
        :return: the entries of the instruction vector, zeros and ones
        """
        raise NotImplementedError

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """
        Start an episode.

        :param seed: seed of the generator that draws problems and instructions
        :param options: ``problem_id`` (absent: the current problem stays; the first one is drawn), ``exploring``
            (default False) and ``instruction`` (its index; absent or None: drawn). An exploration episode has none
        :return: the first observation, and an empty info
        """
        super().reset(seed=seed)
        problem, exploring, instruction = read_options(options, self.n_problems, self.n_instructions)
        if problem is not None:
            self._problem = problem
        elif seed is not None or self._problem is None:
            # After a seed one number is always drawn, used or not, so that equal seeds leave equal generators.
            drawn = int(self.np_random.integers(self.n_problems))
            self._problem = drawn if self._problem is None else self._problem
        if exploring:
            self._instruction = None
            self._instruction_vector = np.zeros(self.instruction_size, np.float32)
        else:
            if instruction is None:
                instruction = int(self.np_random.integers(self.n_instructions))
            self._instruction = instruction
            self._instruction_vector = np.array(self.instruction_vector(self._problem, instruction), np.float32)
        self._exploring = exploring
        self._state = self.start
        self._steps_left = self.max_steps
        self._last_reward = self._return = 0.0
        return self._observation(), {}

    def step(self, action: int) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """
        Take one action.

        :param action: the action, an integer in ``action_space``
        :return: observation, reward, terminated, False (the step limit is a rule of the family), and an empty info
        """
        if not 0 <= action < self.n_actions or action != int(action):
            raise ValueError(f"action must be an integer in 0..{self.n_actions - 1}, not {action!r}")
        left = self._steps_left
        if not left or self._problem is None:
            raise ResetNeeded("the episode is over or was never started: call reset() before step()")
        if action == END_EPISODE:
            reward, terminated = self.end_reward(left), True
        else:
            self._state, reward, terminated = self.rules(self._problem, self._instruction, self._state, int(action))
            terminated = terminated or left == 1
        self._steps_left = 0 if terminated else left - 1
        self._last_reward = reward
        self._return += reward
        return self._observation(), reward, terminated, False, {}

    def _observation(self) -> dict[str, np.ndarray]:
        assert self._problem is not None
        return {
            "observation": np.array(self.observe(self._problem, self._state, **self.view), np.uint8),
            "instruction": self._instruction_vector.copy(),
        }

    def render(self) -> np.ndarray | None:
        """
        Draw what is going on, for people: all of it, what the agent cannot see included.

        :return: the frame (height, width, 3) as uint8, or None without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing unless the environment is made with render_mode='rgb_array'")
            return None
        if self._problem is None:
            raise ResetNeeded("there is nothing to draw yet: call reset() before render()")
        picture = Picture(self.width, self.height)
        task = f"problem {self._problem}     {self._draw(picture, self._problem)}"
        left, reward, total = self._steps_left, self._last_reward, self._return
        picture.panel(self._exploring, left, self.max_steps, self.caption, reward, total, task)
        return picture.array()

    def _draw(self, picture: Picture, problem: int) -> str:
        """
        Draw the cells and the agent.

        :param picture: the frame, its grid empty
        :param problem: the problem ID
        :return: the instruction, in words
        """
        raise NotImplementedError

    def optimal_return(self, problem_id: int) -> float:
        """
        The exact best return of one execution episode with the problem known, on average over the instructions.

        :param problem_id: the problem ID
        :return: the return, undiscounted
        """
        read_options({"problem_id": problem_id}, self.n_problems, self.n_instructions)
        family: Any = type(self)
        return oracle.optimal_return(family, int(problem_id))

    def no_exploration_return(self) -> float:
        """
        The exact best expected return of one execution episode for an agent that has not explored, on average over
        problems and instructions. It may learn during the episode itself.

        :return: the return, undiscounted
        """
        family: Any = type(self)
        return oracle.no_exploration_return(family, **self.view)
