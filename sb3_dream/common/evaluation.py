"""Evaluation over a whole split: every problem equally often."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import Env, spaces
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, unwrap_vec_normalize
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn
from tqdm import tqdm

from sb3_dream.common.checks import check_ended
from sb3_dream.common.problems import checked_problem_id
from sb3_dream.common.results import TrialResults
from sb3_dream.common.trial import NEEDS_OPTIONS, TRIAL_KEYS


def evaluate_problems(
    model: PolicyPredictor,
    env: VecEnv | Env,
    problem_ids: Sequence[Any] | None = None,
    instructions: Sequence[int] | None = None,
    deterministic: bool = True,
    n_trials_per_problem: int = 1,
    progress_bar: bool = False,
) -> TrialResults:
    """
    Run the same number of trials in every problem, as many side by side as ``env`` has environments. With ``instructions``
    and as many execution episodes, every instruction comes up once in every trial; then one greedy trial for each problem is
    a result without sampling noise. Otherwise the environments draw instructions: seed them with ``env.seed`` before.

    The problem ID reaches the environment only: the model is given observations, as in ``evaluate_policy``. ``VecNormalize``
    goes on normalising, but its statistics stay as they are. Afterwards the environments are in the middle of trials: reset
    them before other use.

    :param model: any SB3 model or policy
    :param env: trials, or a VecEnv of them, with any wrappers
    :param problem_ids: the problems; by default the environment's own, which are all of its split
    :param instructions: index of the instruction of each execution episode; by default they are drawn
    :param deterministic: act greedily
    :param n_trials_per_problem: more than one if instructions, the family or the model are random
    :param progress_bar: show a progress bar
    :return: the results, in the order of ``problem_ids``, the trials of a problem one after the other
    :raises TypeError: if ``env`` is not an environment
    :raises ValueError: if ``env`` is not made of trials of one family, if there is no problem or one that the family does
        not have, for instructions that are too many, too few or not the family's, or for less than one trial
    """
    if not isinstance(env, VecEnv | Env):
        raise TypeError(f"env must be a gymnasium.Env or a VecEnv, got {env!r}")
    vec_env = env if isinstance(env, VecEnv) else DummyVecEnv([lambda: env])
    problem_space, n_instructions = _check_trials(vec_env, instructions)
    problem_ids = _common(vec_env, "problem_ids") if problem_ids is None else problem_ids
    if len(problem_ids) == 0:
        raise ValueError("problem_ids is empty: there is nothing to evaluate")
    if n_trials_per_problem < 1:
        raise ValueError(f"n_trials_per_problem must be at least 1, got {n_trials_per_problem}")
    # checked here, for in a SubprocVecEnv an error at reset would end the worker
    problems = [checked_problem_id(problem_id, problem_space) for problem_id in problem_ids]
    trials = [problem for problem in problems for _ in range(n_trials_per_problem)]
    results: list[dict[str, Any]] = []
    with _observed(vec_env) as (outermost, raw), tqdm(total=len(trials), unit="trial", disable=not progress_bar) as bar:
        for begin in range(0, len(trials), vec_env.num_envs):
            chunk = trials[begin : begin + vec_env.num_envs]
            results += _run_trials(model, outermost, raw, chunk, instructions, deterministic, bar)
    optimal, unexplored = _limits(vec_env, problems, instructions, n_instructions)
    return TrialResults(
        problem_ids=np.array(trials),
        execution_returns=np.stack([r["execution_returns"] for r in results]),
        execution_lengths=np.stack([r["execution_lengths"] for r in results]),
        exploration_lengths=np.array([r["exploration_length"] for r in results]),
        exploration_observations=[r["observations"] for r in results],
        exploration_actions=[r["actions"] for r in results],
        optimal_returns=np.repeat(optimal, n_trials_per_problem),
        no_exploration_return=unexplored,
    )


def _common(vec_env: VecEnv, name: str) -> Any:
    """An attribute that must be the same in all environments."""
    first, *others = vec_env.get_attr(name)
    for other in others:
        if not (np.array_equal(other, first) if isinstance(first, list) else other == first):
            raise ValueError(f"env must be made of trials of one family, but {name} is {first} here and {other} there")
    return first


def _check_trials(vec_env: VecEnv, instructions: Sequence[int] | None) -> tuple[spaces.Space, int | None]:
    """The family's problem space and its number of instructions (None if it does not say), or what is wrong."""
    space = vec_env.unwrapped.observation_space
    if not isinstance(space, spaces.Dict) or not set(TRIAL_KEYS) <= set(space.spaces):
        raise ValueError(f"env must be made of trials (a registered id, or a family in TrialEnv), but it observes {space}")
    for name in ("observation_space", "action_space", "n_exploration_episodes"):
        _common(vec_env, name)
    problem_space, n_episodes = _common(vec_env, "problem_space"), _common(vec_env, "n_execution_episodes")
    n_instructions = vec_env.get_attr("n_instructions", indices=0)[0] if vec_env.has_attr("n_instructions") else None
    if instructions is not None:
        if not _common(vec_env, "takes_instructions"):
            raise ValueError(f"instructions {NEEDS_OPTIONS}")
        if len(instructions) != n_episodes:
            raise ValueError(f"instructions needs one index for each of {n_episodes} execution episodes, got {instructions}")
        if n_instructions is not None and not all(0 <= index < n_instructions for index in instructions):
            raise ValueError(f"instructions must be indices from 0 to {n_instructions - 1}, got {instructions}")
    return problem_space, n_instructions


