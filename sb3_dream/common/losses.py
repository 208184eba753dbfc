"""Pieces that losses on padded sequences are made of."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch as th

from sb3_dream.common.batches import EpisodeBatch


@dataclass(frozen=True)
class UpdateLosses(ABC):
    """The losses of one update, each a scalar, and what else is reported of it."""

    @property
    @abstractmethod
    def total(self) -> th.Tensor:
        """What is minimised."""


def masked_mean(values: th.Tensor, mask: th.Tensor) -> th.Tensor:
    """
    :param values: (T, B)
    :param mask: (T, B), 0 for padding
    :return: the mean over what is not padding
    """
    return (values * mask).sum() / mask.sum()


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
        next_actions = episodes.following(q_values).argmax(dim=-1, keepdim=True)
        next_values = episodes.following(target_q_values).gather(-1, next_actions).squeeze(-1)
        targets = rewards + gamma * (1 - episodes.dones) * next_values
    values = q_values[:-1].gather(-1, episodes.actions.unsqueeze(-1)).squeeze(-1)
    return masked_mean((values - targets).pow(2), episodes.mask)
