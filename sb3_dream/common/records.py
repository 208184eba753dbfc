"""What happened in one greedy trial, step by step, and what DREAM made of it."""

from dataclasses import dataclass, field
from typing import Any, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_dream.common.checks import check_ended
from sb3_dream.common.trial import TRIAL_KEYS


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """
    One greedy trial of S observations. Row s belongs to observation s: what came with it, and what was done there.
    """

    #: the problem; the model was not told
    problem_id: Any
    #: (S,) bool: of an exploration episode
    exploring: np.ndarray = field(repr=False)
    #: (S,) bool: the last observation of an inner episode, where the action is ignored
    episode_end: np.ndarray = field(repr=False)
    #: S actions; None at the end of an inner episode
    actions: tuple[Any, ...] = field(repr=False)
    #: (S,), the family's own reward that came with the observation, while exploring too; 0 at the start of an inner episode
    rewards: np.ndarray = field(repr=False)
    #: (S, n_actions), NaN at the end of an inner episode; None for a model that has no ``policy.predict_q_values``
    q_values: np.ndarray | None = field(repr=False)
    #: (N,)
    execution_returns: np.ndarray
    #: S frames (height, width, 3), uint8; none unless the environment's ``render_mode`` is ``"rgb_array"``
    frames: tuple[np.ndarray, ...] = field(repr=False)
    #: the family's ``action_names``, if it has them, else numbers
    action_names: tuple[str, ...] = field(repr=False)
    #: S states: what the model remembered after each observation
    states: tuple[Any, ...] = field(repr=False)

    @property
    def episodes(self) -> np.ndarray:
        """(S,), the number of the inner episode, from 0: exploration comes first."""
        return np.cumsum(self.episode_end) - self.episode_end

    @property
    def steps(self) -> np.ndarray:
        """(S,), how many steps of its inner episode were done before the observation."""
        starts = np.flatnonzero(np.append(True, self.episode_end[:-1]))
        return np.arange(len(self.episode_end)) - starts[self.episodes]


@dataclass(frozen=True, kw_only=True)
class TrialExplanation(TrialRecord):
    """
    What DREAM made of a trial: its guesses of z, and how far they were from f(μ). See ``DREAM.explain``.
    """

    #: (S, n_actions), NaN at the end of an inner episode: of Q^exp while exploring, else of Q^exe
    q_values: np.ndarray = field(repr=False)
    #: (S, embedding_dim), the guess g(τ) after the observation; while executing it stays, and is what the agent acts from
    z: np.ndarray = field(repr=False)
    #: the P problems that f is known of
    problem_ids: tuple[Any, ...] = field(repr=False)
    #: (P, embedding_dim), f of each
    problem_means: np.ndarray = field(repr=False)
    #: the problem that distances and exploration rewards are of
    target_id: Any
    #: whether this is the trial's own problem. If not, that one is unknown to f, and the target is the known problem that the
    #: last guess is nearest to
    target_is_own: bool
    #: (embedding_dim,), f of the target
    target_mean: np.ndarray = field(repr=False)
    #: (S,), ‖f(target) − z‖²
    distances: np.ndarray = field(repr=False)
    #: (S,), the drop in distance that came with the observation, less c; NaN where no exploration step led to it. That at the
    #: end of an exploration episode has the drop at the beginning of the next one in it, if there is one
    exploration_rewards: np.ndarray = field(repr=False)

    @property
    def other_distances(self) -> np.ndarray:
        """(S,), the distance to the nearest of the other known problems; NaN if there is none."""
        others = self.problem_means[[not np.array_equal(problem, self.target_id) for problem in self.problem_ids]]
        if len(others) == 0:
            return np.full(len(self.z), np.nan)
        return np.square(self.z[:, None] - others).sum(axis=-1).min(axis=1)


def play_trial(
    model: PolicyPredictor, env: gym.Env, seed: int | None = None, options: dict[str, Any] | None = None
) -> TrialRecord:
    """
    Run one greedy trial. The model sees observations only, normalised if it was trained on a ``VecNormalize`` that it has.

    :param model: any SB3 model
    :param env: trials
    :param seed: of the trial
    :param options: ``problem_id`` and ``instructions``, as in ``TrialEnv.reset``
    :return: what happened
    :raises ValueError: if ``env`` is not made of trials, or its observations have other shapes than the model's
    :raises TypeError: if ``env`` is not a Gymnasium environment
    """
    if not isinstance(env, gym.Env):
        raise TypeError(f"env must be a gymnasium.Env, got {type(env).__name__}")
    if not isinstance(env.observation_space, spaces.Dict) or not set(TRIAL_KEYS) <= set(env.observation_space.spaces):
        raise ValueError(
            f"env must be made of trials (a registered id, or a family in TrialEnv), but it observes {env.observation_space}"
        )
    own: Any = getattr(model, "observation_space", env.observation_space)
    for key, space in env.observation_space.spaces.items():
        # an image may have its channels first there, and last here
        if sorted(own[key].shape) != sorted(space.shape or ()):
            raise ValueError(f"env must observe what the model does: {key!r} is {space} here, and {own[key]} there")
    normalizer = model.get_vec_normalize_env() if hasattr(model, "get_vec_normalize_env") else None
    predict_q_values = getattr(getattr(model, "policy", model), "predict_q_values", None)
    observation, _ = env.reset(seed=seed, options=options)
    exploring, ends, rewards, actions, values, states, frames = [], [], [], [], [], [], []
    reward: SupportsFloat = 0.0
    state, over = None, False
    info: dict[str, Any] = {}
    while True:
        exploring.append(observation["exploring"][0] > 0)
        ends.append(observation["episode_end"][0] > 0)
        rewards.append(float(info.get("raw_reward", reward)))
        if env.render_mode == "rgb_array":
            frames.append(np.asarray(env.render()))
        seen = observation if normalizer is None else normalizer.normalize_obs(observation)
        if predict_q_values is None:
            action, state = model.predict(seen, state=state, deterministic=True)
        else:
            (q_values,), state, _ = predict_q_values(seen, state)
            values.append(np.full_like(q_values, np.nan) if ends[-1] else q_values)
            action = q_values.argmax()
        actions.append(None if ends[-1] else action)
        states.append(state)
        if over:
            break
        observation, reward, terminated, truncated, info = env.step(action)
        over = terminated or truncated
    check_ended(info)
    n_actions = spaces.flatdim(env.action_space)
    names = env.get_wrapper_attr("action_names") if env.has_wrapper_attr("action_names") else range(n_actions)
    return TrialRecord(
        problem_id=env.get_wrapper_attr("problem_id"),
        exploring=np.array(exploring),
        episode_end=np.array(ends),
        actions=tuple(actions),
        rewards=np.array(rewards),
        q_values=np.array(values) if values else None,
        execution_returns=info["execution_returns"],
        frames=tuple(frames),
        action_names=tuple(map(str, names)),
        states=tuple(states),
    )
