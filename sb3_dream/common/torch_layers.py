"""Features extractors."""

from functools import cache
from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn
from torch.nn import functional as F


@cache
def _has_amx() -> bool:
    capabilities = getattr(th.cpu, "get_capabilities", None)  # older versions of torch cannot tell
    return capabilities is not None and bool(capabilities().get("amx_bf16"))


class StandardizedCNN(NatureCNN):
    """
    SB3's ``NatureCNN``, with the frames and what goes into each ReLU brought to mean 0 and standard deviation 1, each frame by
    itself. On frames that are much alike, such as those of a grey room, the plain one learns nothing for long: what differs is
    little beside what they share, and what is learned first, a constant, drives the LSTM behind it into saturation.

    :param observation_space: of an image, channels first
    :param features_dim: width of the features
    :param bfloat16: compute in bfloat16 where that is safe; weights and features stay float32. On one core of a processor with
        AMX it takes 0.4 times as long; on a processor without it changes nothing, as it would take several times as long
    :param kwargs: as of ``NatureCNN``
    :raises AssertionError: if it is no image, as ``NatureCNN``
    """

    def __init__(self, observation_space: Any, features_dim: int = 128, bfloat16: bool = False, **kwargs: Any):
        super().__init__(observation_space, features_dim, **kwargs)
        self.in_bfloat16 = bfloat16
        layers: list[nn.Module] = []
        for layer in self.cnn:
            layers.append(layer)
            if isinstance(layer, nn.Conv2d):
                layers.append(nn.GroupNorm(1, layer.out_channels))
        self.cnn = nn.Sequential(*layers)
        linear, activation = self.linear
        self.linear = nn.Sequential(linear, nn.LayerNorm(features_dim), activation)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (n, channels, height, width)
        :return: (n, features_dim)
        """
        device = observations.device.type
        with th.autocast(device, th.bfloat16, enabled=self.in_bfloat16 and (device != "cpu" or _has_amx())):
            features = super().forward(F.layer_norm(observations, observations.shape[1:]))
        return features.float()
