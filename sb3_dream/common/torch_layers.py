"""Features extractors."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch as th
from stable_baselines3.common.torch_layers import NatureCNN
from torch import nn
from torch.nn import functional as F

from sb3_dream.common.checks import check_whole


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
    :param n_filters: of each of the three convolutions. Half of ``NatureCNN``'s take half as long
    :param kwargs: as of ``NatureCNN``
    :raises AssertionError: if it is no image, as ``NatureCNN``
    :raises ValueError: if ``n_filters`` are not three positive numbers
    """

    def __init__(
        self,
        observation_space: Any,
        features_dim: int = 128,
        bfloat16: bool = False,
        n_filters: Sequence[int] = (32, 64, 64),
        **kwargs: Any,
    ):
        super().__init__(observation_space, features_dim, **kwargs)
        plain = [layer for layer in self.cnn if isinstance(layer, nn.Conv2d)]
        if len(n_filters) != len(plain):
            raise ValueError(f"n_filters must be {len(plain)} numbers, one for each convolution, got {n_filters!r}")
        check_whole(1, **{f"n_filters[{place}]": number for place, number in enumerate(n_filters)})
        self.in_bfloat16 = bfloat16
        layers: list[nn.Module] = []
        n_inputs = observation_space.shape[0]
        for n_outputs, layer in zip(n_filters, plain, strict=True):
            convolution = nn.Conv2d(n_inputs, n_outputs, layer.kernel_size, layer.stride)  # type: ignore[arg-type]
            layers += [convolution, nn.GroupNorm(1, n_outputs), nn.ReLU()]
            n_inputs = n_outputs
        self.cnn = nn.Sequential(*layers, nn.Flatten())
        with th.no_grad():
            n_flat = self.cnn(th.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(n_flat, features_dim), nn.LayerNorm(features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (n, channels, height, width)
        :return: (n, features_dim)
        """
        device = observations.device.type
        with th.autocast(device, th.bfloat16, enabled=self.in_bfloat16 and (device != "cpu" or _has_amx())):
            features = super().forward(F.layer_norm(observations, observations.shape[1:]))
        return features.float()
