"""IMPORT's policy: problem encoder, belief and Q-network, and a target for each."""

from copy import deepcopy
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_dream.common.belief import BeliefPolicy
from sb3_dream.common.checks import check_widths
from sb3_dream.common.networks import ProblemEncoder


class IMPORTPolicy(BeliefPolicy):
    """
    The three networks of IMPORT and their targets, for families whose observation is one space: ``"MlpPolicy"`` flattens it.

    ``"CnnPolicy"`` is for images, and ``"MultiInputPolicy"`` for any flat Dict (or a single space, as a Dict of one).
    ``features_extractor_class`` is given the family's own observation; what the trial adds is set beside its features.

    :param observation_space: the observation space of a ``TrialEnv``
    :param action_space: Discrete
    :param lr_schedule: learning rate against progress
    :param problem_space: the space of problem IDs (``IMPORT`` fills it in)
    :param net_arch: hidden layers of the dueling head and of the belief's
    :param activation_fn: their activation
    :param embedding_dim: dimension of z
    :param problem_hidden_dim: width of the problem encoder's table (or MLP)
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
        problem_space: spaces.Space,
        net_arch: list[int] | None = None,
        activation_fn: type[nn.Module] = nn.ReLU,
        embedding_dim: int = 16,
        problem_hidden_dim: int = 32,
        lstm_hidden_size: int = 64,
        n_lstm_layers: int = 1,
        enable_peaks: bool = False,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.Adam,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        check_widths(embedding_dim=embedding_dim, problem_hidden_dim=problem_hidden_dim)
        super().__init__(
            observation_space,
            action_space,
            belief_dim=embedding_dim,
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
        self.problem_space = problem_space
        self.embedding_dim = embedding_dim
        self.problem_hidden_dim = problem_hidden_dim
        #: f (ψ)
        self.problem_encoder = ProblemEncoder(problem_space, embedding_dim, problem_hidden_dim, activation_fn)
        targets = deepcopy(self.networks).requires_grad_(False)
        self.q_net_target, self.belief_target, self.problem_encoder_target = targets
        parameters = list(self.networks.parameters())
        self.optimizer = self.optimizer_class(parameters, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def networks(self) -> nn.ModuleList:
        """The three networks that learn, in the order of ``target_networks``."""
        return nn.ModuleList([self.q_net, self.belief, self.problem_encoder])

    @property
    def target_networks(self) -> nn.ModuleList:
        """Their targets."""
        return nn.ModuleList([self.q_net_target, self.belief_target, self.problem_encoder_target])

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {
            **super()._get_constructor_parameters(),
            "problem_space": self.problem_space,
            "embedding_dim": self.embedding_dim,
            "problem_hidden_dim": self.problem_hidden_dim,
        }


MlpPolicy = IMPORTPolicy


class CnnPolicy(IMPORTPolicy):
    """For families whose observation is an image; parameters as of ``IMPORTPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(IMPORTPolicy):
    """For families whose observation is a flat Dict of images and vectors; parameters as of ``IMPORTPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        return own
