"""Algorithm 1, lines 13-25: what each loss is, and what it may and may not move."""

import dataclasses

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_dream import DREAM, EpisodeBatch, TrialBatch
from sb3_dream.common.networks import DuelingHead
from sb3_dream.dream.losses import Losses, last_prefix, td_loss
from tests.conftest import collect

NETWORKS = {"φ": "explorer", "θ": "executor", "ψ": "problem_encoder", "ω": "trajectory_decoder"}


def random_output_biases(model: DREAM) -> None:
    """Make every network's output depend on its input, targets apart from online networks."""
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.1 * th.randn(parameter.shape, generator=generator))


def losses_with_noise(model: DREAM, batch: TrialBatch, seed: int = 0) -> Losses:
    """The losses, with the noise of z always the same."""
    model.rng = np.random.default_rng(seed)
    return model._losses(batch)


@pytest.mark.parametrize(
    ("loss", "moved"),
    [
        ("exploration_td", "φ"),
        ("execution_td_trajectory", "θω"),
        ("execution_td_problem", "θψ"),
        ("bottleneck", "ψ"),
        ("decoder", "ω"),
    ],
)
def test_gradient_matrix(model: DREAM, batch: TrialBatch, loss: str, moved: str) -> None:
    """Lines 15-23. A loss that moved another network would undo the decoupling (or the stop-gradients) silently."""
    random_output_biases(model)
    model.bottleneck_size = 0.0  # so that the bottleneck pulls
    model.policy.optimizer.zero_grad()
    getattr(losses_with_noise(model, batch), loss).backward()
    for symbol, name in NETWORKS.items():
        gradients = [p.grad for p in getattr(model.policy, name).parameters() if p.grad is not None]
        has_moved = any(g.abs().sum() > 0 for g in gradients)
        assert has_moved == (symbol in moved), f"{loss} and {symbol}"
        assert all(p.grad is None for p in getattr(model.policy, f"{name}_target").parameters())


def by_hand(model: DREAM, batch: TrialBatch) -> tuple[th.Tensor, th.Tensor]:
    """f(μ) (B, Z) and g of every prefix (T + 1, B, Z), computed trial by trial and prefix by prefix."""
    policy = model.policy
    f = policy.problem_encoder(batch.problem_ids)
    n_prefixes, n_batch = batch.exploration.prefix_mask.shape
    g = th.full((n_prefixes, n_batch, policy.embedding_dim), th.nan)
    for b in range(n_batch):
        for t in range(int(batch.exploration.lengths[b]) + 1):
            prefix = {key: value[: t + 1, b : b + 1] for key, value in batch.exploration.observations.items()}
            g[t, b] = policy.trajectory_decoder(policy.steps(prefix))[0][-1, 0]
    return f.detach(), g.detach()


def test_exploration_reward_is_the_drop_in_distance(model: DREAM, batch: TrialBatch) -> None:
    """Line 15, Eq. 5. With the sign turned round (as often printed) exploration would learn to hide the problem. The sum
    telescopes: Σ r = ‖f − g(∅)‖² − ‖f − g(τ)‖² − cT."""
    random_output_biases(model)
    f, g = by_hand(model, batch)
    lengths = batch.exploration.lengths
    first, last = (f - g[0]).pow(2).sum(-1), (f - last_prefix(g, batch.exploration)).pow(2).sum(-1)
    expected = (first - last - 0.01 * lengths).mean()
    losses = losses_with_noise(model, batch)
    assert losses.exploration_reward.item() == pytest.approx(expected.item(), rel=1e-4)
    assert losses.decoder_distance_start.item() == pytest.approx(first.mean().item(), rel=1e-4)
    assert losses.decoder_distance_end.item() == pytest.approx(last.mean().item(), rel=1e-4)


