"""What RecurrentDQN minimises: a batch of windows is its episodes one by one, and values come from where they may."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch as th

from sb3_dream import EpisodeBatch, RecurrentDQN
from tests.counting_env import counting


def shake(model: RecurrentDQN) -> None:
    """Weights so large that memory shows in every Q-value, and a target apart from the network."""
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator))


def small_observations(batch: EpisodeBatch) -> EpisodeBatch:
    """Counting's numbers in hundreds would saturate an LSTM."""
    return dataclasses.replace(batch, observations={key: value / 10 for key, value in batch.observations.items()})


@pytest.fixture(scope="module")
def model() -> RecurrentDQN:
    """Has collected episodes of 1 to 12 steps, terminated and cut, and learned nothing."""
    arguments: dict[str, Any] = {"learning_starts": 10**9, "buffer_size": 4000, "seed": 0, "device": "cpu"}
    model = RecurrentDQN("MlpPolicy", counting(4, max_length=12), policy_kwargs={"lstm_hidden_size": 8}, **arguments)
    model.learn(600)
    shake(model)
    return model


@pytest.fixture
def batch(model: RecurrentDQN) -> EpisodeBatch:
    """Windows of episodes of different lengths, with burn-in, of every kind of end."""
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(32, rng=np.random.default_rng(0), sequence_length=5, burn_in=3)
    assert batch.terminated is not None and batch.burn_in is not None
    assert len(set(batch.lengths.tolist())) > 3
    assert len(set(batch.burn_in.tolist())) == 4
    assert 0 < batch.terminated.sum() < 32
    return small_observations(batch)


def gradients(model: RecurrentDQN, loss: th.Tensor) -> list[th.Tensor]:
    """Of every parameter that learns."""
    model.policy.optimizer.zero_grad()
    loss.backward()
    return [th.zeros_like(p) if p.grad is None else p.grad.clone() for p in model._parameters]


def one(batch: EpisodeBatch, b: int) -> EpisodeBatch:
    """Entry b alone, without padding."""
    n, column = int(batch.lengths[b]), slice(b, b + 1)
    assert batch.terminated is not None and batch.burn_in is not None
    return EpisodeBatch(
        observations={key: value[: n + 1, column] for key, value in batch.observations.items()},
        actions=batch.actions[:n, column],
        rewards=batch.rewards[:n, column],
        lengths=batch.lengths[column],
        terminated=batch.terminated[column],
        burn_in=batch.burn_in[column],
    )


def test_a_batch_gives_losses_and_gradients_of_its_episodes_one_by_one(model: RecurrentDQN, batch: EpisodeBatch) -> None:
    """Padding and masks must compute what a loop over episodes would, or what is learned would depend on who else is in the
    batch. The mean is over transitions, so an episode counts with the number of its own."""
    loss = model._loss(batch)
    together = gradients(model, loss)
    n_learned = batch.mask.sum(dim=0)
    alone = [model._loss(one(batch, b)) for b in range(32)]
    expected = sum(n * each for n, each in zip(n_learned, alone, strict=True)) / n_learned.sum()
    assert isinstance(expected, th.Tensor)
    th.testing.assert_close(loss, expected, rtol=1e-4, atol=0)
    for ours, theirs in zip(together, gradients(model, expected), strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))
        assert theirs.abs().max() > 0


def test_what_is_in_the_padding_does_not_matter(model: RecurrentDQN, batch: EpisodeBatch) -> None:
    """It holds copies of real rows, and would be learned from twice."""
    n_steps = len(batch.actions)
    inside, prefix = batch.mask.bool() | (th.arange(n_steps)[:, None] < batch.lengths), batch.prefix_mask.bool()
    junk = dataclasses.replace(
        batch,
        observations={key: th.where(prefix[..., None], value, 1e3) for key, value in batch.observations.items()},
        actions=th.where(inside, batch.actions, 2 - batch.actions),
        rewards=th.where(inside, batch.rewards, -1e6),
    )
    assert not th.equal(junk.rewards, batch.rewards)
    first, second = model._loss(batch), model._loss(junk)
    assert first.item() == second.item()
    for ours, theirs in zip(gradients(model, first), gradients(model, second), strict=True):
        th.testing.assert_close(ours, theirs)


