"""DREAM's policy: four networks, a target network for each, and how they act on trials."""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_dream.common.checks import check_range, check_widths
from sb3_dream.common.encoders import Memory, SequenceEncoder, Steps, pack_flat
from sb3_dream.common.networks import ProblemEncoder, RecurrentQNetwork, TrajectoryDecoder
from sb3_dream.common.policies import RecurrentPolicy
from sb3_dream.common.trial import is_on


class ActingState(NamedTuple):
    """What DREAM remembers while it acts on B trials: what three networks do, and the guess of z so far."""

    explorer_hidden: th.Tensor  # (n_layers, B, hidden)
    explorer_cell: th.Tensor
    explorer_peak: th.Tensor  # (1, B, hidden)
    decoder_hidden: th.Tensor
    decoder_cell: th.Tensor
    decoder_peak: th.Tensor
    executor_hidden: th.Tensor
    executor_cell: th.Tensor
    executor_peak: th.Tensor
    explored: th.Tensor  # (1, B, 1): 1 where the last observation was the end of an exploration episode
    z: th.Tensor  # (1, B, embedding_dim): g(τ^exp) so far


def _forget(memory: Memory, begins: th.Tensor) -> Memory:
    """Zeros where ``begins`` (B,), and else the memory."""
    kept = (~begins).float().view(1, -1, 1)
    hidden, cell, peak = memory
    return hidden * kept, cell * kept, peak * kept


