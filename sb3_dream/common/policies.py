"""What the policies share: what a network sees of an observation, sequences of them, and ``predict`` with memory."""

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn

from sb3_dream.common.buffers import as_dict
from sb3_dream.common.checks import check_classes, check_widths
from sb3_dream.common.encoders import LSTMEncoder, SequenceEncoder, Steps, TransitionEncoder, pack, pack_flat
from sb3_dream.common.trial import TRIAL_KEYS


class RecurrentPolicy(BasePolicy):
    """
    Base of the policies here. The features extractor is given what the environment observes, without what a trial adds to
    it; of that, the keys in ``_beside`` are set beside its features.

    :param observation_space: of one space for ``"MlpPolicy"`` and ``"CnnPolicy"``, a flat Dict for ``"MultiInputPolicy"``
    :param action_space: Discrete
    :param net_arch: hidden layers of each head
    :param activation_fn: their activation
    :param lstm_hidden_size: width of each LSTM
    :param n_lstm_layers: layers of each LSTM
    :param features_extractor_class: from the observation of one step to features
    :param features_extractor_kwargs: its arguments
    :param normalize_images: divide images by 255
    :param optimizer_class: any torch optimizer
    :param optimizer_kwargs: its arguments
    :raises ValueError: if the observation space does not suit the policy, or a size is below 1
    :raises TypeError: if an argument is of the wrong kind
    """

    #: what stands beside the features, where an observation has it
    _beside: ClassVar[tuple[str, ...]] = ()
    #: a NamedTuple of what is remembered while acting, each (n_layers, B, width)
    state_class: ClassVar[Any]
    #: what ``predict`` is given one or more of
    _unit: ClassVar[str] = "environments"

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        *,
        net_arch: list[int],
        activation_fn: type[nn.Module],
        lstm_hidden_size: int,
        n_lstm_layers: int,
        features_extractor_class: type[BaseFeaturesExtractor],
        features_extractor_kwargs: dict[str, Any] | None,
        normalize_images: bool,
        optimizer_class: type[th.optim.Optimizer],
        optimizer_kwargs: dict[str, Any] | None,
    ):
        if not isinstance(net_arch, list | tuple):
            raise TypeError(f"net_arch must be a list of whole numbers, got {net_arch!r}")
        check_widths(net_arch=net_arch, lstm_hidden_size=lstm_hidden_size, n_lstm_layers=n_lstm_layers)
        check_classes(
            activation_fn=activation_fn, features_extractor_class=features_extractor_class, optimizer_class=optimizer_class
        )
        if optimizer_kwargs is None:
            optimizer_kwargs = {"fused": True} if optimizer_class in (th.optim.Adam, th.optim.AdamW) else {}
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
        self.net_arch = net_arch
        self.activation_fn = activation_fn
        self.lstm_hidden_size = lstm_hidden_size
        self.n_lstm_layers = n_lstm_layers
        every = as_dict(getattr(observation_space, "spaces", observation_space))
        trial_keys = TRIAL_KEYS if set(TRIAL_KEYS) < set(every) else ()
        self._observer = "family" if trial_keys else "environment"
        #: the environment's own part of the observation, and what the features extractor is made for
        self._own_space = spaces.Dict({key: space for key, space in every.items() if key not in trial_keys})
        self._extractor_space = self._choose_extractor_space(self._own_space)
        self._beside_space = {key: every[key] for key in self._beside if key in trial_keys}

    def _choose_extractor_space(self, own: spaces.Dict) -> spaces.Space:
        """What is observed is one space, whatever its name."""
        if len(own) != 1:
            raise ValueError(
                f"'MlpPolicy' and 'CnnPolicy' are for observations of one space, but the {self._observer}'s has the keys "
                f"{sorted(own)}: use 'MultiInputPolicy'"
            )
        return next(iter(own.values()))

    def _check_is_of_trials(self) -> None:
        if self._observer != "family":
            raise ValueError(
                f"{type(self).__name__} needs the observation space of a TrialEnv, with something in it that the family "
                f"observes, got {self.observation_space}"
            )

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """
        :return: a new one, for the environment's own observation
        :raises ValueError: if it does not suit that observation
        """
        try:
            return self.features_extractor_class(self._extractor_space, **self.features_extractor_kwargs)
        except Exception as error:
            raise ValueError(
                f"features_extractor_class {self.features_extractor_class} with {self.features_extractor_kwargs} does not "
                f"suit the {self._observer}'s observation {self._extractor_space}: {error}"
            ) from error

    def _make_encoder(
        self, extractor: BaseFeaturesExtractor, width: int, transitions: bool = False, **kwargs: bool
    ) -> SequenceEncoder:
        beside_dim = sum(spaces.flatdim(space) for space in self._beside_space.values())
        if transitions:
            return TransitionEncoder(extractor, beside_dim, width, **kwargs)
        return LSTMEncoder(extractor, beside_dim, width, self.n_lstm_layers, **kwargs)

    @property
    @abstractmethod
    def networks(self) -> nn.ModuleList:
        """The networks that learn: those of ``target_networks`` in their order, then those that have no target."""

    @property
    @abstractmethod
    def target_networks(self) -> nn.ModuleList:
        """Their targets."""

    def set_training_mode(self, mode: bool) -> None:
        """
        Batch norm and dropout: only the networks that learn are ever in training mode, as in DQN.

        :param mode: True for training
        """
        self.networks.train(mode)
        if mode:
            self.target_networks.eval()
        self.training = mode

    def steps(self, observations: dict[str, th.Tensor], mask: th.Tensor | None = None) -> Steps:
        """
        What the encoders see of each step, preprocessed as SB3 does (one-hot, images divided by 255).

        :param observations: each (T, B, *shape)
        :param mask: (T, B), 0 for padding
        :return: the steps that are not padding
        """
        n_steps, n_batch = next(iter(observations.values())).shape[:2]
        index = None if mask is None else mask.flatten().nonzero().squeeze(1)
        own = {key: pack(observations[key], index) for key in self._own_space}
        n_rows, device = n_steps * n_batch if index is None else len(index), next(iter(own.values())).device
        inputs: Any = preprocess_obs(own, self._own_space, normalize_images=self.normalize_images)
        if not isinstance(self._extractor_space, spaces.Dict):
            (inputs,) = inputs.values()
        beside = [pack_flat(observations[key], index) for key in self._beside_space]
        feedback = th.cat([th.empty(n_rows, 0, device=device), *beside], dim=-1)
        return Steps(inputs, feedback, (n_steps, n_batch), index)

    @abstractmethod
    def initial_state(self, n_envs: int) -> Any:
        """
        :param n_envs: number B of environments side by side
        :return: the state before the first step, all zeros
        """

    @abstractmethod
    def act(self, observation: dict[str, th.Tensor], state: Any) -> tuple[th.Tensor, Any]:
        """
        One step in each of B environments.

        :param observation: each (B, *shape)
        :param state: from the step before
        :return: Q-values (B, n_actions), and the state to pass in with the next step
        """

    def forget(self, state: Any, episode_start: np.ndarray) -> Any:
        """
        :param state: of B environments
        :param episode_start: (B,), whether a new episode starts
        :return: the state, zeros where one does
        """
        if not np.any(episode_start):
            return state
        kept = th.as_tensor(1.0 - np.asarray(episode_start, dtype=np.float32), device=self.device).view(1, -1, 1)
        return self.state_class(*(part * kept for part in state))

    def predict_q_values(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...], bool]:
        """
        Q-values in numpy, for ``predict``.

        :param observation: of one environment or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new episode starts
        :return: Q-values (B, n_actions), the new state, and whether the observation was of several environments
        :raises ValueError: if the state is of another number of environments, or the observation is what ``reset`` returns
        """
        if isinstance(observation, tuple):  # type: ignore[unreachable]  # nobody checks types in a notebook
            raise ValueError(
                "observation is a tuple: Gymnasium's reset returns (observation, info), of which predict wants the first "
                "(obs, info = env.reset()); that of a VecEnv returns observations alone"
            )
        if self.training:
            self.set_training_mode(False)
        tensors, vectorized = self.obs_to_tensor(observation)
        tensors = as_dict(tensors)
        n_envs = len(next(iter(tensors.values())))
        if state is None:
            acting = self.initial_state(n_envs)
        else:
            device = self.device  # the property looks through all modules
            acting = self.state_class(*(th.as_tensor(part, device=device) for part in state))
            if acting[-1].shape[1] != n_envs:
                raise ValueError(f"state is of {acting[-1].shape[1]} {self._unit}, but the observation of {n_envs}")
        if episode_start is not None:
            acting = self.forget(acting, episode_start)
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

        :param observation: of one environment or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new episode starts
        :param deterministic: no difference here; the algorithm's ``predict`` is ε-greedy unless deterministic
        :return: actions (B,), or one, and the new state
        """
        q_values, state, vectorized = self.predict_q_values(observation, state, episode_start)
        actions = q_values.argmax(axis=1)
        return (actions if vectorized else actions[0]), state

    def _predict(self, observation: Any, deterministic: bool = False) -> th.Tensor:
        tensors = as_dict(observation)
        q_values, _ = self.act(tensors, self.initial_state(len(next(iter(tensors.values())))))
        return q_values.argmax(dim=1)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        data = super()._get_constructor_parameters()
        data.update(
            lr_schedule=self._dummy_schedule,  # dummy lr schedule, not needed for loading policy alone
            net_arch=self.net_arch,
            activation_fn=self.activation_fn,
            lstm_hidden_size=self.lstm_hidden_size,
            n_lstm_layers=self.n_lstm_layers,
            features_extractor_class=self.features_extractor_class,
            features_extractor_kwargs=self.features_extractor_kwargs,
            optimizer_class=self.optimizer_class,
            optimizer_kwargs=self.optimizer_kwargs,
        )
        return data
