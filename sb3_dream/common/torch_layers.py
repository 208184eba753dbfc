"""Features extractors."""

import torch as th
from stable_baselines3.common.torch_layers import NatureCNN
from torch.nn import functional as F


class StandardizedCNN(NatureCNN):
    """
    SB3's ``NatureCNN`` on frames of mean 0 and standard deviation 1, each by its own pixels. On frames that are much alike,
    such as those of a grey room, the plain one learns nothing for long: what differs is little beside what they share.

    :param observation_space: of an image, channels first
    :param features_dim: width of the features
    :param normalized_image: whether pixels are floats already, as in ``NatureCNN``
    :raises AssertionError: if it is no image, as ``NatureCNN``
    """

    def forward(self, observations: th.Tensor) -> th.Tensor:
        """
        :param observations: (n, channels, height, width)
        :return: (n, features_dim)
        """
        return super().forward(F.layer_norm(observations, observations.shape[1:]))
