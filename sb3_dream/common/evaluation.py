"""Evaluation over a whole split: every problem and every instruction equally often."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Env
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_dream.common.trial import TRIAL_KEYS


@dataclass(frozen=True)
class TrialResults:
    """What P trials of N execution episodes came to."""

    #: (P,) or (P, d)
    problem_ids: np.ndarray
    #: (P, N)
    execution_returns: np.ndarray
    #: (P, N)
    execution_lengths: np.ndarray
    #: (P,)
    exploration_lengths: np.ndarray
    #: for each trial the family's own observations in the exploration episode, the first and the last included: an array,
    #: or a dict of arrays if the family has other keys than ``observation``
    exploration_observations: list[Any]
    #: (P,): how often ``action`` was taken, for each action that was taken while exploring
    exploration_actions: list[np.ndarray]

    @property
    def mean_return(self) -> float:
        """Mean return of an execution episode."""
        return float(self.execution_returns.mean())

    @property
    def mean_exploration_length(self) -> float:
        """Mean number of steps of an exploration episode."""
        return float(self.exploration_lengths.mean())


def evaluate_problems(
    model: PolicyPredictor,
    env: VecEnv | Env,
    problem_ids: list[Any] | None = None,
    instructions: list[int] | None = None,
    deterministic: bool = True,
) -> TrialResults:
    """
    Run exactly one trial in each problem, as many side by side as ``env`` has environments. With ``instructions`` and as
    many execution episodes, every instruction comes up once in every problem, and the result has no sampling noise.

    The problem ID reaches the environment only: the model is given observations, as in ``evaluate_policy``.

    :param model: any SB3 model or policy
    :param env: trials, or a VecEnv of them
    :param problem_ids: one trial each; by default the environment's own
    :param instructions: index of the instruction of each execution episode; by default they are drawn
    :param deterministic: act greedily
    :return: the results, in the order of ``problem_ids``
    :raises ValueError: if ``problem_ids`` is empty
    """
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    if problem_ids is None:
        problem_ids = list(vec_env.get_attr("problem_ids")[0])
    if len(problem_ids) == 0:
        raise ValueError("problem_ids is empty: there is nothing to evaluate")
    results: list[dict[str, Any]] = []
    for begin in range(0, len(problem_ids), vec_env.num_envs):
        chunk = problem_ids[begin : begin + vec_env.num_envs]
        results += _run_trials(model, vec_env, chunk, instructions, deterministic)
    return TrialResults(
        problem_ids=np.array(problem_ids),
        execution_returns=np.stack([r["execution_returns"] for r in results]),
        execution_lengths=np.stack([r["execution_lengths"] for r in results]),
        exploration_lengths=np.array([r["exploration_length"] for r in results]),
        exploration_observations=[r["observations"] for r in results],
        exploration_actions=[r["actions"] for r in results],
    )


def _run_trials(
    model: PolicyPredictor, vec_env: VecEnv, chunk: list[Any], instructions: list[int] | None, deterministic: bool
) -> list[dict[str, Any]]:
    """One trial in each problem of the chunk; environments beyond it repeat the last problem and are not counted."""
    padded = [*chunk, *[chunk[-1]] * (vec_env.num_envs - len(chunk))]
    options: list[dict[str, Any]] = [{"problem_id": problem_id} for problem_id in padded]
    if instructions is not None:
        for option in options:
            option["instructions"] = instructions
    vec_env.set_options(options)
    observations: Any = vec_env.reset()
    state: tuple[np.ndarray, ...] | None = None
    starts = np.ones(vec_env.num_envs, dtype=bool)
    finished: list[dict[str, Any] | None] = [None] * vec_env.num_envs
    own = [key for key in observations if key not in TRIAL_KEYS]
    seen: list[dict[str, list[np.ndarray]]] = [{key: [] for key in own} for _ in padded]
    taken: list[list[int]] = [[] for _ in padded]
    while any(result is None for result in finished):
        actions, state = model.predict(observations, state=state, episode_start=starts, deterministic=deterministic)
        exploring = observations["exploring"][:, 0] > 0
        ended = observations["episode_end"][:, 0] > 0
        for env in np.flatnonzero(exploring):
            if finished[env] is None:
                for key in own:
                    seen[env][key].append(observations[key][env].copy())
                if not ended[env]:
                    taken[env].append(int(actions[env]))
        observations, _, starts, infos = vec_env.step(actions)
        for env in np.flatnonzero(starts):
            finished[env] = finished[env] or infos[env]
    explored = [{key: np.array(values) for key, values in each.items()} for each in seen]
    return [
        {
            **result,
            "observations": explored[env]["observation"] if own == ["observation"] else explored[env],
            "actions": np.array(taken[env]),
        }
        for env, result in enumerate(finished[: len(chunk)])
        if result is not None
    ]