def q_by_hand(model: RecurrentDQN, window: EpisodeBatch) -> tuple[th.Tensor, th.Tensor]:
    """Q-values (T + 1, n_actions) of the network and of its target, from one observation after the other."""
    values = []
    for network in (model.policy.q_net, model.policy.q_net_target):
        memory, rows = None, []
        for t in range(len(window.actions) + 1):
            steps = model.policy.steps({key: value[t : t + 1] for key, value in window.observations.items()})
            (q,), memory = network(steps, memory=memory)
            rows.append(q[0, 0])
        values.append(th.stack(rows).detach())
    return values[0], values[1]


def test_the_loss_is_the_equation(model: RecurrentDQN, batch: EpisodeBatch) -> None:
    """Double Q: the next action is the online network's, its value the target's. Past a termination nothing is bootstrapped;
    where a time limit cut the episode, and where a window ends inside it, the value of the next observation is. Burn-in is
    remembered and not learned from."""
    kinds = set()
    for b in range(32):
        window = one(batch, b)
        assert window.terminated is not None and window.burn_in is not None
        n, terminated, burn_in = len(window.actions), bool(window.terminated), int(window.burn_in)
        online, target = q_by_hand(model, window)
        errors = []
        for t in range(burn_in, n):
            value = 0.0 if terminated and t == n - 1 else target[t + 1, online[t + 1].argmax()].item()
            error = window.rewards[t, 0] + model.gamma * value - online[t, window.actions[t, 0]]
            errors.append(error.item() ** 2)
        assert model._loss(window).item() == pytest.approx(np.mean(errors), rel=1e-4)
        kinds.add((terminated, burn_in > 0))
    assert len(kinds) == 4


def test_the_observation_after_the_end(model: RecurrentDQN, batch: EpisodeBatch) -> None:
    """It counts where there is a future, and only there."""
    assert batch.terminated is not None
    for b in range(32):
        window = one(batch, b)
        before = model._loss(window).item()
        window.observations["observation"][-1] += 1.0
        assert (model._loss(window).item() == before) == bool(batch.terminated[b])


def test_burn_in_brings_up_the_memory(model: RecurrentDQN, batch: EpisodeBatch) -> None:
    """The Q-values of a window depend on the steps before it, and its loss on none of their rewards and actions."""
    assert batch.burn_in is not None
    for b in np.flatnonzero(batch.burn_in.numpy()):
        window = one(batch, int(b))
        before = model._loss(window).item()
        window.rewards[: int(batch.burn_in[b])] += 1e6
        window.actions[: int(batch.burn_in[b])] = 2 - window.actions[: int(batch.burn_in[b])]
        assert model._loss(window).item() == before
        window.observations["observation"][0] += 1.0
        assert model._loss(window).item() != before


def test_train_asks_for_the_windows_that_were_chosen(model: RecurrentDQN) -> None:
    """sequence_length and burn_in are arguments of the model; a buffer that was loaded knows nothing of them."""
    buffer: Any = model.replay_buffer
    asked: dict[str, Any] = {}
    sample = buffer.sample

    def spy(*args: Any, **kwargs: Any) -> EpisodeBatch:
        asked.update(kwargs)
        return small_observations(sample(*args, **kwargs))

    buffer.sample, model.sequence_length, model.burn_in = spy, 7, 2
    before = [parameter.clone() for parameter in model._parameters]
    model.train(gradient_steps=3, batch_size=8)
    assert asked == {"sequence_length": 7, "burn_in": 2}
    assert model._n_updates == 3
    assert all(not th.equal(*pair) for pair in zip(before, model._parameters, strict=True))
    assert np.isfinite(model.logger.name_to_value["train/loss"])