def _limits(
    vec_env: VecEnv, problems: list[Any], instructions: Sequence[int] | None, n_instructions: int | None
) -> tuple[np.ndarray, float]:
    """
    R* of each problem, and R₀, both NaN where the family does not know them. They are means over instructions: where only
    some were asked for, they are not the limits.
    """
    optimal, unexplored = np.full(len(problems), np.nan), float("nan")
    if instructions is not None and len({list(instructions).count(index) for index in range(n_instructions or 0)}) != 1:
        return optimal, unexplored
    if vec_env.has_attr("optimal_return"):
        optimal[:] = [vec_env.env_method("optimal_return", problem, indices=0)[0] for problem in problems]
    if vec_env.has_attr("no_exploration_return"):
        unexplored = float(vec_env.env_method("no_exploration_return", indices=0)[0])
    return optimal, unexplored


class _Raw(VecEnvWrapper):
    """Keeps the observations as the environments gave them. The wrappers around it may normalise, stack or leave out."""

    observations: dict[str, np.ndarray]

    def reset(self) -> VecEnvObs:
        observations = self.venv.reset()
        assert isinstance(observations, dict)
        self.observations = observations
        return observations

    def step_wait(self) -> VecEnvStepReturn:
        result = self.venv.step_wait()
        assert isinstance(result[0], dict)
        self.observations = result[0]
        return result


@contextmanager
def _observed(vec_env: VecEnv) -> Iterator[tuple[VecEnv, _Raw]]:
    """
    With ``_Raw`` right around the environments, and with VecNormalize's statistics at rest. Yields the outermost and
    the innermost wrapper.
    """
    raw = _Raw(vec_env.unwrapped)
    outermost: VecEnv = raw
    innermost = None
    if isinstance(vec_env, VecEnvWrapper):
        outermost = innermost = vec_env
        while isinstance(innermost.venv, VecEnvWrapper):
            innermost = innermost.venv
        innermost.venv = raw
    normalizer = unwrap_vec_normalize(vec_env)
    was_training = normalizer is not None and normalizer.training
    if normalizer is not None:
        normalizer.training = False
    try:
        yield outermost, raw
    finally:
        vec_env.set_options()  # an error at reset leaves them
        if innermost is not None:
            innermost.venv = raw.venv
        if normalizer is not None:
            normalizer.training = was_training


def _no_action(action: np.ndarray) -> np.ndarray:
    """What stands between two exploration episodes, in the place of an action like this one."""
    return np.full(action.shape, np.nan if action.dtype.kind == "f" else -1)


def _run_trials(
    model: PolicyPredictor,
    vec_env: VecEnv,
    raw: _Raw,
    chunk: list[Any],
    instructions: Sequence[int] | None,
    deterministic: bool,
    bar: tqdm,
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
    own = [key for key in raw.observations if key not in TRIAL_KEYS]
    seen: list[dict[str, list[np.ndarray]]] = [{key: [] for key in own} for _ in padded]
    taken: list[list[Any]] = [[] for _ in padded]
    while any(result is None for result in finished):
        actions, state = model.predict(observations, state=state, episode_start=starts, deterministic=deterministic)
        exploring = raw.observations["exploring"][:, 0] > 0
        started, ended = (raw.observations[key][:, 0] > 0 for key in ("episode_start", "episode_end"))
        for env in np.flatnonzero(exploring):
            if finished[env] is None:
                for key in own:
                    seen[env][key].append(raw.observations[key][env].copy())
                if started[env] and taken[env]:  # another exploration episode
                    taken[env].append(_no_action(taken[env][-1]))
                if not ended[env]:
                    taken[env].append(np.array(actions[env]))
        observations, _, starts, infos = vec_env.step(actions)
        for env in np.flatnonzero(starts):
            if finished[env] is None:
                check_ended(infos[env], f" of problem {padded[env]}")
                finished[env] = infos[env]
                bar.update(int(env < len(chunk)))
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
