"""What DREAM made of a trial: its guesses of z, against f of the problem."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_dream.common.problems import checked_problem_id
from sb3_dream.common.records import TrialExplanation, play_trial

if TYPE_CHECKING:
    from sb3_dream.dream.dream import DREAM


def explain(
    model: "DREAM",
    env: gym.Env,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    problem_ids: Sequence[Any] | None = None,
) -> TrialExplanation:
    """
    Run one greedy trial and say, for each step, what it was worth: Q-values, and while exploring the guess of z, its
    distance to f(μ) and the exploration reward, with today's f and g. The agent acts as in ``predict``, without the
    problem ID. The distances use it.

    They need an f(μ) that was learned. The embedding of a ``Discrete`` ID that training never drew has learned nothing, and a
    distance to it means nothing. For such a problem the target is, of the problems in ``problem_ids``, the
    one that the guess is nearest to in the end: what the agent took the problem for. It is chosen with hindsight, so
    that the distance falls by the end says nothing about whether the agent was right; the execution returns do. For
    ``MultiDiscrete`` IDs f is learned if each entry came up in training, and for ``Box`` IDs f is a function of the
    vector and is taken for learned everywhere. Where IDs are places in a list of problems (names, dicts, tasks), they
    are the training list's only in trials with ``training=True``.

    :param env: trials, as many problems as you like; with ``render_mode="rgb_array"`` the explanation has frames
    :param seed: of the trial
    :param options: ``problem_id`` and ``instructions``, as in ``TrialEnv.reset``
    :param problem_ids: the problems that f has learned; by default all that ``learn`` has drawn from
    :return: the explanation. ``animate_trial``, ``plot_trial`` and ``plot_z_space`` draw it
    :raises ValueError: if ``env`` is not made of trials, or f has not learned any problem
    """
    space = model.policy.problem_space
    known = list(model.trained_problem_ids if problem_ids is None else problem_ids)
    if not known:
        raise ValueError(
            "problem_ids: the model has not learned yet, or is of a release that did not note its problems, so the problems "
            "that f knows must be given"
        )
    known = [checked_problem_id(problem_id, space) for problem_id in known]
    record = play_trial(model, env, seed, options)
    z = np.stack([model.policy.state_class(*state).z[0, 0] for state in record.states])
    means = _encode(model, known)
    is_own = _is_known(record.problem_id, known, space) and _means_the_same(env, space)
    if is_own:
        target_id = record.problem_id
        (target_mean,) = _encode(model, [target_id])
    else:
        nearest = int(np.square(means - z[-1]).sum(axis=1).argmin())
        target_id, target_mean = known[nearest], means[nearest]
    distances = np.square(target_mean - z).sum(axis=1)
    cost = model.exploration_cost_schedule(model._current_progress_remaining)
    stepped = record.exploring & np.append(False, record.exploring[:-1] & ~record.episode_end[:-1])
    # as in learning: what the beginning of another exploration episode tells is paid to the action that led there
    leads_on = record.episode_end & np.append(record.exploring[1:], False)
    after = np.where(leads_on, np.append(distances[1:], np.nan), distances)
    drops = np.append(np.nan, distances[:-1] - after[1:])
    return TrialExplanation(
        **vars(record),
        z=z,
        problem_ids=tuple(known),
        problem_means=means,
        target_id=target_id,
        target_is_own=is_own,
        target_mean=target_mean,
        distances=distances,
        exploration_rewards=np.where(stepped, drops - cost, np.nan),
    )


def _encode(model: "DREAM", problem_ids: Sequence[Any]) -> np.ndarray:
    """f of each problem, (P, embedding_dim)."""
    with th.no_grad():
        return model.policy.problem_encoder(th.as_tensor(np.stack(problem_ids), device=model.device)).cpu().numpy()


def _is_known(problem_id: Any, known: Sequence[Any], space: spaces.Space) -> bool:
    """Whether f has learned all that it takes to encode a problem: each row of its tables, but an MLP takes any vector."""
    if isinstance(space, spaces.Box):
        return True
    columns = np.reshape(known, (len(known), -1))
    return bool((columns == np.reshape(problem_id, -1)).any(axis=0).all())


def _means_the_same(env: gym.Env, space: spaces.Space) -> bool:
    """
    Whether an ID is the same problem here as in training. Of names, dicts and tasks the ID is the place in the list, and the
    list may be another one; only trials with ``training=True`` claim that it is not.
    """
    if isinstance(space, spaces.Box) or env.get_wrapper_attr("training"):
        return True
    listed = zip(env.get_wrapper_attr("problems"), env.get_wrapper_attr("problem_ids"), strict=True)
    return all(np.array_equal(problem, problem_id) for problem, problem_id in listed)
