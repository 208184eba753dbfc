"""What a model is worth on a split: every problem with every instruction, greedy, without a problem ID."""

from math import gcd
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecEnv

from sb3_dream import evaluate_problems

#: environments side by side in evaluation
_N_EVAL_ENVS = 131


class SplitEvaluation:
    """
    Evaluates a model on all problems of a split with every instruction, in trials of as many execution episodes as in
    training: what has a memory over the whole trial has seen no longer ones. Where a family starts at random, each problem and
    instruction comes as often as the family says.

    :param env_id: a registered id
    :param split: ``"train"`` or ``"test"``
    :param env_kwargs: arguments of the environment
    """

    def __init__(self, env_id: str, split: str, env_kwargs: dict[str, Any] | None = None):
        self.split = split
        self.family: Any = gym.make(env_id, split=split, **(env_kwargs or {})).unwrapped.env.unwrapped  # type: ignore[attr-defined]
        self.problem_ids = self.family.problem_ids(split)
        self.n_instructions = self.family.n_instructions
        self.n_execution_episodes = (env_kwargs or {}).get("n_execution_episodes", 1)
        self.n_trials_per_problem = getattr(self.family, "n_evaluation_trials", 1)
        self.env: VecEnv = make_vec_env(
            env_id,
            n_envs=min(len(self.problem_ids) * self.n_trials_per_problem, _N_EVAL_ENVS),
            seed=0,
            env_kwargs={**(env_kwargs or {}), "split": split, "training": False},
        )

    @property
    def optimum(self) -> float:
        """The best mean return with the problem known."""
        return sum(self.family.optimal_return(p) for p in self.problem_ids) / len(self.problem_ids)

    def __call__(self, model: Any) -> dict[str, float]:
        """
        :param model: to evaluate
        :return: the mean return, and what was explored, each key beginning with the split
        """
        results = []
        # no more trials than bring each instruction up equally often
        for first in range(0, self.n_instructions, gcd(self.n_instructions, self.n_execution_episodes)):
            instructions = [(first + place) % self.n_instructions for place in range(self.n_execution_episodes)]
            results.append(
                evaluate_problems(
                    model, self.env, self.problem_ids, instructions, n_trials_per_problem=self.n_trials_per_problem
                )
            )
        figures = {
            "return": float(np.mean([each.mean_return for each in results])),
            "exploration_length": float(np.mean([each.mean_exploration_length for each in results])),
            **self.family.describe_exploration(
                np.concatenate([each.problem_ids for each in results]),
                [observations for each in results for observations in each.exploration_observations],
                [actions for each in results for actions in each.exploration_actions],
            ),
        }
        return {f"{self.split}/{name}": value for name, value in figures.items()}
