"""VariBAD's policy: belief, decoders, and a Q-network with its target."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_flattened_obs_dim
from stable_baselines3.common.torch_layers import (
    BaseFeaturesExtractor,
    CombinedExtractor,
    FlattenExtractor,
    NatureCNN,
    create_mlp,
)
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_dream.common.belief import BeliefPolicy
from sb3_dream.common.checks import check_widths
from sb3_dream.common.encoders import Steps

#: what a decoder is told of a step beside the family's observation: what the trial's rules make rewards and resets depend on
CONDITIONS = ("instruction", "exploring", "episode_end")


def _parts(space: spaces.Space) -> list[tuple[int, bool]]:
    if isinstance(space, spaces.MultiDiscrete):
        return [(int(n), True) for n in space.nvec.flat]
    return [(get_flattened_obs_dim(space), isinstance(space, spaces.Discrete))]


class Decoder(nn.Module):
    """
    An MLP on (inputs, m). What the inputs alone give to its first layer is computed once for all draws of m, and what m gives
    once for all inputs of its trial.

    :param input_dim: width of the inputs
    :param latent_dim: dimension of m
    :param output_dim: width of the output
    :param net_arch: hidden layers
    :param activation_fn: activation
    """

    def __init__(
        self, input_dim: int, latent_dim: int, output_dim: int, net_arch: Sequence[int], activation_fn: type[nn.Module]
    ):
        super().__init__()
        first, *others = net_arch or [output_dim]
        self.from_inputs = nn.Linear(input_dim, first)
        self.from_latent = nn.Linear(latent_dim, first, bias=False)
        rest = [activation_fn(), *create_mlp(first, output_dim, others, activation_fn)] if net_arch else []
        self.rest = nn.Sequential(*rest)

    def forward(self, inputs: th.Tensor, latent: th.Tensor, trial: th.Tensor) -> th.Tensor:
        """
        :param inputs: (n, input_dim)
        :param latent: m, (K, B, latent_dim): K draws for each of B trials
        :param trial: (n,), which of the trials each input is of
        :return: (K, n, output_dim)
        """
        # not index_select: on a GPU it adds up its gradients in another order each time
        return self.rest(self.from_inputs(inputs) + self.from_latent(latent)[:, trial])


class VariBADPolicy(BeliefPolicy):
    """
    The networks of VariBAD, for families whose observation is one space: ``"MlpPolicy"`` flattens it.

    ``"CnnPolicy"`` is for images, and ``"MultiInputPolicy"`` for any flat Dict (or a single space, as a Dict of one).
    ``features_extractor_class`` is given the family's own observation; what the trial adds is set beside its features. The
    decoders see and predict that observation as SB3 preprocesses it (one-hot, images divided by 255), flattened.

    :param observation_space: the observation space of a ``TrialEnv``
    :param action_space: Discrete
    :param lr_schedule: learning rate against progress
    :param net_arch: hidden layers of the dueling head, of the belief's head and of the decoders
    :param activation_fn: their activation
    :param latent_dim: dimension of m
    :param lstm_hidden_size: width of the belief's LSTM
    :param n_lstm_layers: its layers
    :param enable_peaks: whether the belief also sees the peak of each output of its LSTM so far, as in DREAM
    :param features_extractor_class: from the family's observation of one step to features
    :param features_extractor_kwargs: its arguments
    :param normalize_images: divide images by 255
    :param optimizer_class: any torch optimizer
    :param optimizer_kwargs: its arguments
    :raises ValueError: if the observation space is not that of a trial or does not suit the policy, or a size is below 1
    :raises TypeError: if an argument is of the wrong kind
    """

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        latent_dim: int = 8,
        lstm_hidden_size: int = 64,
        n_lstm_layers: int = 1,
        enable_peaks: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        check_widths(latent_dim=latent_dim)
        super().__init__(
            observation_space,
            action_space,
            belief_dim=2 * latent_dim,
            enable_peaks=enable_peaks,
            net_arch=[128, 64] if net_arch is None else net_arch,
            activation_fn=activation_fn,
            lstm_hidden_size=lstm_hidden_size,
            n_lstm_layers=n_lstm_layers,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.latent_dim = latent_dim
        #: what ``flat_observations`` is made of: the width of each part, and whether it is a one-hot vector
        self._observed_parts = [part for key in sorted(self._own_space) for part in _parts(self._own_space[key])]
        observed = sum(width for width, _ in self._observed_parts)
        told = sum(spaces.flatdim(observation_space[key]) for key in CONDITIONS)
        before = observed + told + int(action_space.n)
        #: p(r_{i+1} | o_i, a_i, o_{i+1}, m)
        self.reward_decoder = Decoder(before + observed, latent_dim, 1, self.net_arch, activation_fn)
        #: p(o_{i+1} | o_i, a_i, m)
        self.observation_decoder = Decoder(before, latent_dim, observed, self.net_arch, activation_fn)
        self.q_net_target = deepcopy(self.q_net).requires_grad_(False)
        parameters = list(self.networks.parameters())
        self.optimizer = self.optimizer_class(parameters, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def networks(self) -> nn.ModuleList:
        """The networks that learn; only the first has a target."""
        return nn.ModuleList([self.q_net, self.belief, self.reward_decoder, self.observation_decoder])

    @property
    def target_networks(self) -> nn.ModuleList:
        """The target of the Q-network."""
        return nn.ModuleList([self.q_net_target])

    @staticmethod
    def flat_observations(steps: Steps) -> th.Tensor:
        """
        :param steps: n steps
        :return: (n, d), the family's observation of each, preprocessed
        """
        seen = steps.observations
        parts = [seen[key] for key in sorted(seen)] if isinstance(seen, dict) else [seen]
        return th.cat([part.float().flatten(1) for part in parts], dim=-1)

    def observation_loss(self, predicted: th.Tensor, observed: th.Tensor) -> th.Tensor:
        """
        −log p(o_{i+1} | …), without the constant of a normal: discrete observations are categorical, the others normal with
        unit variance.

        :param predicted: (K, n, d), the observation decoder's output: logits where o is discrete, else the mean
        :param observed: (n, d), from ``flat_observations``
        :return: (K, n)
        """
        loss = th.zeros(predicted.shape[:-1], device=predicted.device)
        widths = [width for width, _ in self._observed_parts]
        parts = zip(self._observed_parts, predicted.split(widths, -1), observed.split(widths, -1), strict=True)
        for (_, is_discrete), ours, theirs in parts:
            if is_discrete:
                loss = loss - (ours.log_softmax(dim=-1) * theirs).sum(dim=-1)
            else:
                loss = loss + 0.5 * (ours - theirs).pow(2).sum(dim=-1)
        return loss

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "latent_dim": self.latent_dim}


MlpPolicy = VariBADPolicy


class CnnPolicy(VariBADPolicy):
    """For families whose observation is an image; parameters as of ``VariBADPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(VariBADPolicy):
    """For families whose observation is a flat Dict of images and vectors; parameters as of ``VariBADPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        return own
