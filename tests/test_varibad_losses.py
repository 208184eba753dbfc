"""What VariBAD minimises: the ELBO as its loop over prefixes and steps, and Q-values that leave the belief alone."""

import dataclasses

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from torch.distributions import Categorical, Normal, kl_divergence

from sb3_dream import EpisodeBatch, VariBAD
from sb3_dream.varibad.policies import MultiInputPolicy
from sb3_dream.varibad.varibad import VariBADLosses, kl_to_previous
from tests.rivals import collected, gradients, moved_by, one, padded

NETWORKS = {"θ": "q_net", "ω": "belief", "r": "reward_decoder", "o": "observation_decoder"}


@pytest.fixture(scope="module")
def model() -> VariBAD:
    """With two execution episodes in each trial, which do not say their problem."""
    return collected(VariBAD, env_kwargs={"n_execution_episodes": 2, "training": False}, n_prefixes=3, kl_weight=0.6)


@pytest.fixture
def trials(model: VariBAD) -> EpisodeBatch:
    """Five whole trials of different lengths."""
    assert model.replay_buffer is not None
    model.rng = np.random.default_rng(0)
    trials = model._sample(5)
    assert len(set(trials.lengths.tolist())) > 3
    return trials


def losses_with_noise(model: VariBAD, trials: EpisodeBatch, seed: int = 0) -> VariBADLosses:
    """The losses, with prefixes and noise always the same."""
    model.rng = np.random.default_rng(seed)
    return model._losses(trials)


@pytest.mark.parametrize(("loss", "moves"), [("td", "θ"), ("rewards", "ωr"), ("observations", "ωo"), ("kl", "ω")])
def test_gradient_matrix(model: VariBAD, trials: EpisodeBatch, loss: str, moves: str) -> None:
    """The belief is trained to predict, and by nothing else: with a gradient from Q it would be another E-RL²."""
    assert moved_by(model, getattr(losses_with_noise(model, trials), loss), NETWORKS) == moves


def one_hot(values: th.Tensor, sizes: list[int]) -> th.Tensor:
    """What the networks see of an observation of the map family."""
    return th.cat([th.eye(size)[int(value)] for value, size in zip(values, sizes, strict=True)])


def elbo_by_hand(model: VariBAD, trials: EpisodeBatch) -> tuple[float, float, float]:
    """
    Mean over trials and drawn prefixes t: Σ_i −log p of rewards (without the constant of the normal distribution) and of
    observations (each coordinate one of a few) and KL(q_t ‖ q_{t−1}), one step of one trial after the other.
    """
    policy, sizes = model.policy, model.observation_space["observation"].nvec.tolist()  # type: ignore[index]
    rng = np.random.default_rng(0)
    prefixes = rng.integers(trials.lengths.numpy(), size=(3, 5))
    noise = rng.standard_normal((3, 5, policy.latent_dim), dtype=np.float32)
    sums, first = np.zeros(3), th.tensor([0])
    for k, b in np.ndindex(3, 5):
        trial, t = one(trials, b), int(prefixes[k, b])
        n, seen = int(trial.lengths[0]), {key: value[:, 0] for key, value in trial.observations.items()}
        q = []
        for last in (t - 1, t):
            if last < 0:
                q.append(Normal(th.zeros(policy.latent_dim), th.ones(policy.latent_dim)))
                continue
            prefix = policy.steps({key: value[: last + 1] for key, value in trial.observations.items()})
            mean, logvar = policy.belief(prefix)[0][-1, 0].chunk(2)
            q.append(Normal(mean, (0.5 * logvar).exp()))
        sums[2] += kl_divergence(q[1], q[0]).sum().item()
        m = q[1].mean + q[1].stddev * th.as_tensor(noise[k, b])
        for i in range(n):
            before = one_hot(seen["observation"][i], sizes)
            told = th.cat([seen[key][i] for key in ("instruction", "exploring", "episode_end")])
            inputs = th.cat([before, told, th.eye(7)[trial.actions[i, 0]]])
            after = one_hot(seen["observation"][i + 1], sizes) if i + 1 < n else th.zeros(len(before))
            r = policy.reward_decoder(th.cat([inputs, after])[None], m[None, None], first)[0, 0, 0]
            sums[0] += 0.5 * (r - trial.rewards[i, 0]).item() ** 2
            if i + 1 < n:
                predicted = policy.observation_decoder(inputs[None], m[None, None], first)[0, 0]
                for logits, value in zip(predicted.split(sizes), seen["observation"][i + 1], strict=True):
                    sums[1] -= Categorical(logits=logits).log_prob(value).item()
    rewards, observations, kl = sums / 15
    return rewards, observations, kl


