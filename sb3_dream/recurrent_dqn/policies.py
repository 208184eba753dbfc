"""RecurrentDQN's policy: one recurrent dueling Q-network and its target."""

from copy import deepcopy
from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_dream.common.networks import RecurrentQNetwork
from sb3_dream.common.policies import RecurrentPolicy
from sb3_dream.common.trial import TRIAL_KEYS


class ActingState(NamedTuple):
    """What the Q-network remembers of B episodes."""

    hidden: th.Tensor  # (n_layers, B, hidden)
    cell: th.Tensor
    peak: th.Tensor  # (1, B, hidden); stays zero without ``enable_peaks``


class RecurrentDQNPolicy(RecurrentPolicy):
    """
    A recurrent dueling Q-network and its target, for observations of one space: ``"MlpPolicy"`` flattens it.

    ``"CnnPolicy"`` is for images, and ``"MultiInputPolicy"`` for any flat Dict (or a single space, as a Dict of one). On
    trials, ``features_extractor_class`` is given the family's own observation, and what the trial adds (instruction, flags,
    previous action and reward) is set beside its features. On any other environment the network sees the observation and
    nothing beside it: neither the previous action nor the reward, which ``predict`` is not given.

    :param observation_space: any space that DQN takes, or that of a ``TrialEnv``
    :param action_space: Discrete
    :param lr_schedule: learning rate against progress
    :param net_arch: hidden layers of the dueling head
    :param activation_fn: their activation
    :param lstm_hidden_size: width of the LSTM
    :param n_lstm_layers: layers of the LSTM
    :param enable_peaks: whether the head also sees the peak of each output of the LSTM so far, as in DREAM. It keeps single
        findings to the end of a trial; but peaks of a window are not those of a long episode, so it is not for windows
    :param features_extractor_class: from the observation of one step to features
    :param features_extractor_kwargs: its arguments
    :param normalize_images: divide images by 255
    :param optimizer_class: any torch optimizer
    :param optimizer_kwargs: its arguments
    :raises ValueError: if the observation space does not suit the policy, or a size is below 1
    :raises TypeError: if an argument is of the wrong kind
    """

    _beside = TRIAL_KEYS
    state_class = ActingState

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        lstm_hidden_size: int = 64,
        n_lstm_layers: int = 1,
        enable_peaks: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
            net_arch=[64] if net_arch is None else net_arch,
            activation_fn=activation_fn,
            lstm_hidden_size=lstm_hidden_size,
            n_lstm_layers=n_lstm_layers,
            features_extractor_class=features_extractor_class,
            features_extractor_kwargs=features_extractor_kwargs,
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
        )
        self.enable_peaks = enable_peaks
        encoder = self._make_encoder(self.make_features_extractor(), lstm_hidden_size, peaks=enable_peaks)
        self.q_net = RecurrentQNetwork(encoder, 0, int(action_space.n), self.net_arch, activation_fn)
        self.q_net_target = deepcopy(self.q_net).requires_grad_(False)
        parameters = list(self.q_net.parameters())
        self.optimizer = self.optimizer_class(parameters, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def networks(self) -> nn.ModuleList:
        """The network that learns."""
        return nn.ModuleList([self.q_net])

    @property
    def target_networks(self) -> nn.ModuleList:
        """Its target."""
        return nn.ModuleList([self.q_net_target])

    def initial_state(self, n_envs: int) -> ActingState:
        """
        :param n_envs: number B of environments side by side
        :return: the state before the first step, all zeros
        """
        return ActingState(*self.q_net.encoder.initial_memory(n_envs, self.device))

    def act(self, observation: dict[str, th.Tensor], state: ActingState) -> tuple[th.Tensor, ActingState]:
        """
        One step in each of B environments.

        :param observation: each (B, *shape)
        :param state: from the step before
        :return: Q-values (B, n_actions), and the state to pass in with the next step
        """
        steps = self.steps({key: value.unsqueeze(0) for key, value in observation.items()})
        (q_values,), memory = self.q_net(steps, memory=state)
        return q_values[0], ActingState(*memory)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "enable_peaks": self.enable_peaks}


MlpPolicy = RecurrentDQNPolicy


class CnnPolicy(RecurrentDQNPolicy):
    """For images; parameters as of ``RecurrentDQNPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(RecurrentDQNPolicy):
    """For flat Dicts of images and vectors; parameters as of ``RecurrentDQNPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        return own
