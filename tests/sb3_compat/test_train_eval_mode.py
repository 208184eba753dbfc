"""Batch norm and dropout: training mode while learning, evaluation mode while acting."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from tests.sb3_compat.common import Algorithm, Noise, assert_same, parameters, shake, trials


class NormAndDropout(BaseFeaturesExtractor):
    """Written for the family's Box, as any features extractor for SB3."""

    def __init__(self, observation_space: spaces.Box):
        super().__init__(observation_space, get_flattened_obs_dim(observation_space))
        self.layers = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(self.features_dim), nn.Dropout(0.5))

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """The family's observation."""
        return self.layers(observations)


def made(algorithm: Algorithm, **kwargs: Any) -> Any:
    """A model with them."""
    return algorithm.make(trials(Noise()), policy_kwargs={"features_extractor_class": NormAndDropout}, **kwargs)


def norms(model: Any, target: bool) -> dict[str, th.Tensor]:
    """All that batch norms have learned and counted."""
    return {name: value for name, value in parameters(model).items() if "layers.1." in name and ("_target." in name) == target}


def test_learning_with_batch_norm(algorithm: Algorithm) -> None:
    """SB3's test_dqn_train_with_batch_norm: learning moves parameters and statistics of every batch norm, and leaves the
    targets' alone until they are synced."""
    model = made(algorithm, tau=0.0, target_update_interval=10**9)
    before, targets_before = norms(model, target=False), norms(model, target=True)
    assert any("running_mean" in name for name in before)
    model.learn(200)
    assert model._n_updates > 10
    for name, value in norms(model, target=False).items():
        assert not th.equal(value, before[name]), name
    assert_same(norms(model, target=True), targets_before)


def test_statistics_are_synced_at_once(algorithm: Algorithm) -> None:
    """SB3's DQN copies the running statistics whole when it updates the targets, whatever tau is."""
    model = made(algorithm, tau=0.0, target_update_interval=1).learn(200)
    model._on_step()
    online = norms(model, target=False)
    for name, value in norms(model, target=True).items():
        if "running_" in name:
            th.testing.assert_close(value, online[name.replace("_target.", ".")])
            assert value.abs().max() > 1e-4


def test_collecting_with_batch_norm(algorithm: Algorithm) -> None:
    """SB3's test_offpolicy_collect_rollout_batch_norm: acting must not count as data."""
    model = made(algorithm, gradient_steps=0, target_update_interval=10**9)
    before = parameters(model)
    model.learn(100)
    assert_same(parameters(model), before)


def test_predicting_with_dropout(algorithm: Algorithm) -> None:
    """SB3's test_predict_with_dropout_batch_norm: the same observation gets the same answer, after learning too, when the
    policy was left in training mode; and is not counted."""
    model = shake(made(algorithm).learn(100))
    model.policy.set_training_mode(True)
    before = parameters(model)
    observation, _ = trials(Noise()).reset(seed=0)
    answers = [model.predict(observation, deterministic=True) for _ in range(5)]
    for action, state in answers[1:]:
        assert action == answers[0][0]
        for part, first in zip(state or (), answers[0][1] or (), strict=True):
            np.testing.assert_array_equal(part, first)
    assert_same(parameters(model), before)