class DREAMPolicy(RecurrentPolicy):
    """
    The four networks of DREAM and their targets, for families whose observation is one space: ``"MlpPolicy"`` flattens it.

    ``"CnnPolicy"`` is for images, and ``"MultiInputPolicy"`` for any flat Dict (or a single space, as a Dict of one). As
    everywhere in SB3, ``features_extractor_class`` is given the family's own observation: its space, or with
    ``"MultiInputPolicy"`` the Dict of its keys, without what the trial adds. Previous action and reward are set beside its
    features, and the execution policy gets the instruction.

    :param observation_space: the observation space of a ``TrialEnv``
    :param action_space: Discrete
    :param lr_schedule: learning rate against progress
    :param problem_space: the space of problem IDs (``DREAM`` fills it in)
    :param net_arch: hidden layers of the two dueling heads and of the trajectory decoder
    :param activation_fn: their activation
    :param embedding_dim: dimension of z
    :param problem_hidden_dim: width of the problem encoder's table (or MLP)
    :param lstm_hidden_size: width of each LSTM, or of what stands in its place
    :param n_lstm_layers: layers of each LSTM
    :param enable_exploration_lstm: whether exploration policy and trajectory decoder have an LSTM each; else each has a layer
        over every single transition, and remembers the peaks of its outputs: what has been found so far, whatever came
        between. It takes a fraction of the time, and is enough where single transitions tell all there is to find
    :param enable_execution_lstm: whether the execution policy remembers its own episode; else it is feed-forward
    :param enable_execution_gate: whether instruction and z multiply what the first layer of the execution policy's head makes
        of the observations, instead of adding to it. What an object is worth to which instruction and problem is such a
        product, and is learned from fewer updates so, where seeing it is the hard part
    :param center_problem_encoder: whether the mean over all IDs is taken out of f, for problems that can be counted. It tells
        no problem from another, but the decoder learns it before anything else, and the fewer they are the more of f it is
    :param encoder_weight_decay: weight decay on ψ (f); makes problems that need the same behaviour share a z
    :param decoder_weight_decay: weight decay on ω (g)
    :param features_extractor_class: from the family's observation of one step to features
    :param features_extractor_kwargs: its arguments
    :param share_features_extractor: whether exploration policy and decoder, which see the same observations, share one. The
        losses of both then move it, and no weight decay does. The execution policy has its own in any case: the distances
        that the others are about are many times larger than its rewards, and would drown them
    :param normalize_images: divide images by 255
    :param optimizer_class: AdamW decays weights apart from the gradient; any torch optimizer
    :param optimizer_kwargs: its arguments
    :raises ValueError: if the observation space is not that of a trial or does not suit the policy, or a size is below 1
    :raises TypeError: if an argument is of the wrong kind
    """

    _beside = ("previous_action", "previous_reward")
    state_class = ActingState
    _unit = "trials"

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
        lstm_hidden_size: int = 32,
        n_lstm_layers: int = 1,
        enable_exploration_lstm: bool = True,
        enable_execution_lstm: bool = True,
        enable_execution_gate: bool = False,
        center_problem_encoder: bool = False,
        encoder_weight_decay: float = 0.05,
        decoder_weight_decay: float = 0.1,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = False,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        super().__init__(
            observation_space,
            action_space,
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
        check_widths(embedding_dim=embedding_dim, problem_hidden_dim=problem_hidden_dim)
        check_range(0.0, np.inf, encoder_weight_decay=encoder_weight_decay, decoder_weight_decay=decoder_weight_decay)
        self._check_is_of_trials()
        self.problem_space = problem_space
        self.embedding_dim = embedding_dim
        self.problem_hidden_dim = problem_hidden_dim
        self.enable_exploration_lstm = enable_exploration_lstm
        self.enable_execution_lstm = enable_execution_lstm
        self.enable_execution_gate = enable_execution_gate
        self.center_problem_encoder = center_problem_encoder
        self.encoder_weight_decay = encoder_weight_decay
        self.decoder_weight_decay = decoder_weight_decay
        self.share_features_extractor = share_features_extractor
        self._build(lr_schedule)

    def _build(self, lr_schedule: Schedule) -> None:
        """Create the networks, their targets and the optimizer, which has a parameter group for each weight decay."""
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        instruction_dim = spaces.flatdim(self.observation_space["instruction"])  # type: ignore[index]
        head = (self.net_arch, self.activation_fn)
        if self.share_features_extractor:
            self.features_extractor = self.make_features_extractor()

        def exploration_encoder(**kwargs: bool) -> SequenceEncoder:
            extractor = self.features_extractor if self.share_features_extractor else self.make_features_extractor()
            transitions = not self.enable_exploration_lstm
            return self._make_encoder(extractor, self.lstm_hidden_size, transitions=transitions, **kwargs)

        #: Q^exp (φ)
        self.explorer = RecurrentQNetwork(exploration_encoder(), 0, n_actions, *head)
        #: Q^exe (θ)
        self.executor = RecurrentQNetwork(
            self._make_encoder(self.make_features_extractor(), self.lstm_hidden_size if self.enable_execution_lstm else 0),
            instruction_dim + self.embedding_dim,
            n_actions,
            *head,
            gated=self.enable_execution_gate,
        )
        #: f (ψ)
        self.problem_encoder = ProblemEncoder(
            self.problem_space, self.embedding_dim, self.problem_hidden_dim, self.activation_fn, self.center_problem_encoder
        )
        #: g (ω)
        self.trajectory_decoder = TrajectoryDecoder(exploration_encoder(peaks_only=True), self.embedding_dim, *head)
        # copied in one go, so that the targets share among themselves what the networks share
        targets = deepcopy(self.networks).requires_grad_(False)
        self.explorer_target, self.executor_target, self.problem_encoder_target, self.trajectory_decoder_target = targets
        shared = list(self.features_extractor.parameters()) if self.share_features_extractor else []

        def group(weight_decay: float, *networks: nn.Module) -> dict[str, Any]:
            own = [p for network in networks for p in network.parameters() if all(p is not other for other in shared)]
            return {"params": own, "weight_decay": weight_decay}

        groups = [
            group(self.optimizer_kwargs.get("weight_decay", 0.0), self.explorer, self.executor),
            group(self.encoder_weight_decay, self.problem_encoder),
            group(self.decoder_weight_decay, self.trajectory_decoder),
        ]
        if shared:
            groups.append({"params": shared, "weight_decay": 0.0})
        self.optimizer = self.optimizer_class(groups, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    @property
    def networks(self) -> nn.ModuleList:
        """The four networks that learn, in the order of ``target_networks``."""
        return nn.ModuleList([self.explorer, self.executor, self.problem_encoder, self.trajectory_decoder])

    @property
    def target_networks(self) -> nn.ModuleList:
        """Their targets."""
        return nn.ModuleList(
            [self.explorer_target, self.executor_target, self.problem_encoder_target, self.trajectory_decoder_target]
        )

    @staticmethod
    def context(steps: Steps, observations: dict[str, th.Tensor], z: th.Tensor) -> th.Tensor:
        """
        What the execution policy is given beside the steps: instruction and z.

        :param steps: n steps of B execution episodes
        :param observations: each (T, B, *shape)
        :param z: (B, embedding_dim)
        :return: (n, context_dim)
        """
        return th.cat([pack_flat(observations["instruction"], steps.index), steps.spread(z)], dim=-1)

    def initial_state(self, n_envs: int) -> ActingState:
        """
        :param n_envs: number B of trials side by side
        :return: the state before the first step, all zeros
        """
        networks = (self.explorer, self.trajectory_decoder, self.executor)
        memories = [part for network in networks for part in network.encoder.initial_memory(n_envs, self.device)]
        explored, z = (th.zeros(1, n_envs, width, device=self.device) for width in (1, self.embedding_dim))
        return ActingState(*memories, explored=explored, z=z)  # type: ignore[misc]

    def act(
        self, observation: dict[str, th.Tensor], state: ActingState, z: th.Tensor | None = None
    ) -> tuple[th.Tensor, ActingState]:
        """
        One step in each of B trials: Q^exp where exploring, Q^exe where executing. Q^exp and g take the exploration episodes
        of a trial as one trajectory: what they remember is cleared where an exploration episode starts, unless the observation
        before was the end of another. Q^exe's is cleared where an execution episode starts.

        :param observation: each (B, *shape)
        :param state: from the step before
        :param z: (B, embedding_dim), what the execution policy acts from; by default g(τ^exp)
        :return: Q-values (B, n_actions), and the state to pass in with the next step
        """
        exploring, start, end = (is_on(observation[key]) for key in ("exploring", "episode_start", "episode_end"))
        explorer, decoder, executor = state[0:3], state[3:6], state[6:9]
        sequence = {key: value.unsqueeze(0) for key, value in observation.items()}
        steps = self.steps(sequence)
        q_values = observation["instruction"].new_empty(0)
        guess = state.z
        n_exploring, some_start = int(exploring.count_nonzero()), bool(start.any())
        if n_exploring > 0:
            if some_start:
                begins = start & exploring & (state.explored.view(-1) == 0)
                explorer, decoder = _forget(explorer, begins), _forget(decoder, begins)
            (q_explore,), explorer = self.explorer(steps, memory=explorer)
            g, decoder = self.trajectory_decoder(steps, decoder)
            guess = th.where(exploring.view(1, -1, 1), g, guess)
            q_values = q_explore[0]
        if n_exploring < len(exploring):
            context = self.context(steps, sequence, guess[0] if z is None else z)
            executor = _forget(executor, start) if some_start else executor
            (q_execute,), executor = self.executor(steps, [context], executor)
            q_values = th.where(exploring.view(-1, 1), q_values, q_execute[0]) if n_exploring > 0 else q_execute[0]
        explored = (exploring & end).view(1, -1, 1)
        return q_values, ActingState(*explorer, *decoder, *executor, explored, guess)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            problem_space=self.problem_space,
            embedding_dim=self.embedding_dim,
            problem_hidden_dim=self.problem_hidden_dim,
            enable_exploration_lstm=self.enable_exploration_lstm,
            enable_execution_lstm=self.enable_execution_lstm,
            enable_execution_gate=self.enable_execution_gate,
            center_problem_encoder=self.center_problem_encoder,
            encoder_weight_decay=self.encoder_weight_decay,
            decoder_weight_decay=self.decoder_weight_decay,
            share_features_extractor=self.share_features_extractor,
        )
        return data


MlpPolicy = DREAMPolicy


class CnnPolicy(DREAMPolicy):
    """For families whose observation is an image; parameters as of ``DREAMPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": NatureCNN, **kwargs})


class MultiInputPolicy(DREAMPolicy):
    """For families whose observation is a flat Dict of images and vectors; parameters as of ``DREAMPolicy``."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{"features_extractor_class": CombinedExtractor, **kwargs})

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        return own