def test_the_elbo_is_its_loop(model: VariBAD, trials: EpisodeBatch) -> None:
    """Each drawn prefix predicts the whole trial, past and future, and pays for what it has learned since the last step."""
    with th.no_grad():
        losses, expected = losses_with_noise(model, trials), elbo_by_hand(model, trials)
    ours = [losses.rewards.item(), losses.observations.item(), losses.kl.item() / 0.6]
    assert ours == pytest.approx(expected, rel=1e-4)
    assert losses.total.item() == pytest.approx(sum(ours[:2]) + 0.6 * ours[2] + losses.td.item())


def test_discrete_parts_are_categorical_and_others_normal(model: VariBAD) -> None:
    """By squared errors, a number of 24 that is seen once a trial is hardly learned beside the steps of every moment."""
    assert isinstance(model.observation_space, spaces.Dict)
    trial = {key: space for key, space in model.observation_space.items() if key != "observation"}
    space = spaces.Dict({**trial, "scent": spaces.Box(0, 1, (2,)), "side": spaces.Discrete(3)})
    policy = MultiInputPolicy(space, spaces.Discrete(7), lambda _: 1e-3)
    generator = th.Generator().manual_seed(0)
    predicted, scent = th.randn(2, 4, 5, generator=generator), th.rand(4, 2, generator=generator)
    sides = th.tensor([0, 2, 1, 2])
    loss = policy.observation_loss(predicted, th.cat([scent, th.eye(3)[sides]], dim=-1))
    normal = Normal(predicted[..., :2], 1.0).log_prob(scent) + 0.5 * np.log(2 * np.pi)
    expected = -normal.sum(dim=-1) - Categorical(logits=predicted[..., 2:]).log_prob(sides)
    th.testing.assert_close(loss, expected)


def test_kl_to_the_belief_before() -> None:
    """Against torch's own, and N(0, I) before the first step."""
    generator = th.Generator().manual_seed(0)
    mean, logvar = th.randn(2, 4, 3, 5, generator=generator)
    q = [Normal(th.zeros(3, 5), th.ones(3, 5)), *(Normal(a, (0.5 * b).exp()) for a, b in zip(mean, logvar, strict=True))]
    expected = th.stack([kl_divergence(q[t + 1], q[t]).sum(-1) for t in range(4)])
    th.testing.assert_close(kl_to_previous(mean, logvar), expected)


def test_q_values_are_given_mean_and_log_variance(model: VariBAD, trials: EpisodeBatch) -> None:
    """What is not known yet is as much a reason to act as what is. The TD error is that of whole trials, one by one."""
    policy, squares = model.policy, []
    with th.no_grad():
        for b in range(5):
            trial = one(trials, b)
            steps = policy.steps({key: value[:-1] for key, value in trial.observations.items()})
            belief, _ = policy.belief(steps)
            assert belief.shape[-1] == 2 * policy.latent_dim
            (q,), _ = policy.q_net(steps, [belief[:, 0]])
            (q_target,), _ = policy.q_net_target(steps, [belief[:, 0]])
            for t in range(int(trial.lengths[0])):
                target = trial.rewards[t, 0]
                if t + 1 < len(q):
                    target = target + model.gamma * q_target[t + 1, 0, q[t + 1, 0].argmax()]
                squares.append(float(target - q[t, 0, trial.actions[t, 0]]) ** 2)
        assert losses_with_noise(model, trials).td.item() == pytest.approx(np.mean(squares), rel=1e-4)


def test_padding_changes_no_loss_and_no_gradient(model: VariBAD, trials: EpisodeBatch) -> None:
    """Else what is learned would depend on who else is in the batch."""
    first, second = losses_with_noise(model, trials), losses_with_noise(model, padded(trials))
    for field in dataclasses.fields(first):
        assert getattr(first, field.name).item() == pytest.approx(getattr(second, field.name).item(), rel=1e-5), field.name
    for ours, theirs in zip(gradients(model, first.total), gradients(model, second.total), strict=True):
        th.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max()))


def test_prefixes_and_noise_follow_the_models_generator(model: VariBAD, trials: EpisodeBatch) -> None:
    """A run can be repeated to the last bit, and each update sees other prefixes."""
    first, again, other = (losses_with_noise(model, trials, seed) for seed in (0, 0, 1))
    assert first.observations.item() == again.observations.item() != other.observations.item()
    assert first.td.item() == other.td.item()


def test_gradients_are_clipped_apart(model: VariBAD, trials: EpisodeBatch) -> None:
    """The ELBO is a sum over a whole trial: clipped together, the Q-network would hardly learn while decoders do."""
    policy, model.max_grad_norm = model.policy, 0.5
    gradients(model, losses_with_noise(model, trials).total * 1e3)
    model._clip_gradients()
    of_q, others = list(policy.q_net.parameters()), list(policy.networks[1:].parameters())
    for parameters in (of_q, others):
        norm = th.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm()
        assert norm.item() == pytest.approx(0.5, rel=1e-4)
