"""Features extractors."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class SmallCNN(BaseFeaturesExtractor):
    """
    The convolutions of DREAM's authors for frames of 80 x 60: three layers of 32 filters, of 5x5, 5x5 and 4x4, each with
    stride 2; then a linear layer. A frame needs at least 25 pixels each way.

    :param observation_space: of an image, channels first
    :param features_dim: width of the features
    :param normalized_image: whether pixels are floats already, as in SB3's ``NatureCNN``
    :raises ValueError: if it is no image, or too small
    """

    def __init__(self, observation_space: spaces.Box, features_dim: int = 128, normalized_image: bool = False):
        super().__init__(observation_space, features_dim)
        if not is_image_space(observation_space, check_channels=False, normalized_image=normalized_image):
            raise ValueError(
                f"SmallCNN is for images, (channels, height, width) of uint8 from 0 to 255, got {observation_space}"
            )
        if min(observation_space.shape[1:]) < 25:
            raise ValueError(f"SmallCNN needs images of at least 25 x 25 pixels, got {observation_space.shape}")
        layers: list[nn.Module] = []
        channels = observation_space.shape[0]
        for kernel_size in (5, 5, 4):
            layers += [nn.Conv2d(channels, 32, kernel_size, stride=2), nn.ReLU(inplace=True)]
            channels = 32
        # with channels last in memory a CPU takes two thirds of the time
        self.cnn = nn.utils.convert_conv2d_weight_memory_format(nn.Sequential(*layers, nn.Flatten()), th.channels_last)
        with th.no_grad():
            n_flatten = self.cnn(th.zeros(1, *observation_space.shape)).shape[1]
        self.linear = nn.Sequential(nn.Linear(n_flatten, features_dim), nn.ReLU())

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (n, channels, height, width), floats from 0 to 1
        :return: (n, features_dim)
        """
        return self.linear(self.cnn(observations))