def test_exploration_td_learns_each_reward(model: DREAM, batch: TrialBatch) -> None:
    """Line 16: with γ = 0 and Q = 0 the TD loss is the mean of r_t², so each single reward is what Q^exp is told."""
    random_output_biases(model)
    f, g = by_hand(model, batch)
    with th.no_grad():
        for parameter in model.policy.explorer.head.streams.parameters():
            parameter.zero_()
    model.gamma = 0.0
    distance = (f - g).pow(2).sum(-1)
    reward = (distance[:-1] - distance[1:] - 0.01)[batch.exploration.mask.bool()]
    losses = losses_with_noise(model, batch)
    assert losses.exploration_td.item() == pytest.approx(reward.pow(2).mean().item(), rel=1e-4)


def test_exploration_cost_follows_its_schedule(batch: TrialBatch) -> None:
    """A c that grows from 0 lets exploration find out what pays before it has to be short; as any schedule of SB3's it is
    a function of the remaining progress."""
    model = collect(exploration_cost=lambda remaining: 0.5 * (1 - remaining))
    rewards = []
    for remaining in (1.0, 0.5):
        model._current_progress_remaining = remaining
        rewards.append(losses_with_noise(model, batch).exploration_reward.item())
    assert rewards[0] - rewards[1] == pytest.approx(0.25 * batch.exploration.lengths.float().mean().item(), rel=1e-4)


def test_reward_uses_f_without_noise_and_execution_with(model: DREAM, batch: TrialBatch) -> None:
    """Lines 9 and 15: ρ is the noise of z where z is drawn from f. In the reward it would only be noise."""
    first, second = losses_with_noise(model, batch, seed=0), losses_with_noise(model, batch, seed=1)
    for name in ("exploration_td", "exploration_reward", "decoder", "execution_td_trajectory"):
        assert getattr(first, name).item() == getattr(second, name).item(), name
    assert first.execution_td_problem.item() != second.execution_td_problem.item()
    model.problem_std = 0.0
    assert losses_with_noise(model, batch, 0).execution_td_problem == losses_with_noise(model, batch, 1).execution_td_problem


def test_noise_has_standard_deviation_rho(model: DREAM) -> None:
    """z ~ N(f(μ), ρ²I): ρ is a standard deviation, not a variance."""
    model.problem_std = 0.5
    assert model._noisy(th.zeros(20_000, 2)).std().item() == pytest.approx(0.5, rel=0.02)


def test_decoder_loss_counts_every_prefix_and_the_empty_one(model: DREAM, batch: TrialBatch) -> None:
    """Line 23. Without the empty prefix the first exploration step would be paid for what is known anyway."""
    random_output_biases(model)
    f, g = by_hand(model, batch)
    distance = (f - g).pow(2).sum(-1)
    valid = ~th.isnan(distance)
    assert valid.sum().item() == batch.exploration.lengths.sum().item() + len(batch.problem_ids)
    assert losses_with_noise(model, batch).decoder.item() == pytest.approx(distance[valid].mean().item(), rel=1e-4)


def test_bottleneck_leaves_small_norms_alone(model: DREAM, batch: TrialBatch) -> None:
    """Line 21, max(‖f‖², K): with the printed min, f would be driven to zero and exploration with it."""
    norms = model.policy.problem_encoder(batch.problem_ids).pow(2).sum(-1).detach()
    model.bottleneck_size = norms.max().item() + 1
    model.policy.optimizer.zero_grad()
    losses_with_noise(model, batch).bottleneck.backward()
    assert all(p.grad is None or p.grad.abs().sum() == 0 for p in model.policy.problem_encoder.parameters())
    model.bottleneck_size, model.bottleneck_weight = norms.median().item(), 3.0
    expected = 3.0 * norms.clamp(min=model.bottleneck_size).mean()
    assert losses_with_noise(model, batch).bottleneck.item() == pytest.approx(expected.item(), rel=1e-5)


def pad(episodes: EpisodeBatch, n_steps: int, junk: float) -> EpisodeBatch:
    """The same episodes with more padding, and junk in all padding of actions, rewards and float observations."""

    def longer(values: th.Tensor, valid: th.Tensor) -> th.Tensor:
        fill = junk if values.is_floating_point() else 1
        padded = th.full((len(values) + n_steps, *values.shape[1:]), fill, dtype=values.dtype)
        padded[: len(values)][valid] = values[valid]
        return padded

    mask, prefix_mask = episodes.mask.bool(), episodes.prefix_mask.bool()
    return EpisodeBatch(
        observations={key: longer(value, prefix_mask) for key, value in episodes.observations.items()},
        actions=longer(episodes.actions, mask),
        rewards=longer(episodes.rewards, mask),
        lengths=episodes.lengths,
    )


