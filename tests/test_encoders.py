"""What the networks remember of a sequence: the peaks, and transitions in place of an LSTM."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dream import DREAM, TrialBatch
from sb3_dream.common.encoders import RunningMax, sum_in_rounds, sum_in_steps
from tests.conftest import WITHOUT_LSTMS, collect


@settings(max_examples=60, deadline=None)
@given(n_steps=st.integers(1, 40), n_batch=st.integers(1, 3), n_values=st.sampled_from([3, 10**6]), seed=st.integers(0, 99))
def test_the_running_maximum_is_that_of_torch(n_steps: int, n_batch: int, n_values: int, seed: int) -> None:
    """Values and gradients as cummax gives them, at every length. Of equal values one gets the gradient."""
    generator = th.Generator().manual_seed(seed)
    inputs = th.randint(n_values, (n_steps, n_batch), generator=generator).double().requires_grad_()
    weights = th.rand(n_steps, n_batch, generator=generator, dtype=th.double)
    peaks, expected = RunningMax.apply(inputs), inputs.cummax(dim=0).values
    assert th.equal(peaks, expected)
    (gradient,) = th.autograd.grad((peaks * weights).sum(), inputs)
    (expected_gradient,) = th.autograd.grad((expected * weights).sum(), inputs)
    if n_values > 10:
        th.testing.assert_close(gradient, expected_gradient)
    else:
        assert (gradient >= 0).all()
        th.testing.assert_close(gradient.sum(dim=0), weights.sum(dim=0))


@pytest.mark.parametrize("n_steps", [1, 2, 3, 7, 8, 9, 40])
def test_sums_of_gradients_are_the_same_on_gpus(n_steps: int) -> None:
    """There, they are added up in other rounds than on a CPU, and one step too few would show nowhere."""
    generator = th.Generator().manual_seed(n_steps)
    values = th.randint(100, (n_steps, 3, 5), generator=generator).double()
    for chance in (0.0, 0.5, 0.9, 1.0):
        goes_on = (th.rand(n_steps - 1, 3, 5, generator=generator) < chance).double()
        assert th.equal(sum_in_rounds(values, goes_on), sum_in_steps(values, goes_on))


def guesses(model: DREAM, batch: TrialBatch) -> th.Tensor:
    """g of every prefix, (T + 1, B, embedding_dim)."""
    with th.no_grad():
        return model.policy.trajectory_decoder(model.policy.steps(batch.exploration.observations))[0]


@pytest.mark.parametrize("policy_kwargs", [{}, WITHOUT_LSTMS], ids=["LSTM", "transitions"])
def test_what_comes_later_does_not_change_a_guess(policy_kwargs: dict[str, Any]) -> None:
    """g(τ_:t) is paid for at step t: if it saw step t + 1, actions would be paid for what others found."""
    model = collect(policy_kwargs=policy_kwargs)
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(8, rng=np.random.default_rng(0))
    before = guesses(model, batch)
    for t in range(3, len(before) - 1):
        changed = {key: value.clone() for key, value in batch.exploration.observations.items()}
        for key in ("observation", "previous_action", "previous_reward"):
            changed[key][t:] = changed[key][t:].flip(0)
        after = guesses(model, replace(batch, exploration=replace(batch.exploration, observations=changed)))
        th.testing.assert_close(after[:t], before[:t])
        assert not th.equal(after[t:], before[t:])


def test_transitions_tell_where_a_bus_came_from() -> None:
    """A single step shows where a bus has gone, not where it came from: without the step before, nothing could be learned
    from a ride. And the order of the findings does not count."""
    model = collect("MetaDistractingBus-v0", policy_kwargs=WITHOUT_LSTMS)
    rides = {"west": ((3, 4), (0, 1)), "east": ((5, 4), (8, 7)), "other": ((4, 5), (0, 1)), "back": ((4, 3), (8, 7))}

    def guess(*names: str) -> th.Tensor:
        """g after these rides, with a walk over the middle before each."""
        n_actions = int(model.action_space.n)  # type: ignore[attr-defined]
        places, actions = [(4.0, 4.0, 0.0)], [0]
        for name in names:
            stop, destination = rides[name]
            places += [(*stop, 1.0), (*destination, 1.0), (*stop, 1.0), (4.0, 4.0, 0.0)]
            actions += [0, 5, 5, 0]
        space = model.observation_space["observation"]  # type: ignore[index]
        observation = th.as_tensor(np.array(places, dtype=space.dtype)).unsqueeze(1)
        previous = th.nn.functional.one_hot(th.tensor(actions), n_actions).float().unsqueeze(1)
        sequence = {
            "observation": observation,
            "previous_action": previous,
            "previous_reward": th.full((len(places), 1, 1), -0.1),
        }
        with th.no_grad():
            return model.policy.trajectory_decoder(model.policy.steps(sequence))[0][-1]

    assert not th.allclose(guess("west"), guess("other"))
    assert not th.allclose(guess("west", "east"), guess("other", "back")), "the same places, from other stops"
    th.testing.assert_close(guess("west", "east"), guess("east", "west"))
