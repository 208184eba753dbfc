"""What IMPORT minimises: its equation, and what each part of it may move."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dream import IMPORT, EpisodeBatch
from tests.rivals import collected, gradients, moved_by, one, padded

NETWORKS = {"θ": "q_net", "ω": "belief", "ψ": "problem_encoder"}


@pytest.fixture(scope="module")
def model() -> IMPORT:
    """With two execution episodes in each trial."""
    return collected(IMPORT, env_kwargs={"n_execution_episodes": 2}, belief_weight=0.7)


@pytest.fixture
def batch(model: IMPORT) -> tuple[EpisodeBatch, th.Tensor]:
    """Six whole trials of different lengths, and their problem IDs."""
    assert model.replay_buffer is not None
    trials, problem_ids = model.replay_buffer.sample_whole(6, rng=np.random.default_rng(0))
    assert len(set(trials.lengths.tolist())) > 3
    return trials, problem_ids


@pytest.mark.parametrize(("loss", "moves"), [("td_belief", "θω"), ("td_problem", "θψ"), ("belief", "ω")])
def test_gradient_matrix(model: IMPORT, batch: Any, loss: str, moves: str) -> None:
    """f must not be pulled toward the belief: it would be whatever is easy to guess, and not what execution needs."""
    assert moved_by(model, getattr(model._losses(batch), loss), NETWORKS) == moves


def by_hand(model: IMPORT, trials: EpisodeBatch, problem_ids: th.Tensor) -> dict[str, list[float]]:
    """Squared TD errors from both z, and squared distances, of every step of every trial, one after the other."""
    policy = model.policy
    squares: dict[str, list[float]] = {"td_belief": [], "td_problem": [], "belief": []}
    for b in range(len(problem_ids)):
        trial = one(trials, b)
        n = int(trial.lengths[0])
        qs: dict[str, list[th.Tensor]] = {"td_belief": [], "td_problem": []}
        target_qs: dict[str, list[th.Tensor]] = {"td_belief": [], "td_problem": []}
        f, f_target = policy.problem_encoder(problem_ids[b : b + 1]), policy.problem_encoder_target(problem_ids[b : b + 1])
        memory = target_memory = None
        for t in range(n):
            steps = policy.steps({key: value[t : t + 1] for key, value in trial.observations.items()})
            g, memory = policy.belief(steps, memory)
            g_target, target_memory = policy.belief_target(steps, target_memory)
            squares["belief"].append(float((f - g[0]).pow(2).sum()))
            for name, z, z_target in (("td_belief", g[0], g_target[0]), ("td_problem", f, f_target)):
                qs[name].append(policy.q_net(steps, [z])[0][0][0, 0])
                target_qs[name].append(policy.q_net_target(steps, [z_target])[0][0][0, 0])
        for name in qs:
            for t in range(n):
                target = trial.rewards[t, 0]
                if t + 1 < n:
                    target = target + model.gamma * target_qs[name][t + 1][qs[name][t + 1].argmax()]
                squares[name].append(float((target - qs[name][t][trial.actions[t, 0]]) ** 2))
    return squares


def test_the_losses_are_the_equation(model: IMPORT, batch: Any) -> None:
    """Double Q over the whole trial from both z, each with its own target, and the distance of every prefix."""
    with th.no_grad():
        losses, squares = model._losses(batch), by_hand(model, *batch)
    assert losses.td_belief.item() == pytest.approx(np.mean(squares["td_belief"]), rel=1e-4)
    assert losses.td_problem.item() == pytest.approx(np.mean(squares["td_problem"]), rel=1e-4)
    assert losses.belief.item() == pytest.approx(0.7 * np.mean(squares["belief"]), rel=1e-4)
    assert losses.total.item() == pytest.approx(losses.td_belief.item() + losses.td_problem.item() + losses.belief.item())


def test_padding_changes_no_loss_and_no_gradient(model: IMPORT, batch: Any) -> None:
    """Else what is learned would depend on who else is in the batch."""
    trials, problem_ids = batch
    first, second = model._losses(batch), model._losses((padded(trials), problem_ids))
    for field in dataclasses.fields(first):
        assert getattr(first, field.name).item() == pytest.approx(getattr(second, field.name).item(), rel=1e-5), field.name
    for ours, theirs in zip(gradients(model, first.total), gradients(model, second.total), strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
