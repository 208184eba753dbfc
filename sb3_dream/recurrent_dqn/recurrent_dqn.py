"""Double dueling recurrent DQN on whole-episode replay; on trials, E-RL²."""

from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_dream.common.batches import EpisodeBatch
from sb3_dream.common.buffers import EpisodeReplayBuffer
from sb3_dream.common.checks import check_whole
from sb3_dream.common.losses import td_loss
from sb3_dream.common.off_policy import RecurrentOffPolicyAlgorithm
from sb3_dream.recurrent_dqn.policies import CnnPolicy, MlpPolicy, MultiInputPolicy, RecurrentDQNPolicy

SelfRecurrentDQN = TypeVar("SelfRecurrentDQN", bound="RecurrentDQN")


class RecurrentDQN(RecurrentOffPolicyAlgorithm):
    """
    DQN with memory: a recurrent (DRQN, https://arxiv.org/abs/1507.06527), dueling (https://arxiv.org/abs/1511.06581), double
    (https://arxiv.org/abs/1509.06461) Q-network that learns from whole episodes, and from windows of long ones as R2D2
    (https://openreview.net/forum?id=r1lyTjAqYX) does:

    .. math::

        L(\\theta) = \\operatorname{mean}_t \\big( r_t + \\gamma (1 - d_t)\\, Q_{\\theta'}(h'_{t+1}, a^*_{t+1})
        - Q_\\theta(h_t, a_t) \\big)^2, \\qquad a^*_{t+1} = \\arg\\max_a Q_\\theta(h_{t+1}, a)

    where h_t is the network's memory of the observations up to t, θ' the target network, and d_t = 1 where the episode
    terminates. Where a time limit cuts it, and where a window ends, the value of what comes next counts.

    On trials this is E-RL²: the whole trial, exploration and execution episodes together, is one episode with one memory,
    instruction and bookkeeping are part of the observation, and the problem ID is never used.

    Arguments that DQN has mean what they mean there.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"``, or a class
    :param env: any environment with Discrete actions, an id, or a VecEnv
    :param learning_rate: a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: number of steps kept, over all environments
    :param learning_starts: number of steps before learning starts; actions are random until then
    :param batch_size: number of windows in an update
    :param tau: soft update coefficient of the target network, between 0 and 1
    :param gamma: discount factor
    :param train_freq: update every ``train_freq`` steps of the vectorized environment, or e.g. ``(1, "episode")``. An update
        sees ``batch_size`` windows, so it needs far fewer of them than DQN
    :param gradient_steps: updates each time; -1 for as many as steps were done
    :param replay_buffer_class: ``EpisodeReplayBuffer`` or a subclass
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: must be False: each step is stored once anyway
    :param target_update_interval: update the target network every so many environment steps
    :param exploration_fraction: fraction of training over which ε falls
    :param exploration_initial_eps: ε at the beginning
    :param exploration_final_eps: ε at the end
    :param exploration_duration: the longest time for which a random action is held, in steps: n steps with probability ∝ 1/n
        (εz-greedy, Dabney et al. 2021). 1 is plain ε-greedy
    :param sequence_length: number of transitions in a window, at least 1. Episodes up to this length are learned whole
    :param burn_in: a window that begins inside an episode is preceded by so many steps that only bring up the memory, from
        zero; they are not in the loss. At least 0
    :param max_grad_norm: maximum norm of the gradient
    :param stats_window_size: window size of the rollout statistics
    :param tensorboard_log: where to log for TensorBoard
    :param policy_kwargs: see ``RecurrentDQNPolicy``
    :param verbose: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: seed of every generator
    :param device: "auto", "cpu", "cuda", ...
    :param _init_setup_model: whether to build the networks at once
    :raises ValueError: if an argument is out of its range
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: RecurrentDQNPolicy

    def __init__(
        self,
        policy: str | type[RecurrentDQNPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 1_000,
        batch_size: int = 32,
        tau: float = 0.05,
        gamma: float = 0.99,
        train_freq: int | tuple[int, str] = 16,
        gradient_steps: int = 1,
        replay_buffer_class: type[EpisodeReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        target_update_interval: int = 16,
        exploration_fraction: float = 0.1,
        exploration_initial_eps: float = 1.0,
        exploration_final_eps: float = 0.05,
        exploration_duration: int = 1,
        sequence_length: int = 64,
        burn_in: int = 16,
        max_grad_norm: float = 10.0,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        check_whole(1, batch_size=batch_size, sequence_length=sequence_length)
        check_whole(0, burn_in=burn_in)
        if buffer_size < batch_size:
            raise ValueError(f"buffer_size of {buffer_size} steps is smaller than one batch of {batch_size} windows")
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
        self.sequence_length = sequence_length
        self.burn_in = burn_in
        if _init_setup_model:
            self._setup_model()

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        # windows need no whole episodes, so that what came before a stop is not lost
        self.replay_buffer.cut_unfinished_episodes()  # type: ignore[union-attr]
        return super()._setup_learn(*args, **kwargs)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Sample windows of episodes and update the network.

        :param gradient_steps: number of updates
        :param batch_size: number of windows in each
        """
        buffer = self.replay_buffer
        assert buffer is not None
        if gradient_steps < 1 or buffer.n_windows(self.sequence_length) == 0:
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        losses = []
        for _ in range(gradient_steps):
            batch = buffer.sample(
                batch_size, self._vec_normalize_env, self.rng, sequence_length=self.sequence_length, burn_in=self.burn_in
            )
            loss = self._loss(batch)
            self.policy.optimizer.zero_grad()
            loss.backward()
            th.nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
            self.policy.optimizer.step()
            losses.append(loss.detach())
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        self.logger.record("train/loss", th.stack(losses).mean().item())

    def _loss(self, batch: EpisodeBatch) -> th.Tensor:
        """The TD loss of one batch. Each window begins with an empty memory, which the burn-in fills."""
        steps = self.policy.steps(batch.observations, batch.prefix_mask)
        (q_values,), _ = self.policy.q_net(steps)
        with th.no_grad():
            (target_q_values,), _ = self.policy.q_net_target(steps)
        return td_loss(batch, batch.rewards, q_values, target_q_values, self.gamma)

    def learn(
        self: SelfRecurrentDQN,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "RecurrentDQN",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRecurrentDQN:
        """As ``RecurrentOffPolicyAlgorithm.learn``, with a log every 4 episodes as DQN's."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
