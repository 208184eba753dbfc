"""Small models of IMPORT and VariBAD, and batches of their trials."""

from typing import Any

import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import EpisodeBatch


def collected(cls: Any, n_steps: int = 600, n_envs: int = 4, env_kwargs: dict | None = None, **kwargs: Any) -> Any:
    """A model with trials of different lengths in its replay buffer, which has learned nothing; its weights are so large that
    everything that is observed and remembered shows in its outputs, and targets are apart from what they are targets of."""
    env = make_vec_env("MetaMap-v0", n_envs=n_envs, seed=0, env_kwargs=env_kwargs)
    arguments = {
        "learning_starts": 10**9,
        "buffer_size": 20_000,
        "seed": 0,
        "device": "cpu",
        "policy_kwargs": {"net_arch": [8], "lstm_hidden_size": 6},
        **kwargs,
    }
    model = cls("MlpPolicy", env, **arguments)
    generator = th.Generator().manual_seed(1)
    with th.no_grad():
        for parameter in model.policy.parameters():
            parameter.add_(0.3 * th.randn(parameter.shape, generator=generator).to(parameter.device))
    return model.learn(n_steps)


def one(trials: EpisodeBatch, b: int) -> EpisodeBatch:
    """Entry b alone, without padding."""
    n, column = int(trials.lengths[b]), slice(b, b + 1)
    return EpisodeBatch(
        observations={key: value[: n + 1, column] for key, value in trials.observations.items()},
        actions=trials.actions[:n, column],
        rewards=trials.rewards[:n, column],
        lengths=trials.lengths[column],
    )


def padded(trials: EpisodeBatch, n_steps: int = 3, junk: float = 1e3) -> EpisodeBatch:
    """The same trials with more padding, and junk in all of it (and in what follows the last action)."""

    def longer(values: th.Tensor, valid: th.Tensor) -> th.Tensor:
        fill = junk if values.is_floating_point() else 1
        result = th.full((len(values) + n_steps, *values.shape[1:]), fill, dtype=values.dtype)
        result[: len(values)][valid] = values[valid]
        return result

    return EpisodeBatch(
        observations={key: longer(value, trials.action_mask.bool()) for key, value in trials.observations.items()},
        actions=longer(trials.actions, trials.mask.bool()),
        rewards=longer(trials.rewards, trials.mask.bool()),
        lengths=trials.lengths,
    )


def gradients(model: Any, loss: th.Tensor) -> list[th.Tensor]:
    """Of every parameter that learns."""
    model.policy.optimizer.zero_grad()
    loss.backward()
    return [th.zeros_like(p) if p.grad is None else p.grad.clone() for p in model._parameters]


def moved_by(model: Any, loss: th.Tensor, networks: dict[str, str]) -> str:
    """The symbols of the networks that the loss has a gradient for. No target ever has one."""
    model.policy.optimizer.zero_grad()
    loss.backward()
    assert all(p.grad is None for p in model.policy.target_networks.parameters())
    moves = ""
    for symbol, name in networks.items():
        gradient = [p.grad for p in getattr(model.policy, name).parameters() if p.grad is not None]
        moves += symbol if any(g.abs().sum() > 0 for g in gradient) else ""
    return moves
