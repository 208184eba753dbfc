"""DREAM's policy: four networks, a target network for each, and how they act on trials."""

from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_dream.common.checks import check_classes, check_widths
from sb3_dream.common.networks import (
    Memory,
    ProblemEncoder,
    RecurrentQNetwork,
    SequenceEncoder,
    Steps,
    TrajectoryDecoder,
    pack,
)
from sb3_dream.common.trial import TRIAL_KEYS, is_on

#: What stands beside the features of each step.
_FEEDBACK = ("previous_action", "previous_reward")


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
    z: th.Tensor  # (1, B, embedding_dim): g(τ^exp) so far


def _forget(memory: Memory, kept: th.Tensor) -> Memory:
    """The memory where ``kept`` (1, B, 1) is 1, and zeros where it is 0."""
    hidden, cell, peak = memory
    return hidden * kept, cell * kept, peak * kept


class DREAMPolicy(BasePolicy):
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
    :param lstm_hidden_size: width of each LSTM
    :param n_lstm_layers: layers of each LSTM
    :param enable_execution_lstm: whether the execution policy remembers its own episode; else it is feed-forward
    :param encoder_weight_decay: weight decay on ψ (f); makes problems that need the same behaviour share a z
    :param decoder_weight_decay: weight decay on ω (g)
    :param features_extractor_class: from the family's observation of one step to features
    :param features_extractor_kwargs: its arguments
    :param share_features_extractor: whether the two policies and the decoder share one. Every loss but the bottleneck then
        moves it, and no weight decay does
    :param normalize_images: divide images by 255
    :param optimizer_class: AdamW decays weights apart from the gradient; any torch optimizer
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
        lstm_hidden_size: int = 32,
        n_lstm_layers: int = 1,
        enable_execution_lstm: bool = True,
        encoder_weight_decay: float = 0.05,
        decoder_weight_decay: float = 0.1,
        features_extractor_class: type[BaseFeaturesExtractor] = FlattenExtractor,
        features_extractor_kwargs: dict[str, Any] | None = None,
        share_features_extractor: bool = False,
        normalize_images: bool = True,
        optimizer_class: type[th.optim.Optimizer] = th.optim.AdamW,
        optimizer_kwargs: dict[str, Any] | None = None,
    ):
        net_arch = [128, 64] if net_arch is None else net_arch
        if not isinstance(net_arch, list | tuple):
            raise TypeError(f"net_arch must be a list of whole numbers, got {net_arch!r}")
        check_widths(
            net_arch=net_arch,
            embedding_dim=embedding_dim,
            problem_hidden_dim=problem_hidden_dim,
            lstm_hidden_size=lstm_hidden_size,
            n_lstm_layers=n_lstm_layers,
        )
        check_classes(
            activation_fn=activation_fn, features_extractor_class=features_extractor_class, optimizer_class=optimizer_class
        )
        if optimizer_kwargs is None:
            optimizer_kwargs = {"fused": True} if optimizer_class is th.optim.AdamW else {}
        super().__init__(
            observation_space,
            action_space,
            features_extractor_class,
            dict(features_extractor_kwargs or {}),  # a copy: SB3 adds to it
            normalize_images=normalize_images,
            optimizer_class=optimizer_class,
            optimizer_kwargs=optimizer_kwargs,
            squash_output=False,
        )
        if not isinstance(observation_space, spaces.Dict) or not set(TRIAL_KEYS) < set(observation_space.spaces):
            raise ValueError(
                "DREAM's policy needs the observation space of a TrialEnv, with something in it that the family observes, "
                f"got {observation_space}"
            )
        self.problem_space = problem_space
        self.net_arch = net_arch
        self.activation_fn = activation_fn
        self.embedding_dim = embedding_dim
        self.problem_hidden_dim = problem_hidden_dim
        self.lstm_hidden_size = lstm_hidden_size
        self.n_lstm_layers = n_lstm_layers
        self.enable_execution_lstm = enable_execution_lstm
        self.encoder_weight_decay = encoder_weight_decay
        self.decoder_weight_decay = decoder_weight_decay
        self.share_features_extractor = share_features_extractor
        #: the family's own part of the observation, and what the features extractor is made for
        self._own_space = spaces.Dict({key: space for key, space in observation_space.items() if key not in TRIAL_KEYS})
        self._extractor_space = self._choose_extractor_space(self._own_space)
        self._build(lr_schedule)

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        """The family's observation is one space, whatever its name."""
        if len(own) != 1:
            raise ValueError(
                f"'MlpPolicy' and 'CnnPolicy' are for families whose observation is one space, but this one has the keys "
                f"{sorted(own)}: use 'MultiInputPolicy'"
            )
        return next(iter(own.values()))

    def _build(self, lr_schedule: Schedule) -> None:
        """Create the networks, their targets and the optimizer, which has a parameter group for each weight decay."""
        n_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        instruction_dim = spaces.flatdim(self.observation_space["instruction"])  # type: ignore[index]
        head = (self.net_arch, self.activation_fn)
        if self.share_features_extractor:
            self.features_extractor = self.make_features_extractor()
        executor_lstm = self.lstm_hidden_size if self.enable_execution_lstm else 0
        #: Q^exp (φ)
        self.explorer = RecurrentQNetwork(self._make_encoder(self.lstm_hidden_size), 0, n_actions, *head)
        #: Q^exe (θ)
        self.executor = RecurrentQNetwork(
            self._make_encoder(executor_lstm), instruction_dim + self.embedding_dim, n_actions, *head
        )
        #: f (ψ)
        self.problem_encoder = ProblemEncoder(
            self.problem_space, self.embedding_dim, self.problem_hidden_dim, self.activation_fn
        )
        #: g (ω)
        decoder_encoder = self._make_encoder(self.lstm_hidden_size, peaks_only=True)
        self.trajectory_decoder = TrajectoryDecoder(decoder_encoder, self.embedding_dim, *head)
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

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """
        :return: a new one, for the family's own observation
        :raises ValueError: if it does not suit the family's observation
        """
        try:
            return self.features_extractor_class(self._extractor_space, **self.features_extractor_kwargs)
        except Exception as error:
            raise ValueError(
                f"features_extractor_class {self.features_extractor_class} with {self.features_extractor_kwargs} does not "
                f"suit the family's observation {self._extractor_space}: {error}"
            ) from error

    def _make_encoder(self, lstm_hidden_size: int, peaks_only: bool = False) -> SequenceEncoder:
        assert isinstance(self.observation_space, spaces.Dict)
        extractor = self.features_extractor if self.share_features_extractor else self.make_features_extractor()
        feedback_dim = sum(spaces.flatdim(self.observation_space[key]) for key in _FEEDBACK)
        return SequenceEncoder(extractor, feedback_dim, lstm_hidden_size, self.n_lstm_layers, peaks_only)

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

    def set_training_mode(self, mode: bool) -> None:
        """
        Batch norm and dropout: only the networks that learn are ever in training mode, as in DQN.

        :param mode: True for training
        """
        self.networks.train(mode)
        self.target_networks.eval()
        self.training = mode

    def steps(self, observations: dict[str, th.Tensor], mask: th.Tensor | None = None) -> Steps:
        """
        What the encoders see of each step, preprocessed as SB3 does (one-hot, images divided by 255).

        :param observations: each (T, B, *shape)
        :param mask: (T, B), 0 for padding
        :return: the steps that are not padding
        """
        n_steps, n_batch = observations["instruction"].shape[:2]
        index = None if mask is None else mask.flatten().nonzero().squeeze(1)
        own = {key: pack(observations[key], index) for key in self._own_space}
        inputs: Any = preprocess_obs(own, self._own_space, normalize_images=self.normalize_images)
        if not isinstance(self._extractor_space, spaces.Dict):
            (inputs,) = inputs.values()
        feedback = th.cat([pack(observations[key], index) for key in _FEEDBACK], dim=-1)
        return Steps(inputs, feedback, (n_steps, n_batch), index)

    @staticmethod
    def context(steps: Steps, observations: dict[str, th.Tensor], z: th.Tensor) -> th.Tensor:
        """
        What the execution policy is given beside the steps: instruction and z.

        :param steps: n steps of B execution episodes
        :param observations: each (T, B, *shape)
        :param z: (B, embedding_dim)
        :return: (n, context_dim)
        """
        return th.cat([steps.pack(observations["instruction"]).flatten(1), steps.spread(z)], dim=-1)

    def initial_state(self, n_envs: int) -> ActingState:
        """
        :param n_envs: number B of trials side by side
        :return: the state before the first step, all zeros
        """
        networks = (self.explorer, self.trajectory_decoder, self.executor)
        memories = [part for network in networks for part in network.encoder.initial_memory(n_envs, self.device)]
        return ActingState(*memories, z=th.zeros(1, n_envs, self.embedding_dim, device=self.device))  # type: ignore[misc]

    def act(
        self, observation: dict[str, th.Tensor], state: ActingState, z: th.Tensor | None = None
    ) -> tuple[th.Tensor, ActingState]:
        """
        One step in each of B trials: Q^exp where exploring, Q^exe where executing. The hidden states are cleared where an
        inner episode starts; an exploration episode's trajectory goes through g on the way.

        :param observation: each (B, *shape)
        :param state: from the step before
        :param z: (B, embedding_dim), what the execution policy acts from; by default g(τ^exp)
        :return: Q-values (B, n_actions), and the state to pass in with the next step
        """
        exploring, start = is_on(observation["exploring"]), is_on(observation["episode_start"])
        explorer, decoder, executor = state[0:3], state[3:6], state[6:9]
        sequence = {key: value.unsqueeze(0) for key, value in observation.items()}
        steps = self.steps(sequence)
        q_values = observation["instruction"].new_empty(0)
        guess = state.z
        if some_explore := bool(exploring.any()):
            kept = (~(start & exploring)).float().view(1, -1, 1)
            (q_explore,), explorer = self.explorer(steps, memory=_forget(explorer, kept))
            g, decoder = self.trajectory_decoder(steps, _forget(decoder, kept))
            guess = th.where(exploring.view(1, -1, 1), g, guess)
            q_values = q_explore[0]
        if not bool(exploring.all()):
            kept = (~start).float().view(1, -1, 1)
            context = self.context(steps, sequence, guess[0] if z is None else z)
            (q_execute,), executor = self.executor(steps, [context], _forget(executor, kept))
            q_values = th.where(exploring.view(-1, 1), q_values, q_execute[0]) if some_explore else q_execute[0]
        return q_values, ActingState(*explorer, *decoder, *executor, guess)

    def predict_q_values(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], bool]:
        """
        Q-values in numpy, for ``predict``. The problem ID is not asked for: z comes from the exploration trajectory.

        :param observation: of one trial or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new trial starts; the observation says so too
        :return: Q-values (B, n_actions), the new state, and whether the observation was of several trials
        """
        if self.training:
            self.set_training_mode(False)
        device = self.device  # the property looks through all modules
        tensors, vectorized = self.obs_to_tensor(observation)
        assert isinstance(tensors, dict)
        n_envs = len(tensors["exploring"])
        if state is None:
            acting = self.initial_state(n_envs)
        else:
            acting = ActingState(*(th.as_tensor(part, device=device) for part in state))
            if acting.z.shape[1] != n_envs:
                raise ValueError(f"state is of {acting.z.shape[1]} trials, but the observation of {n_envs}")
        if episode_start is not None and np.any(episode_start):
            kept = th.as_tensor(1.0 - np.asarray(episode_start, dtype=np.float32), device=device).view(1, -1, 1)
            acting = ActingState(*(part * kept for part in acting))
        with th.no_grad():
            q_values, acting = self.act(tensors, acting)
        return q_values.cpu().numpy(), tuple(part.cpu().numpy() for part in acting), vectorized

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Greedy actions. Recurrent as RecurrentPPO's: pass back the state it returns.

        :param observation: of one trial or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new trial starts
        :param deterministic: no difference here; ``DREAM.predict`` is ε-greedy unless deterministic
        :return: actions (B,), or one, and the new state
        """
        q_values, state, vectorized = self.predict_q_values(observation, state, episode_start)
        actions = q_values.argmax(axis=1)
        return (actions if vectorized else actions[0]), state

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        q_values, _ = self.act(observation, self.initial_state(len(observation["exploring"])))
        return q_values.argmax(dim=1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            lr_schedule=self._dummy_schedule,  # dummy lr schedule, not needed for loading policy alone
            problem_space=self.problem_space,
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            embedding_dim=self.embedding_dim,
            problem_hidden_dim=self.problem_hidden_dim,
            lstm_hidden_size=self.lstm_hidden_size,
            n_lstm_layers=self.n_lstm_layers,
            enable_execution_lstm=self.enable_execution_lstm,
            encoder_weight_decay=self.encoder_weight_decay,
            decoder_weight_decay=self.decoder_weight_decay,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
            share_features_extractor=self.share_features_extractor,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
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