def test_padding_changes_no_loss_and_no_gradient(model: DREAM, batch: TrialBatch) -> None:
    """Trials have different lengths. If padding counted, what is learned would depend on who else is in the batch."""
    random_output_biases(model)
    padded = dataclasses.replace(batch, exploration=pad(batch.exploration, 5, 1e3), execution=pad(batch.execution, 3, -1e3))
    results = []
    for each in (batch, padded):
        model.policy.optimizer.zero_grad()
        losses = losses_with_noise(model, each)
        losses.total.backward()
        results.append((losses, [p.grad.clone() for p in model._parameters if p.grad is not None]))
    for field in dataclasses.fields(results[0][0]):
        first, second = getattr(results[0][0], field.name).item(), getattr(results[1][0], field.name).item()
        assert first == pytest.approx(second, rel=1e-4), field.name
    for first, second in zip(results[0][1], results[1][1], strict=True):
        th.testing.assert_close(first, second, rtol=1e-3, atol=1e-5)


def one(episodes: EpisodeBatch, b: int) -> EpisodeBatch:
    """Entry b alone, without padding."""
    n = int(episodes.lengths[b])
    return EpisodeBatch(
        observations={key: value[: n + 1, b : b + 1] for key, value in episodes.observations.items()},
        actions=episodes.actions[:n, b : b + 1],
        rewards=episodes.rewards[:n, b : b + 1],
        lengths=episodes.lengths[b : b + 1],
    )


def test_a_batch_gives_the_losses_of_its_trials_one_by_one(model: DREAM, batch: TrialBatch) -> None:
    """The batched LSTMs, masks and gathers must compute what a loop over trials would."""
    random_output_biases(model)
    model.problem_std = 0.0  # a noise for each trial would depend on the order
    together = losses_with_noise(model, batch)
    alone = [
        losses_with_noise(model, TrialBatch(one(batch.exploration, b), one(batch.execution, b), batch.problem_ids[b : b + 1]))
        for b in range(len(batch.problem_ids))
    ]
    weights = {
        "exploration_td": batch.exploration.lengths,
        "execution_td_trajectory": batch.execution.lengths,
        "execution_td_problem": batch.execution.lengths,
        "decoder": batch.exploration.lengths + 1,
    }
    for field in dataclasses.fields(together):
        values = np.array([getattr(each, field.name).item() for each in alone])
        weight = weights.get(field.name)
        expected = np.average(values, weights=None if weight is None else weight.numpy())
        assert getattr(together, field.name).item() == pytest.approx(expected, rel=1e-4), field.name


def test_several_executions_of_a_trial_count_as_trials_of_their_own() -> None:
    """Each has the z of its trial. Trials whose exploration is repeated for each execution give the same losses."""
    model = collect(env_kwargs={"n_execution_episodes": 3}, replay_buffer_kwargs={"n_sampled_executions": 2})
    random_output_biases(model)
    model.problem_std = 0.0
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(6, rng=np.random.default_rng(0))
    assert batch.execution.actions.shape[1] == 12
    together = losses_with_noise(model, batch)
    trials = [
        TrialBatch(one(batch.exploration, b % 6), one(batch.execution, b), batch.problem_ids[b % 6 : b % 6 + 1])
        for b in range(12)
    ]
    alone = [losses_with_noise(model, trial) for trial in trials]
    for name, lengths in {
        "exploration_td": batch.exploration.lengths.repeat(2),
        "decoder": batch.exploration.lengths.repeat(2) + 1,
        "execution_td_trajectory": batch.execution.lengths,
        "execution_td_problem": batch.execution.lengths,
    }.items():
        expected = np.average([getattr(each, name).item() for each in alone], weights=lengths.numpy())
        assert getattr(together, name).item() == pytest.approx(expected, rel=1e-4), name
    with pytest.raises(ValueError, match="equally many executions"):
        TrialBatch(batch.exploration, batch.exploration, batch.problem_ids[:5])


