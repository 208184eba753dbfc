"""The bandit family: one arm says which arm pays."""

from math import ceil, sqrt
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_dream.envs.drawing import FAINT, GOLD, INK, PAPER, Picture
from sb3_dream.envs.grid import read_options


class BanditEnv(gym.Env[Any, Any]):
    """
    ## Description
    The smallest family in which exploring and executing must be learned apart. The *problem* ID names the one of ``n_arms``
    arms that pays while executing. The last arm is informative: pulled while exploring, it shows the problem ID; the others
    show nothing. There are ``n_arms`` problems, and all are in both splits.

    ## Actions
    The arm to pull, 0..n_arms - 1.

    ## Observation
    ``Discrete(n_problems + 1)``: problem ID + 1 once the informative arm has been pulled in this exploration episode, else
    0. There is no instruction.

    ## Rewards
    While executing 1 for the arm that the problem names, else 0. While exploring always 0. The best return with the problem
    known is 1, and 1 / n_arms without.

    ## Termination
    After one step.

    ## Registered ids
    ``MetaBandit-v0``

    :param n_arms: number of arms, at least 2
    :param render_mode: ``"rgb_array"`` or None
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 2}  # noqa: RUF012
    n_instructions = 1

    def __init__(self, n_arms: int = 16, render_mode: str | None = None) -> None:
        if n_arms < 2:
            raise ValueError(f"n_arms must be at least 2 (one that pays, one that tells), not {n_arms}")
        if render_mode is not None and render_mode not in self.metadata["render_modes"]:
            raise ValueError(f"render_mode must be None or one of {self.metadata['render_modes']}, not {render_mode!r}")
        self.render_mode = render_mode
        self.n_arms = n_arms
        self.n_problems = n_arms
        self.informative_arm = n_arms - 1
        self.problem_space = spaces.Discrete(self.n_problems)
        self.action_space = spaces.Discrete(n_arms)
        self.observation_space = spaces.Discrete(self.n_problems + 1)
        self.caption = ""
        self._problem: int | None = None
        self._exploring = False
        self._over = True
        self._pulled: int | None = None
        self._reward = 0.0

    def problem_ids(self, split: str) -> list[int]:
        """
        The problems of a split: all of them in both. (How many there are depends on ``n_arms``, so an instance tells.)

        :param split: ``"train"`` or ``"test"``
        :return: their IDs, in increasing order
        """
        if split not in ("train", "test"):
            raise ValueError(f"split must be 'train' or 'test', not {split!r}")
        return list(range(self.n_problems))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """
        Start an episode.

        :param seed: seed of the generator that draws problems
        :param options: ``problem_id`` (absent: the current problem stays; the first one is drawn), ``exploring``
            (default False) and ``instruction`` (0, the only one)
        :return: the first observation, 0, and an empty info
        """
        super().reset(seed=seed)
        problem, self._exploring, _ = read_options(options, self.n_problems, self.n_instructions)
        if problem is not None:
            self._problem = problem
        elif seed is not None or self._problem is None:
            # After a seed one number is always drawn, used or not, so that equal seeds leave equal generators.
            drawn = int(self.np_random.integers(self.n_problems))
            self._problem = drawn if self._problem is None else self._problem
        self._over, self._pulled, self._reward = False, None, 0.0
        return 0, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        """
        Pull an arm.

        :param action: the arm
        :return: observation, reward, True, False, and an empty info
        """
        if not 0 <= action < self.n_arms or action != int(action):
            raise ValueError(f"action must be an integer in 0..{self.n_arms - 1}, not {action!r}")
        if self._over or self._problem is None:
            raise ResetNeeded("the episode is over or was never started: call reset() before step()")
        self._over, self._pulled = True, int(action)
        self._reward = float(not self._exploring and action == self._problem)
        told = self._exploring and action == self.informative_arm
        return self._problem + 1 if told else 0, self._reward, True, False, {}

    def render(self) -> np.ndarray | None:
        """
        Draw the arms, for people: which one pays, which one tells, and which one was pulled.

        :return: the frame (height, width, 3) as uint8, or None without a render mode
        """
        if self.render_mode is None:
            gym.logger.warn("render() draws nothing unless the environment is made with render_mode='rgb_array'")
            return None
        if self._problem is None:
            raise ResetNeeded("there is nothing to draw yet: call reset() before render()")
        columns = ceil(sqrt(self.n_arms))
        picture = Picture(columns, ceil(self.n_arms / columns), coordinates=False)
        for arm in range(self.n_arms):
            cell = (arm % columns, ceil(self.n_arms / columns) - 1 - arm // columns)
            colour = {self._problem: GOLD, self.informative_arm: "#9fd3f5"}.get(arm, PAPER)
            picture.square(cell, 0.86, INK if arm == self._pulled else FAINT)
            picture.square(cell, 0.76, colour, corner=0.12)
            picture.label(cell, str(arm), round(96 / columns), INK)
            roles = (arm == self._problem) * ["pays"] + (arm == self.informative_arm) * ["tells"]
            role = ", ".join(roles)
            picture.label(cell, role, round(60 / columns), INK, (0.0, -0.24))
            if arm == self._pulled:
                picture.agent(cell, 0.2, (0.26, 0.24))
        shown = self._exploring and self._pulled == self.informative_arm
        task = f"problem {self._problem}     {'shown to the agent' if shown else 'not shown to the agent'}"
        picture.panel(self._exploring, int(not self._over), 1, self.caption, self._reward, self._reward, task)
        picture.foot(
            ["yellow: the arm that pays     blue: the arm that tells, while exploring", "face: the arm that was pulled"]
        )
        return picture.array()

    def optimal_return(self, problem_id: int) -> float:
        """
        The exact best return of one execution episode with the problem known.

        :param problem_id: the problem ID
        :return: 1
        """
        read_options({"problem_id": problem_id}, self.n_problems, 1)
        return 1.0

    def no_exploration_return(self) -> float:
        """
        The exact best expected return of one execution episode with nothing known: one pull, which pays in one problem.

        :return: 1 / n_arms
        """
        return 1.0 / self.n_problems

    def describe_exploration(
        self, problem_ids: np.ndarray, observations: list[np.ndarray], actions: list[np.ndarray]
    ) -> dict[str, float]:
        """
        What was explored, in figures.

        :param problem_ids: (P,)
        :param observations: while exploring, of each of the P trials
        :param actions: of each of them
        :return: ``informative_pulls``, the share of trials that pulled the arm that tells
        """
        return {"informative_pulls": float(np.mean([self.informative_arm in taken for taken in actions]))}
