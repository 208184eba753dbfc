"""What is wrong with trials, found by playing some: the ID or the goal shows, the problem changes, seeds do not repeat."""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_checker import check_env

from sb3_dream.common.trial import TrialEnv

_MAX_PROBLEMS = 5
_MAX_STEPS = 50  # of each inner episode
_ENDLESS = 10_000
_MAX_EXPLORATION_EPISODES = 2
_N_EXECUTION_EPISODES = 2


class _Episode:
    """What a family said in one inner episode of T steps."""

    def __init__(self) -> None:
        self.observations: list[np.ndarray] = []  # T + 1, flat, without the instruction
        self.instructions: list[np.ndarray] = []  # T + 1, or none
        self.rewards: list[float] = []  # T

    def differs(self, other: "_Episode") -> str:
        """Where the two differ, or "" if they do not."""
        for t, (mine, theirs) in enumerate(zip(self.observations, other.observations, strict=False)):
            if not np.allclose(mine, theirs, rtol=1e-4, atol=1e-6, equal_nan=True):
                return f"the observation of step {t}"
            if t > 0 and not np.isclose(self.rewards[t - 1], other.rewards[t - 1], rtol=1e-4, atol=1e-6, equal_nan=True):
                return f"the reward of step {t}"
        return "" if len(self.rewards) == len(other.rewards) else "the number of steps"


class _Recorder(gym.Wrapper[Any, Any, Any, Any]):
    """Between a trial and its family: cuts inner episodes short and writes down what the family says."""

    def __init__(self, env: gym.Env):
        super().__init__(env)
        self.seed: int | None = None  # of every inner episode, if set
        self.episodes: list[_Episode] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        observation, info = self.env.reset(seed=seed if self.seed is None else self.seed, options=options)
        self.episodes.append(_Episode())
        self._note(observation)
        return observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        observation, reward, terminated, truncated, info = self.env.step(action)
        self._note(observation)
        episode = self.episodes[-1]
        episode.rewards.append(float(reward))
        return observation, reward, terminated, truncated or len(episode.rewards) == _MAX_STEPS, info

    def _note(self, observation: Any) -> None:
        own = dict(observation) if isinstance(self.env.observation_space, spaces.Dict) else {"observation": observation}
        if "instruction" in own:
            self.episodes[-1].instructions.append(np.array(own.pop("instruction")).ravel())
        self.episodes[-1].observations.append(np.concatenate([np.ravel(own[key]) for key in sorted(own)]))


def check_trial_env(env: gym.Env, seed: int = 0) -> None:
    """
    Play some trials with random actions and say what is wrong with them, beyond what SB3's ``check_env`` finds (which is run
    first):

    - a time limit around the trial, which would cut it at any place
    - an inner episode does not end
    - the same seed does not give the same trial again
    - the problem changes within a trial
    - the problem ID, or a number of a problem that is a vector or a dict, shows in the observation
    - the instruction shows in the observation while exploring
    - a warning: no problem differed from another, so the family may not have been told which one to be
    - a warning: the family has an instruction while exploring. It is not shown, but rewards and ends could give it away

    It sees what happens within 50 steps of an inner episode, in 5 problems. Reset the environment afterwards.

    :param env: trials, training ones or not
    :param seed: of the trials and actions
    :raises TypeError: if ``env`` is not made of a ``TrialEnv``
    :raises ValueError: if something is wrong; the message has all of it
    :raises AssertionError: what SB3's ``check_env`` raises
    """
    trial = getattr(env, "unwrapped", env)
    if not isinstance(trial, TrialEnv):
        raise TypeError(f"check_trial_env checks a TrialEnv, got {env}")
    outer = env
    while isinstance(outer, gym.Wrapper) and outer is not trial:
        if isinstance(outer, TimeLimit):
            raise ValueError("TimeLimit is around the trial, and would cut it anywhere: put it around the family")
        outer = outer.env
    env.reset(seed=seed)  # SB3's check takes any TypeError in there for a missing seed parameter
    check_env(env, warn=False, skip_render_check=True)
    if not _ends(trial, seed):
        raise ValueError(
            f"The exploration episode had not ended after {_ENDLESS} steps: put gymnasium.wrappers.TimeLimit around the family"
        )
    family, n_exploration_episodes, n_execution_episodes = trial.env, trial.n_exploration_episodes, trial.n_execution_episodes
    try:
        trial.n_exploration_episodes = min(n_exploration_episodes, _MAX_EXPLORATION_EPISODES)
        trial.n_execution_episodes = _N_EXECUTION_EPISODES
        wrong, doubtful = _look(trial, seed)
    finally:
        trial.env = family
        trial.n_exploration_episodes, trial.n_execution_episodes = n_exploration_episodes, n_execution_episodes
        trial._running = False
    if wrong:
        findings = [*wrong, *(f"perhaps: {message}" for message in doubtful)]
        raise ValueError("\n".join(["These trials are not right:", *(f"- {finding}" for finding in findings)]))
    for message in doubtful:
        warnings.warn(message)


