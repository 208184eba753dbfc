"""What DREAM minimises, and the pieces that its losses are made of."""

from dataclasses import dataclass

import torch as th

from sb3_dream.common.buffers import EpisodeBatch


@dataclass(frozen=True)
class Losses:
    """
    The losses of one update, and beside each the parameters that it moves. ``problem_norm`` and what follows only report.
    """

    exploration_td: th.Tensor  # φ
    execution_td_trajectory: th.Tensor  # θ, ω
    execution_td_problem: th.Tensor  # θ, ψ
    bottleneck: th.Tensor  # ψ
    decoder: th.Tensor  # ω
    problem_norm: th.Tensor  # mean ‖f(μ)‖²
    decoder_distance_start: th.Tensor  # mean ‖f(μ) − g(∅)‖²
    decoder_distance_end: th.Tensor  # mean ‖f(μ) − g(τ)‖²
    exploration_reward: th.Tensor  # mean Σ_t r_t of an exploration episode

    @property
    def total(self) -> th.Tensor:
        """Their sum. Each loss moves its own networks only, so one step on the sum is a step on each."""
        return self.exploration_td + self.execution_td_trajectory + self.execution_td_problem + self.bottleneck + self.decoder


def masked_mean(values: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    :param values: (T, B)
    :param mask: (T, B), 0 for padding
    :return: the mean over what is not padding
    """
    return (values * mask).sum() / mask.sum()


def last_prefix(values: th.Tensor, episodes: EpisodeBatch) -> th.Tensor:
    """
    :param values: (T + 1, B, ...), one for every prefix
    :param episodes: the episodes, of ``lengths`` (B,)
    :return: (B, ...), the one for the whole episode
    """
    return values[episodes.lengths, th.arange(len(episodes.lengths), device=values.device)]


def td_loss(
    episodes: EpisodeBatch, rewards: th.Tensor, q_values: th.Tensor, target_q_values: th.Tensor, gamma: float
) -> th.Tensor:
    """
    Double-Q TD error, squared: the next action is the online network's, its value the target's.

    :param episodes: for actions, ends and the mask
    :param rewards: (T, B)
    :param q_values: (T + 1, B, n_actions), online
    :param target_q_values: the same of the target network, without gradient
    :param gamma: discount factor
    :return: the mean over all transitions
    """
    with th.no_grad():
        next_actions = q_values[1:].argmax(dim=-1, keepdim=True)
        next_values = target_q_values[1:].gather(-1, next_actions).squeeze(-1)
        targets = rewards + gamma * (1 - episodes.dones) * next_values
    values = q_values[:-1].gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
    return masked_mean((values - targets).pow(2), episodes.mask)
