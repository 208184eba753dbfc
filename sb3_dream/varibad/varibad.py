"""VariBAD: a belief that is trained to predict the whole trial (Zintgraf et al., 2020)."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from torch.nn import functional as F

from sb3_dream.common.batches import EpisodeBatch
from sb3_dream.common.buffers import EpisodeReplayBuffer
from sb3_dream.common.checks import check_fits, check_range, check_whole
from sb3_dream.common.encoders import Steps, pack, pack_flat
from sb3_dream.common.losses import UpdateLosses, td_loss
from sb3_dream.common.off_policy import RecurrentOffPolicyAlgorithm
from sb3_dream.common.trial_algorithm import TrialAlgorithm
from sb3_dream.varibad.policies import CONDITIONS, CnnPolicy, MlpPolicy, MultiInputPolicy, VariBADPolicy

SelfVariBAD = TypeVar("SelfVariBAD", bound="VariBAD")


@dataclass(frozen=True)
class VariBADLosses(UpdateLosses):
    """The losses of one update, and beside each the parameters that it moves. The last three are the negative ELBO."""

    td: th.Tensor  # θ
    rewards: th.Tensor  # ω, reward decoder
    observations: th.Tensor  # ω, observation decoder
    kl: th.Tensor  # ω

    @property
    def total(self) -> th.Tensor:
        """Their sum."""
        return self.td + self.rewards + self.observations + self.kl


def kl_to_previous(mean: th.Tensor, logvar: th.Tensor) -> th.Tensor:
    """
    :param mean: (T, B, latent_dim), of the belief after each prefix
    :param logvar: the same of its log-variance
    :return: (T, B): KL(q_t ‖ q_{t−1}), and for the first the KL to N(0, I)
    """
    prior_mean = th.cat([th.zeros_like(mean[:1]), mean[:-1]])
    prior_logvar = th.cat([th.zeros_like(logvar[:1]), logvar[:-1]])
    ratio = logvar - prior_logvar
    return 0.5 * (ratio.exp() + (mean - prior_mean).pow(2) * (-prior_logvar).exp() - 1 - ratio).sum(dim=-1)


class VariBAD(TrialAlgorithm):
    """
    VariBAD (Variational Bayes-Adaptive Deep RL). Paper: https://arxiv.org/abs/1910.08348. The belief over the problem,
    ``q(m | τ_:t) = N(mean, σ²)``, comes from a recurrent network that has seen the trial so far, and is trained to predict the
    whole trial of H steps, past and future, from each prefix ``τ_:t``:

    .. math::

        \\operatorname{ELBO}_t = \\mathbb{E}_{q(m \\mid \\tau_{:t})} \\Big[ \\sum_{i=0}^{H-1}
        \\log p(r_{i+1} \\mid o_i, a_i, o_{i+1}, m) + \\log p(o_{i+1} \\mid o_i, a_i, m) \\Big]
        - \\beta \\operatorname{KL}\\big( q(m \\mid \\tau_{:t}) \\,\\Vert\\, q(m \\mid \\tau_{:t-1}) \\big)

    with N(0, I) before the first prefix. A discrete observation is categorical; rewards and all others are normal with unit
    variance (so log p is half a squared error, but for a constant). o is the family's observation as the networks see it; the
    decoders are told instruction, phase and end of the inner episode beside o_i. What follows the last action of a trial is
    seen by nobody: it is not predicted, and its reward is predicted without it.

    Q(o_t, i_t, mean_t, log σ²_t) is feed-forward and learns by double dueling Q-learning on the whole trial, in the place of
    the paper's actor-critic. Its gradient does not reach the belief. The problem ID is never used.

    Arguments that DQN has mean what they mean there.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` (what the family's observation is), or a class
    :param env: a registered id (``"MetaMap-v0"``), a ``TrialEnv``, or a VecEnv of them
    :param learning_rate: a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: number of steps kept, over all environments
    :param learning_starts: number of steps before learning starts; actions are random until then
    :param batch_size: number of whole trials in an update
    :param tau: soft update coefficient of the target networks, between 0 and 1
    :param gamma: discount factor
    :param train_freq: update every ``train_freq`` steps of the vectorized environment, or e.g. ``(1, "episode")``. An update
        sees whole trials, so it needs far fewer of them than DQN
    :param gradient_steps: updates each time; -1 for as many as steps were done
    :param replay_buffer_class: ``EpisodeReplayBuffer`` or a subclass
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: must be False: each step is stored once anyway
    :param target_update_interval: update the target networks every so many environment steps
    :param exploration_fraction: fraction of training over which ε falls
    :param exploration_initial_eps: ε at the beginning
    :param exploration_final_eps: ε at the end
    :param exploration_duration: the longest time for which a random action is held, in steps: n steps with probability ∝ 1/n
        (εz-greedy, Dabney et al. 2021). 1 is plain ε-greedy
    :param kl_weight: β, at least 0
    :param n_prefixes: how many prefixes of each trial, drawn with replacement, the ELBO is taken of in an update, at least 1
    :param max_grad_norm: maximum norm of the gradient of the Q-network, and of that of belief and decoders
    :param stats_window_size: window size of the rollout statistics
    :param tensorboard_log: where to log for TensorBoard
    :param policy_kwargs: see ``VariBADPolicy``
    :param verbose: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: seed of every generator
    :param device: "auto", "cpu", "cuda", ...
    :param _init_setup_model: whether to build the networks at once
    :raises ValueError: if the environment is not made of trials, or an argument is out of its range
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: VariBADPolicy
    _uses_problem_id = False
    _buffer_traits = RecurrentOffPolicyAlgorithm._buffer_traits
    _sampling = RecurrentOffPolicyAlgorithm._sampling

    def __init__(
        self,
        policy: str | type[VariBADPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 2e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 10_000,
        batch_size: int = 64,
        tau: float = 0.05,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 64,
        gradient_steps: int = 1,
        replay_buffer_class: type[EpisodeReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        target_update_interval: int = 64,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        exploration_duration: int = 1,
        kl_weight: float = 0.1,
        n_prefixes: int = 4,
        max_grad_norm: float = 10.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        check_range(0.0, np.inf, kl_weight=kl_weight)
        check_whole(1, n_prefixes=n_prefixes)
        super().__init__(
            policy,
            env,
            learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size,
            tau=tau,
            gamma=gamma,
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=replay_buffer_class or EpisodeReplayBuffer,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            target_update_interval=target_update_interval,
            exploration_fraction=exploration_fraction,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            exploration_duration=exploration_duration,
            max_grad_norm=max_grad_norm,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            policy_kwargs=policy_kwargs,
            verbose=verbose,
            seed=seed,
            device=device,
        )
        self.kl_weight = kl_weight
        self.n_prefixes = n_prefixes
        if _init_setup_model:
            self._setup_model()

    def _store_transition(self, *args: Any, **kwargs: Any) -> None:
        buffer = self.replay_buffer
        assert buffer is not None
        check_fits(buffer.n_steps_under_way.max() + 1, buffer.buffer_size - 1)  # a window has a row after it
        super()._store_transition(*args, **kwargs)

    def _sample(self, batch_size: int) -> EpisodeBatch:
        assert self.replay_buffer is not None
        # no window is shorter than the buffer, so trials are whole
        return self.replay_buffer.sample(
            batch_size, self._vec_normalize_env, self.rng, sequence_length=self.replay_buffer.buffer_size
        )

    def _clip_gradients(self) -> None:
        # apart: the ELBO is a sum over a whole trial, and would drown the TD error
        of_q = list(self.policy.q_net.parameters())
        th.nn.utils.clip_grad_norm_(of_q, self.max_grad_norm)
        th.nn.utils.clip_grad_norm_(self._parameters[len(of_q) :], self.max_grad_norm)

    def _losses(self, trials: EpisodeBatch) -> VariBADLosses:
        """All losses of one update."""
        policy = self.policy
        # one row for each transition: a trial's last observation has no action to value
        steps = policy.steps(trials.observations, trials.action_mask)
        belief, _ = policy.belief(steps)  # (T + 1, B, 2 Z)
        rewards, observations, kl = self._negative_elbo(trials, steps, belief[:-1])

        contexts = [steps.pack(belief.detach())]
        (q_values,), _ = policy.q_net(steps, contexts)
        with th.no_grad():
            (target_q_values,), _ = policy.q_net_target(steps, contexts)
        return VariBADLosses(
            td=td_loss(trials, trials.rewards, q_values, target_q_values, self.gamma),
            rewards=rewards,
            observations=observations,
            kl=self.kl_weight * kl,
        )

    def _negative_elbo(self, trials: EpisodeBatch, steps: Steps, belief: th.Tensor) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param trials: B trials of up to T transitions
        :param steps: their n transitions
        :param belief: (T, B, 2 Z), mean and log-variance after each prefix
        :return: the negative log-likelihoods of rewards and observations, and the KL: each the mean over trials and prefixes
        """
        assert self.rng is not None and steps.index is not None
        policy, n_trials = self.policy, len(trials.lengths)
        mean, logvar = belief.chunk(2, dim=-1)
        shape = (self.n_prefixes, n_trials)
        prefixes = th.as_tensor(self.rng.integers(trials.lengths.cpu().numpy(), size=shape), device=self.device)
        chosen = (prefixes, th.arange(n_trials, device=self.device))  # (K, B)
        noise = self.rng.standard_normal((*shape, policy.latent_dim), dtype=np.float32)
        m = mean[chosen] + (0.5 * logvar[chosen]).exp() * th.as_tensor(noise, device=self.device)
        trial = steps.index % n_trials  # the whole trial is predicted from each prefix

        before = policy.flat_observations(steps)
        after = steps.pack(steps.pad(before)[1:])  # zeros where a trial ends
        told = [pack_flat(trials.observations[key], steps.index) for key in CONDITIONS]
        actions = F.one_hot(pack(trials.actions, steps.index), int(self.action_space.n))  # type: ignore[attr-defined]
        inputs = th.cat([before, *told, actions.float()], dim=-1)
        predicted_rewards = policy.reward_decoder(th.cat([inputs, after], dim=-1), m, trial).squeeze(-1)
        predicted = policy.observation_decoder(inputs, m, trial)
        is_seen = steps.pack(trials.action_mask[1:])
        reward_errors = (predicted_rewards - pack(trials.rewards, steps.index)).pow(2)
        errors = policy.observation_loss(predicted, after) * is_seen
        n_draws = self.n_prefixes * n_trials
        return 0.5 * reward_errors.sum() / n_draws, errors.sum() / n_draws, kl_to_previous(mean, logvar)[chosen].mean()

    def learn(
        self: SelfVariBAD,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "VariBAD",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfVariBAD:
        """As ``RecurrentOffPolicyAlgorithm.learn``, with a log every 1000 trials."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