def _ends(trial: TrialEnv, seed: int) -> bool:
    trial.reset(seed=seed)
    trial.action_space.seed(seed)
    for _ in range(_ENDLESS):
        observation, *_ = trial.step(trial.action_space.sample())
        if observation["episode_end"][0] > 0:
            return True
    return False


def _look(trial: TrialEnv, seed: int) -> tuple[list[str], list[str]]:
    """What is wrong, and what may be."""
    recorder = trial.env = _Recorder(trial.env)
    rng = np.random.default_rng(seed)
    trial.action_space.seed(seed)
    n_explored = trial.n_exploration_episodes
    n_episodes = n_explored + _N_EXECUTION_EPISODES
    actions = [[trial.action_space.sample() for _ in range(_MAX_STEPS)] for _ in range(2 * n_episodes)]
    chosen = rng.permutation(len(trial.problems))[:_MAX_PROBLEMS]

    def play(index: int, actions: list[list[Any]], seed: int) -> list[_Episode]:
        recorder.episodes = []
        trial.reset(seed=seed, options={"problem_id": trial.problem_ids[index]})
        over = False
        while not over:
            t = len(recorder.episodes[-1].rewards)
            *_, over, _, _ = trial.step(actions[len(recorder.episodes) - 1][t % _MAX_STEPS])
        return recorder.episodes

    first = [play(index, actions, seed) for index in chosen]
    again = [play(index, actions, seed) for index in chosen]
    other = [play(index, actions[n_episodes:], seed + 1) for index in chosen]
    recorder.seed = None if trial.set_problem == "seed" else seed
    same = [play(index, [actions[0]] * n_episodes, seed) for index in chosen]

    wrong: list[str] = []
    repeated = [a.differs(b) for one, two in zip(first, again, strict=True) for a, b in zip(one, two, strict=True)]
    if difference := next(filter(None, repeated), ""):
        wrong.append(
            f"seeds do not repeat: the same seed, problem and actions gave another trial ({difference} differs). All "
            "randomness must come from the generator that reset(seed=...) seeds"
        )
    if difference := next(filter(None, (_change_within_trial(trial, episodes) for episodes in same)), ""):
        wrong.append(
            f"the problem changes within a trial: with the same seed and actions two of its episodes differ ({difference}). "
            "Does reset() draw a problem?" + (" (Or it is the seeds, see above.)" if wrong else "")
        )
    trials = [[*one, *two] for one, two in zip(first, other, strict=True)]
    wrong += _shown_problems(trial, chosen, trials)
    wrong += _shown_instructions(trial, trials)

    doubtful = []
    if len(trials) > 1 and not any(a.differs(b) for look in trials[1:] for a, b in zip(trials[0], look, strict=True)):
        doubtful.append(
            f"{len(chosen)} problems gave the same observations and rewards. That is right if it takes more than {_MAX_STEPS} "
            f"random steps to find out; else the family is not told its problem (set_problem={trial.set_problem!r})"
            + (". A function must set attributes on env.unwrapped, not on a wrapper" if callable(trial.set_problem) else "")
        )
    (_, explored), _ = _phases(trial, trials)
    if any(np.any(episode.instructions) for episodes in explored for episode in episodes):
        doubtful.append(
            "the family has an instruction while exploring. It is not shown, but rewards and ends can give it away: a family "
            "that reads options['exploring'] in reset can have none then"
        )
    return wrong, doubtful


def _change_within_trial(trial: TrialEnv, episodes: list[_Episode]) -> str:
    """Where two inner episodes of a trial, of the same seed and actions, differ. Those that were told to differ may."""
    n_explored = trial.n_exploration_episodes
    alike = [episodes[:n_explored], episodes[n_explored:]] if trial.set_problem == "options" else [episodes]
    for first, *others in alike:
        for episode in others:
            if np.array_equal(first.instructions, episode.instructions) and (difference := first.differs(episode)):
                return difference
    return ""


