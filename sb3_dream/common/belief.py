"""The policy that IMPORT and VariBAD share: a recurrent belief over the whole trial, and Q-values from it."""

from typing import Any, NamedTuple

import torch as th
from gymnasium import spaces

from sb3_dream.common.networks import RecurrentQNetwork, TrajectoryDecoder
from sb3_dream.common.policies import RecurrentPolicy
from sb3_dream.common.trial import TRIAL_KEYS


class BeliefState(NamedTuple):
    """What the belief remembers of B trials."""

    hidden: th.Tensor  # (n_layers, B, hidden)
    cell: th.Tensor
    peak: th.Tensor  # (1, B, hidden); stays zero without ``enable_peaks``


class BeliefPolicy(RecurrentPolicy):
    """
    Base of policies that act from a belief: a recurrent network that has seen the whole trial so far, exploration and
    execution episodes together, and a dueling Q-network that sees one step (the observation, and what the trial adds to it)
    and the belief, and remembers nothing itself.

    :param observation_space: the observation space of a ``TrialEnv``
    :param action_space: Discrete
    :param belief_dim: width of the belief
    :param enable_peaks: whether the belief also sees the peak of each output of its LSTM so far, as in DREAM
    :param kwargs: of ``RecurrentPolicy``
    :raises ValueError: if the observation space is not that of a trial or does not suit the policy, or a size is below 1
    :raises TypeError: if an argument is of the wrong kind
    """

    _beside = TRIAL_KEYS
    state_class = BeliefState
    _unit = "trials"

    def __init__(
        self,
        observation_space: spaces.Dict,
        action_space: spaces.Discrete,
        *,
        belief_dim: int,
        enable_peaks: bool,
        **kwargs: Any,
    ):
        super().__init__(observation_space, action_space, **kwargs)
        self._check_is_of_trials()
        self.enable_peaks = enable_peaks
        head = (self.net_arch, self.activation_fn)
        encoder = self._make_encoder(self.make_features_extractor(), self.lstm_hidden_size, peaks=enable_peaks)
        #: g (ω): the trial so far → the belief
        self.belief = TrajectoryDecoder(encoder, belief_dim, *head)
        #: Q (θ), feed-forward
        self.q_net = RecurrentQNetwork(
            self._make_encoder(self.make_features_extractor(), 0), belief_dim, int(action_space.n), *head
        )

    def initial_state(self, n_envs: int) -> BeliefState:
        """
        :param n_envs: number B of trials side by side
        :return: the state before the first step, all zeros
        """
        return BeliefState(*self.belief.encoder.initial_memory(n_envs, self.device))

    def act(
        self,
        observation: dict[str, th.Tensor],
        state: BeliefState,
        z: th.Tensor | None = None,
        use_z: th.Tensor | None = None,
    ) -> tuple[th.Tensor, BeliefState]:
        """
        One step in each of B trials.

        :param observation: each (B, *shape)
        :param state: from the step before
        :param z: (B, belief_dim), which the Q-network is given instead of the belief
        :param use_z: (B, 1), bool: where it is
        :return: Q-values (B, n_actions), and the state to pass in with the next step
        """
        steps = self.steps({key: value.unsqueeze(0) for key, value in observation.items()})
        (belief,), memory = self.belief(steps, state)
        if z is not None and use_z is not None:
            belief = th.where(use_z, z, belief)
        (q_values,), _ = self.q_net(steps, [belief])
        return q_values[0], BeliefState(*memory)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "enable_peaks": self.enable_peaks}
