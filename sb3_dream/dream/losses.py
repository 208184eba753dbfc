"""What DREAM minimises, and the pieces that its losses are made of."""

from dataclasses import dataclass

import torch as th

from sb3_dream.common.batches import EpisodeBatch
from sb3_dream.common.losses import UpdateLosses, masked_mean, td_loss

__all__ = ["Losses", "last_prefix", "masked_mean", "td_loss"]


@dataclass(frozen=True)
class Losses(UpdateLosses):
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
    exploration_reward: th.Tensor  # mean Σ_t r_t of a trial's exploration

    @property
    def total(self) -> th.Tensor:
        """Their sum. Each loss moves its own networks only, so one step on the sum is a step on each."""
        return self.exploration_td + self.execution_td_trajectory + self.execution_td_problem + self.bottleneck + self.decoder


def last_prefix(values: th.Tensor, episodes: EpisodeBatch) -> th.Tensor:
    """
    :param values: (T + 1, B, ...), one for every prefix
    :param episodes: the episodes, of ``lengths`` (B,)
    :return: (B, ...), the one for the whole episode
    """
    return values[episodes.lengths, th.arange(len(episodes.lengths), device=values.device)]
