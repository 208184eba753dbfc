"""policy_kwargs, in SB3's manner."""

from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from tests.sb3_compat.common import Algorithm, Noise, random_trials, trials


@pytest.mark.parametrize("net_arch", [[], [4], [12, 16], (4, 4, 4)])
def test_any_architecture(algorithm: Algorithm, net_arch: Any) -> None:
    """SB3's test_flexible_mlp and test_custom_offpolicy: any number of layers, none too."""
    assert algorithm.make(policy_kwargs={"net_arch": net_arch}).learn(100)._n_updates > 2


@pytest.mark.parametrize(
    ("optimizer_class", "optimizer_kwargs"),
    [
        (th.optim.AdamW, {"eps": 1e-3, "weight_decay": 0.25}),
        (th.optim.Adam, {}),
        (th.optim.SGD, {"momentum": 0.9}),
        (RMSpropTFLike, {"alpha": 0.8}),
    ],
)
def test_any_optimizer(algorithm: Algorithm, optimizer_class: Any, optimizer_kwargs: dict[str, Any], tmp_path: Any) -> None:
    """SB3's test_custom_optimizer and test_tf_like_rmsprop_optimizer: it is the one that learns, with its arguments, and it
    comes back from a file."""
    policy_kwargs = {"optimizer_class": optimizer_class, "optimizer_kwargs": optimizer_kwargs}
    model = algorithm.make(policy_kwargs=policy_kwargs, learning_rate=1e-3).learn(100)
    assert model._n_updates > 2
    model.save(tmp_path / "model")
    for each in (model, algorithm.load(tmp_path / "model")):
        optimizer = each.policy.optimizer
        assert type(optimizer) is optimizer_class
        assert each.policy.optimizer_kwargs == optimizer_kwargs
        for key, value in optimizer_kwargs.items():
            assert optimizer.param_groups[0][key] == value
        assert {group["lr"] for group in optimizer.param_groups} == {1e-3}
        learning = {id(parameter) for parameter in each.policy.parameters() if parameter.requires_grad}
        grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
        assert set(grouped) == learning and len(grouped) == len(learning), "each parameter is in one group"


class Doubled(BaseFeaturesExtractor):
    """A user's features extractor, written for the family's own observation."""

    def __init__(self, observation_space: spaces.Space, factor: float = 2.0):
        super().__init__(observation_space, features_dim=3)
        self.space = observation_space
        self.linear = nn.Linear(2, 3)
        self.factor = factor

    def forward(self, observations: Any) -> th.Tensor:
        """A Box is given as it is, and of a Dict each key."""
        own = observations["vec"] if isinstance(observations, dict) else observations
        assert own.shape[1:] == (2,)
        return self.factor * self.linear(own)


@pytest.mark.parametrize("share", [True, False])
def test_a_features_extractor_for_the_familys_observation(algorithm: Algorithm, share: bool) -> None:
    """SB3's custom features extractors are written for what the environment observes. One that was written for the family
    works here unchanged: what the trial adds is set beside its features."""
    kwargs = {"features_extractor_class": Doubled, "features_extractor_kwargs": {"factor": 3.0}}
    model = algorithm.make(trials(Noise()), policy_kwargs={**kwargs, "share_features_extractor": share}).learn(60)
    assert model._n_updates > 2
    extractors = {module for module in model.policy.modules() if isinstance(module, Doubled)}
    assert all(extractor.space == Noise.observation_space and extractor.factor == 3.0 for extractor in extractors)
    if share and algorithm.can_share:
        assert len(extractors) == 4, "exploration's, execution's, and the two of their targets"
        assert model.policy.features_extractor in extractors

    several = spaces.Dict({"vec": Noise.observation_space, "n": spaces.Discrete(3)})
    model = algorithm.make(random_trials(several), "MultiInputPolicy", kwargs).learn(60)
    (space,) = {str(module.space) for module in model.policy.modules() if isinstance(module, Doubled)}
    assert space == str(several)
