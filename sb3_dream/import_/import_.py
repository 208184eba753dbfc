"""IMPORT: a recurrent belief that is pulled toward an embedding of the problem ID (Kamienny et al., 2020)."""

from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_dream.common.batches import EpisodeBatch
from sb3_dream.common.checks import check_range
from sb3_dream.common.losses import UpdateLosses, masked_mean, td_loss
from sb3_dream.common.trial_algorithm import TrialAlgorithm
from sb3_dream.common.trial_buffers import TrialReplayBuffer
from sb3_dream.import_.policies import CnnPolicy, IMPORTPolicy, MlpPolicy, MultiInputPolicy

SelfIMPORT = TypeVar("SelfIMPORT", bound="IMPORT")


@dataclass(frozen=True)
class IMPORTLosses(UpdateLosses):
    """The losses of one update, and beside each the parameters that it moves."""

    td_belief: th.Tensor  # θ, ω
    td_problem: th.Tensor  # θ, ψ
    belief: th.Tensor  # ω

    @property
    def total(self) -> th.Tensor:
        """Their sum."""
        return self.td_belief + self.td_problem + self.belief


class IMPORT(TrialAlgorithm):
    """
    IMPORT (InforMed POlicy RegularizaTion). Paper: https://arxiv.org/abs/2005.02934. It is trained end to end, with double
    dueling Q-learning in the place of the paper's actor-critic:

    .. math::

        L(\\theta, \\psi, \\omega) = TD(g_\\omega(\\tau_{:t})) + TD(f_\\psi(\\mu))
        + \\beta \\operatorname{mean}_t \\lVert \\operatorname{sg}(f_\\psi(\\mu)) - g_\\omega(\\tau_{:t}) \\rVert^2,

        TD(z_t) = \\operatorname{mean}_t \\big( r_t + \\gamma (1 - d_t)\\, Q_{\\theta'}(o_{t+1}, i_{t+1}, z'_{t+1}, a^*_{t+1})
        - Q_\\theta(o_t, i_t, z_t, a_t) \\big)^2, \\qquad a^*_{t+1} = \\arg\\max_a Q_\\theta(o_{t+1}, i_{t+1}, z_{t+1}, a)

    over the steps t of a whole trial, exploration and execution episodes together. f embeds the problem ID μ, and the
    recurrent belief g has seen the trial so far; z' comes from their targets, and sg stops the gradient. In training a trial
    is acted in from one of the two; at test time always from the belief, and the problem ID is never looked at.

    Arguments that DQN has mean what they mean there.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` (what the family's observation is), or a class
    :param env: a registered id (``"MetaMap-v0"``), a ``TrialEnv`` with ``training=True``, or a VecEnv of them
    :param learning_rate: a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: number of steps kept, over all environments
    :param learning_starts: number of steps before learning starts; actions are random until then
    :param batch_size: number of whole trials in an update
    :param tau: soft update coefficient of the target networks, between 0 and 1
    :param gamma: discount factor
    :param train_freq: update every ``train_freq`` steps of the vectorized environment, or e.g. ``(1, "episode")``. An update
        sees whole trials, so it needs far fewer of them than DQN
    :param gradient_steps: updates each time; -1 for as many as steps were done
    :param replay_buffer_class: ``TrialReplayBuffer`` or a subclass
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: must be False: each step is stored once anyway
    :param target_update_interval: update the target networks every so many environment steps
    :param exploration_fraction: fraction of training over which ε falls
    :param exploration_initial_eps: ε at the beginning
    :param exploration_final_eps: ε at the end
    :param exploration_duration: the longest time for which a random action is held, in steps: n steps with probability ∝ 1/n
        (εz-greedy, Dabney et al. 2021). 1 is plain ε-greedy
    :param belief_weight: β, at least 0
    :param problem_id_probability: the chance that, in training, a trial is acted in from the problem ID
    :param max_grad_norm: maximum norm of the gradient, over all three networks together
    :param stats_window_size: window size of the rollout statistics
    :param tensorboard_log: where to log for TensorBoard
    :param policy_kwargs: see ``IMPORTPolicy``
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
    policy: IMPORTPolicy
    replay_buffer: TrialReplayBuffer | None

    def __init__(
        self,
        policy: str | type[IMPORTPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 2e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 10_000,
        batch_size: int = 64,
        tau: float = 0.05,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 64,
        gradient_steps: int = 1,
        replay_buffer_class: type[TrialReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        target_update_interval: int = 64,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        exploration_duration: int = 1,
        belief_weight: float = 1.0,
        problem_id_probability: float = 0.5,
        max_grad_norm: float = 10.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        check_range(0.0, np.inf, belief_weight=belief_weight)
        check_range(0.0, 1.0, problem_id_probability=problem_id_probability)
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
            replay_buffer_class=replay_buffer_class or TrialReplayBuffer,
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
        self.belief_weight = belief_weight
        self.problem_id_probability = problem_id_probability
        if _init_setup_model:
            self._setup_model()

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._setup_learn(*args, **kwargs)
        #: which trials are acted in from their problem ID
        self._from_id = np.zeros(self.n_envs, dtype=np.bool_)
        return result

    def _q_values(self, observation: dict[str, th.Tensor]) -> th.Tensor:
        assert self.env is not None and self.rng is not None and self._last_episode_starts is not None
        starts = np.flatnonzero(self._last_episode_starts)
        if len(starts):
            self._from_id[starts] = self.rng.random(len(starts)) < self.problem_id_probability
            # a trial that starts has had no step yet whose info could tell
            for env, problem_id in zip(starts, self.env.get_attr("problem_id", starts.tolist()), strict=True):
                self._problem_ids[env] = problem_id
        z = self.policy.problem_encoder(th.as_tensor(np.stack(self._problem_ids), device=self.device))
        use_z = th.as_tensor(self._from_id, device=self.device).unsqueeze(1)
        memory = self.policy.forget(self._acting, self._last_episode_starts)
        q_values, self._acting = self.policy.act(observation, memory, z, use_z)
        return q_values

    def _sample(self, batch_size: int) -> tuple[EpisodeBatch, th.Tensor]:
        assert self.replay_buffer is not None
        return self.replay_buffer.sample_whole(batch_size, self._vec_normalize_env, self.rng)

    def _losses(self, batch: tuple[EpisodeBatch, th.Tensor]) -> IMPORTLosses:
        """All losses of one update."""
        trials, problem_ids = batch
        policy = self.policy
        # a trial's last observation has no action to value
        steps = policy.steps(trials.observations, trials.action_mask)
        f = policy.problem_encoder(problem_ids)  # (B, Z)
        g, _ = policy.belief(steps)  # (T + 1, B, Z)
        (q_belief, q_problem), _ = policy.q_net(steps, [steps.pack(g), steps.spread(f)])
        with th.no_grad():
            f_target = policy.problem_encoder_target(problem_ids)
            g_target, _ = policy.belief_target(steps)
            contexts = [steps.pack(g_target), steps.spread(f_target)]
            (q_belief_target, q_problem_target), _ = policy.q_net_target(steps, contexts)
        distance = (f.detach() - g).pow(2).sum(dim=-1)
        return IMPORTLosses(
            td_belief=td_loss(trials, trials.rewards, q_belief, q_belief_target, self.gamma),
            td_problem=td_loss(trials, trials.rewards, q_problem, q_problem_target, self.gamma),
            belief=self.belief_weight * masked_mean(distance, trials.action_mask),
        )

    def learn(
        self: SelfIMPORT,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "IMPORT",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfIMPORT:
        """As ``RecurrentOffPolicyAlgorithm.learn``, with a log every 1000 trials."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_from_id"]
