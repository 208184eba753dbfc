"""The bandit family: one arm says which arm pays."""

from typing import Any

import gymnasium as gym
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from sb3_dream.envs.grid import read_options


class BanditEnv(gym.Env[int, int]):
    """
    ## Description
    The smallest family in which exploring and executing must be learned apart: no arm that is worth pulling while executing
    tells anything while exploring. Of ``n_arms`` arms the last is informative: pulled while exploring, it shows the *problem*
    ID, which names the one arm that pays while executing. There are ``n_arms - 1`` problems, one for each other arm, and all
    are in both splits.

    ## Actions
    The arm to pull, 0..n_arms - 1.

    ## Observation
    ``Discrete(n_problems + 1)``: problem ID + 1 once the informative arm has been pulled in this exploration episode, else
    0. There is no instruction.

    ## Rewards
    While executing 1 for the arm that the problem names, else 0. While exploring always 0. The best return with the problem
    known is 1, and 1 / (n_arms - 1) without.

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
        self.n_problems = n_arms - 1
        self.informative_arm = n_arms - 1
        self.problem_space = spaces.Discrete(self.n_problems)
        self.action_space = spaces.Discrete(n_arms)
        self.observation_space = spaces.Discrete(self.n_problems + 1)
        self.caption = ""
        self._problem: int | None = None
        self._exploring = False
        self._over = True

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
        self._over = False
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
        self._over = True
        told = self._exploring and action == self.informative_arm
        reward = float(not self._exploring and action == self._problem)
        return self._problem + 1 if told else 0, reward, True, False, {}

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

        :return: 1 / (n_arms - 1)
        """
        return 1.0 / self.n_problems