def test_double_q_takes_the_online_argmax_and_the_targets_value() -> None:
    """Lines 16-19. The target's own maximum would overestimate."""
    episodes = EpisodeBatch({}, th.tensor([[0], [1]]), th.zeros(2, 1), th.tensor([2]))
    online = th.tensor([[[0.0, 0.0]], [[5.0, 1.0]], [[9.0, 9.0]]])
    target = th.tensor([[[7.0, 7.0]], [[2.0, 8.0]], [[9.0, 9.0]]])
    # step 0: target 0.99 · target[1][argmax online[1] = 0] = 1.98, value online[0][0] = 0; step 1 ends: 0, value 1
    expected = (1.98**2 + 1.0**2) / 2
    assert td_loss(episodes, episodes.rewards, online, target, gamma=0.99).item() == pytest.approx(expected)


def test_no_bootstrapping_past_the_end_of_an_inner_episode() -> None:
    """An exploration episode and each execution episode end: values beyond would leak one episode's future into another."""
    model = collect("MetaMap-v0", env_kwargs={"n_execution_episodes": 3})
    assert model.replay_buffer is not None
    batch = model.replay_buffer.sample(16, rng=np.random.default_rng(0))
    before = losses_with_noise(model, batch)
    for episodes in (batch.exploration, batch.execution):
        n_batch = th.arange(len(episodes.lengths))
        assert (episodes.dones.sum(dim=0) == 1).all()
        assert (episodes.dones[episodes.lengths - 1, n_batch] == 1).all()
    # what follows the end does not matter: change the last observation of every execution episode
    for b, n in enumerate(batch.execution.lengths.tolist()):
        batch.execution.observations["previous_reward"][n:, b] = 1e3
    after = losses_with_noise(model, batch)
    assert after.execution_td_trajectory.item() == before.execution_td_trajectory.item()
    assert after.execution_td_problem.item() == before.execution_td_problem.item()


def test_dueling_mean_is_taken_per_state() -> None:
    """A mean over the batch would make one state's values depend on the others sampled with it."""
    head = DuelingHead(3, 4, [8], nn.ReLU)
    inputs = th.randn(5, 3)
    q_values = head(inputs)
    for row in range(5):
        th.testing.assert_close(head(inputs[row : row + 1])[0], q_values[row])
    value = head.streams(head.body(inputs))[:, 0]
    th.testing.assert_close(q_values.mean(dim=1), value)


@pytest.mark.parametrize("gated", [True, False])
def test_a_gate_multiplies(gated: bool) -> None:
    """What a thing is worth to a problem is a product. One layer can learn it with the gate, and cannot without."""
    head = DuelingHead(1 if gated else 2, 2, [], nn.ReLU, gate_dim=int(gated))
    optimizer = th.optim.Adam(head.parameters(), 0.05)
    things, problems = (th.randn(256, 1) for _ in range(2))
    for _ in range(300):
        loss = (head(things, [problems]) - things * problems).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3 if gated else loss.item() > 0.5


def test_execution_targets_use_the_target_encoder_and_decoder(model: DREAM, batch: TrialBatch) -> None:
    """Each of the four networks has a target. If z of the target came from the online f or g, the target would chase."""
    random_output_biases(model)
    before = losses_with_noise(model, batch)
    for name, loss in {
        "problem_encoder_target": "execution_td_problem",
        "trajectory_decoder_target": "execution_td_trajectory",
        "explorer_target": "exploration_td",
    }.items():
        with th.no_grad():
            for parameter in getattr(model.policy, name).parameters():
                parameter.add_(0.3)
        after = losses_with_noise(model, batch)
        assert getattr(after, loss).item() != getattr(before, loss).item(), name
        assert after.decoder.item() == before.decoder.item()
        assert after.exploration_reward.item() == before.exploration_reward.item()
