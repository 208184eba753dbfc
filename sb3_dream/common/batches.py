"""What is sampled: padded batches of episodes and of trials."""

from dataclasses import dataclass
from functools import cached_property

import torch as th


@dataclass(frozen=True)
class EpisodeBatch:
    """
    B episodes, or windows of them, padded to T transitions. Time comes first, as nn.LSTM wants it.

    Where an episode terminates, its last observation is not stored (nothing is learned from it: no value is bootstrapped
    past the end); the row then repeats the observation before.
    """

    #: each (T + 1, B, *shape): the observation before transition t, and after the last one
    observations: dict[str, th.Tensor]
    #: (T, B), int64
    actions: th.Tensor
    #: (T, B), float32
    rewards: th.Tensor
    #: (B,), int64: the number of transitions of each episode, between 1 and T
    lengths: th.Tensor
    #: (B,), bool: whether the last transition ends the episode, or there are values beyond it; by default all end
    terminated: th.Tensor | None = None
    #: (B,), int64: how many transitions at the beginning only bring up the memory; by default none
    burn_in: th.Tensor | None = None
    #: (T, B), bool: transitions that only lead from one exploration episode of a trial to the next, whatever the action; by
    #: default there are none
    between: th.Tensor | None = None

    def __post_init__(self) -> None:
        shape = self.actions.shape
        if self.rewards.shape != shape or self.lengths.shape != shape[1:]:
            raise ValueError(f"actions {shape}, rewards {self.rewards.shape} and lengths {self.lengths.shape} do not agree")
        for key, value in self.observations.items():
            if value.shape[:2] != (shape[0] + 1, shape[1]):
                raise ValueError(f"observations[{key!r}] must begin with {(shape[0] + 1, shape[1])}, got {tuple(value.shape)}")
        for name in ("terminated", "burn_in"):
            marks = getattr(self, name)
            if marks is not None and marks.shape != self.lengths.shape:
                raise ValueError(f"{name} must have the shape {tuple(self.lengths.shape)}, got {tuple(marks.shape)}")
        if self.between is not None and self.between.shape != shape:
            raise ValueError(f"between must have the shape {tuple(shape)}, got {tuple(self.between.shape)}")

    def _time(self, n_steps: int) -> th.Tensor:
        return th.arange(n_steps, device=self.lengths.device).unsqueeze(1)

    @cached_property
    def mask(self) -> th.Tensor:
        """(T, B), float32: 1 for a transition that is learned from, 0 for padding, burn-in and between episodes."""
        time = self._time(len(self.actions))
        learned = time < self.lengths
        if self.burn_in is not None:
            learned = learned & (time >= self.burn_in)
        if self.between is not None:
            learned = learned & ~self.between
        return learned.float()

    @cached_property
    def prefix_mask(self) -> th.Tensor:
        """(T + 1, B), float32: 1 for every prefix of the episode, the empty one included."""
        return (self._time(len(self.actions) + 1) <= self.lengths).float()

    @cached_property
    def action_mask(self) -> th.Tensor:
        """(T + 1, B), float32: 1 for every observation that an action answered."""
        return (self._time(len(self.actions) + 1) < self.lengths).float()

    @cached_property
    def dones(self) -> th.Tensor:
        """(T, B), float32: 1 for the transition that ends the episode."""
        last = self._time(len(self.actions)) == self.lengths - 1
        return (last if self.terminated is None else last & self.terminated).float()

    def following(self, values: th.Tensor) -> th.Tensor:
        """
        What each action led to. The end of an episode that another one follows is no place to act: there, it is the beginning
        of that one.

        :param values: (T + 1, B, ...), one for each observation
        :return: (T, B, ...), for each transition the one at the next observation that is acted on
        """
        following = values[1:]
        if self.between is None:
            return following
        ends = th.cat([self.between[1:], th.zeros_like(self.between[:1])])
        beyond = th.cat([following[1:], following[-1:]])
        return th.where(ends.view(*ends.shape, *[1] * (values.dim() - 2)), beyond, following)


@dataclass(frozen=True)
class TrialBatch:
    """B trials: the exploration of each, and M of its execution episodes."""

    #: the paper's exploration buffer. Several exploration episodes of a trial are one sequence, with steps ``between`` them
    exploration: EpisodeBatch
    #: the paper's execution buffer, M · B episodes: the first of each trial, then the second of each, ...
    execution: EpisodeBatch
    #: (B,) int64 for a Discrete problem space, else (B, d)
    problem_ids: th.Tensor

    def __post_init__(self) -> None:
        n_trials, n_executions = len(self.exploration.lengths), len(self.execution.lengths)
        if len(self.problem_ids) != n_trials or n_executions == 0 or n_executions % n_trials:
            raise ValueError(
                f"A TrialBatch needs for each of its {n_trials} explorations a problem ID and equally many executions, got "
                f"{len(self.problem_ids)} and {n_executions}"
            )

    def per_execution(self, values: th.Tensor) -> th.Tensor:
        """
        :param values: (B, ...), one for each trial
        :return: (M · B, ...), for each execution episode that of its trial
        """
        return values.repeat(len(self.execution.lengths) // len(self.problem_ids), *[1] * (values.dim() - 1))


def shift_images(images: th.Tensor, down: int, right: int) -> th.Tensor:
    """
    :param images: (..., height, width)
    :param down: pixels; fewer than 0 is up
    :param right: pixels; fewer than 0 is left
    :return: the images moved, and the edges that they have left repeated
    """
    rows, columns = images.shape[-2:]
    top, bottom, left, end = max(down, 0), rows + min(down, 0), max(right, 0), columns + min(right, 0)
    moved = th.empty_like(images)
    moved[..., top:bottom, left:end] = images[..., top - down : bottom - down, left - right : end - right]
    moved[..., :top, :] = moved[..., top : top + 1, :]
    moved[..., bottom:, :] = moved[..., bottom - 1 : bottom, :]
    moved[..., :left] = moved[..., left : left + 1]
    moved[..., end:] = moved[..., end - 1 : end]
    return moved