def _phases(trial: TrialEnv, trials: list[list[_Episode]]) -> Iterator[tuple[str, list[list[_Episode]]]]:
    """The exploration episodes of each problem, and its execution episodes."""
    n_explored, n = trial.n_exploration_episodes, trial.n_exploration_episodes + _N_EXECUTION_EPISODES
    yield "exploring", [[e for i, e in enumerate(episodes) if i % n < n_explored] for episodes in trials]
    yield "executing", [[e for i, e in enumerate(episodes) if i % n >= n_explored] for episodes in trials]


def _shown_problems(trial: TrialEnv, chosen: np.ndarray, trials: list[list[_Episode]]) -> list[str]:
    """Numbers of the problem that can be read off every observation of a phase."""
    numbers: dict[str, list[float]] = {}
    for index in chosen:
        for name, value in _numbers(trial.problem_ids[index], trial.problems[index]):
            numbers.setdefault(name, []).append(value)
    found: dict[str, str] = {}
    for phase, episodes in _phases(trial, trials):
        seen = [np.array([o for e in some for o in e.observations]) for some in episodes]
        constant = np.all([np.all(observations == observations[0], axis=0) for observations in seen], axis=0)
        shown = np.where(constant, [observations[0] for observations in seen], np.nan)  # (P, d)
        for name, values in numbers.items():
            places = _follows(shown, np.array(values)) if len(values) == len(chosen) else []
            if name == "the problem ID" and len(chosen) > 1:
                places = [*places, *_one_hot(shown, np.array(values, dtype=int))]
            for place in places:
                found.setdefault(name, f"{name} shows in the observation while {phase}: {_name(trial, place)} goes with it")
    return list(found.values())


def _numbers(problem_id: Any, problem: Any) -> Iterator[tuple[str, float]]:
    if isinstance(problem_id, int):
        yield "the problem ID", problem_id
    else:
        for place, value in enumerate(problem_id):
            yield f"number {place} of the problem ID", value
    if isinstance(problem, Mapping):
        for key, value in problem.items():
            if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "iuf":
                yield f"{key!r} of the problem", value


def _shown_instructions(trial: TrialEnv, trials: list[list[_Episode]]) -> list[str]:
    """What goes with the instruction at the start of execution episodes, and varies at the start of exploration episodes."""
    (_, explored), (_, executed) = _phases(trial, trials)
    starts = [episode for episodes in executed for episode in episodes]
    if not starts[0].instructions:
        return []
    shown = np.array([episode.observations[0] for episode in starts])
    varies = np.any([e.observations[0] != episodes[0].observations[0] for episodes in explored for e in episodes], axis=0)
    for values in np.array([episode.instructions[0] for episode in starts]).T:
        for place in _follows(np.where(varies, shown, np.nan), values):
            return [f"the instruction shows in the observation while exploring: {_name(trial, place)} goes with it"]
    return []


def _follows(shown: np.ndarray, values: np.ndarray) -> list[int]:
    """
    Which numbers of an observation are a value, or rise and fall with it on a straight line.

    :param shown: (P, d); what cannot be it is NaN
    :param values: (P,)
    :return: their places
    """
    if np.ptp(values) == 0:
        return []
    follows = np.all(np.isclose(shown, values[:, None], rtol=1e-5), axis=0)
    if len(np.unique(values)) > 2:  # any two points are on a line
        with np.errstate(invalid="ignore", divide="ignore"):
            x, y = values - values.mean(), shown - shown.mean(axis=0)
            follows |= np.abs(x @ y) / np.sqrt((x @ x) * np.sum(y * y, axis=0)) > 1 - 1e-6
    return np.flatnonzero(follows).tolist()


def _one_hot(shown: np.ndarray, ids: np.ndarray) -> list[int]:
    """Where the one-hot of the ID begins in the observation."""
    one_hot = np.eye(len(ids))
    return [start for start in range(shown.shape[1] - ids.max()) if np.array_equal(shown[:, start + ids], one_hot)]


def _name(trial: TrialEnv, place: int) -> str:
    """What the number at this place of the flat observation is called."""
    space = trial.env.observation_space
    own = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
    for key in sorted(set(own) - {"instruction"}):
        size = int(np.prod(own[key].shape or 1))
        if place < size:
            break
        place -= size
    return f"number {place} of {key!r}"
