"""DREAM: decoupled exploration and execution for meta-reinforcement learning (Liu et al., ICML 2021)."""

from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import FloatSchedule, LinearSchedule

from sb3_dream.common.batches import TrialBatch
from sb3_dream.common.checks import check_range
from sb3_dream.common.trial import is_on
from sb3_dream.common.trial_algorithm import TrialAlgorithm
from sb3_dream.common.trial_buffers import TrialReplayBuffer
from sb3_dream.dream.explain import explain
from sb3_dream.dream.losses import Losses, last_prefix, masked_mean, td_loss
from sb3_dream.dream.policies import CnnPolicy, DREAMPolicy, MlpPolicy, MultiInputPolicy

SelfDREAM = TypeVar("SelfDREAM", bound="DREAM")


class DREAM(TrialAlgorithm):
    """
    DREAM (Decoupling Exploration and Execution in Meta-RL). Paper: https://arxiv.org/abs/2008.02790, Algorithm 1.

    Where trials have several exploration episodes (``n_exploration_episodes`` of ``TrialEnv``), they are one trajectory τ^exp:
    memory, reward and values go through from the first to the last. The step between two of them, whose action is ignored, is
    neither valued, paid nor discounted: what it brings to light is paid to the action before.

    Arguments that DQN has mean what they mean there.

    :param policy: ``"MlpPolicy"``, ``"CnnPolicy"``, ``"MultiInputPolicy"`` (what the family's observation is), or a class
    :param env: a registered id (``"MetaMap-v0"``), a ``TrialEnv`` with ``training=True``, or a VecEnv of them
    :param learning_rate: of all four networks; a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: number of steps kept, over all environments
    :param learning_starts: number of steps before learning starts; actions are random until then
    :param batch_size: number of whole trials in an update
    :param tau: soft update coefficient of the target networks, between 0 and 1
    :param gamma: discount factor
    :param train_freq: update every ``train_freq`` steps of the vectorized environment, or e.g. ``(1, "episode")``. An update
        sees whole trials, so it needs far fewer of them than DQN: one for about 256 environment steps is plenty
    :param gradient_steps: updates each time; -1 for as many as steps were done
    :param replay_buffer_class: ``TrialReplayBuffer`` or a subclass
    :param replay_buffer_kwargs: its arguments
    :param optimize_memory_usage: must be False: each step is stored once anyway
    :param target_update_interval: update the target networks every so many environment steps
    :param exploration_fraction: fraction of training over which ε falls, in both phases unless set apart below
    :param exploration_initial_eps: ε at the beginning, in both phases
    :param exploration_final_eps: ε at the end, in both phases unless set apart below
    :param exploration_duration: the longest time for which a random action is held, in steps: n steps with probability ∝ 1/n
        (εz-greedy, Dabney et al. 2021). 1 is plain ε-greedy
    :param explorer_fraction: fraction of training over which ε of *exploration episodes* falls; by default
        ``exploration_fraction``
    :param explorer_final_eps: final ε of exploration episodes; by default ``exploration_final_eps``
    :param problem_std: ρ, the noise of z ~ N(f(μ), ρ²I), at least 0
    :param bottleneck_weight: λ, the weight of the bottleneck on f, at least 0
    :param bottleneck_size: K. The bottleneck is λ max(‖f(μ)‖², K): it leaves norms under K alone and pulls larger ones
        back, as the authors' program does. (The paper prints min(‖f(μ)‖², K), which drives f to zero.)
    :param exploration_cost: c, the cost of each exploration step, at least 0: a number, or a function of the remaining
        progress (from 1 to 0). It means something only beside ‖f‖², which is small at first: a c that grows from 0 keeps
        exploration from ending early for good
    :param problem_id_probability: the chance that, in training, an execution episode acts from the problem ID instead of
        from the exploration trajectory
    :param max_grad_norm: maximum norm of the gradient, over all four networks together
    :param stats_window_size: window size of the rollout statistics
    :param tensorboard_log: where to log for TensorBoard
    :param policy_kwargs: see ``DREAMPolicy``
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
    policy: DREAMPolicy
    replay_buffer: TrialReplayBuffer | None
    explorer_schedule: Schedule
    exploration_cost_schedule: Schedule

    def __init__(
        self,
        policy: str | type[DREAMPolicy],
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
        explorer_fraction: float | None = None,
        explorer_final_eps: float | None = None,
        problem_std: float = 0.1,
        bottleneck_weight: float = 1.0,
        bottleneck_size: float = 10.0,
        exploration_cost: float | Schedule = 0.01,
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
        if not (callable(exploration_cost) or isinstance(exploration_cost, float | int | np.number)):
            raise TypeError(
                f"exploration_cost must be a number or a function of the remaining progress, got {exploration_cost!r}"
            )
        check_range(
            0.0,
            np.inf,
            problem_std=problem_std,
            bottleneck_weight=bottleneck_weight,
            bottleneck_size=bottleneck_size,
            exploration_cost=None if callable(exploration_cost) else exploration_cost,
        )
        check_range(0.0, 1.0, problem_id_probability=problem_id_probability)
        check_range(0.0, 1.0, explorer_fraction=explorer_fraction, explorer_final_eps=explorer_final_eps)
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
        self.explorer_fraction = explorer_fraction
        self.explorer_final_eps = explorer_final_eps
        self.problem_std = problem_std
        self.bottleneck_weight = bottleneck_weight
        self.bottleneck_size = bottleneck_size
        self.exploration_cost = exploration_cost if callable(exploration_cost) else float(exploration_cost)
        self.problem_id_probability = problem_id_probability
        #: ε of exploration episodes; ``exploration_rate`` is that of execution episodes
        self.explorer_rate = exploration_initial_eps
        #: (P,) or (P, d): the problems that ``learn`` has drawn from
        self.trained_problem_ids = np.empty(0)
        if _init_setup_model:
            self._setup_model()

    def _setup_model(self) -> None:
        super()._setup_model()
        self.explorer_schedule = LinearSchedule(
            self.exploration_initial_eps,
            self.exploration_final_eps if self.explorer_final_eps is None else self.explorer_final_eps,
            self.exploration_fraction if self.explorer_fraction is None else self.explorer_fraction,
        )
        self.exploration_cost_schedule = FloatSchedule(self.exploration_cost)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._setup_learn(*args, **kwargs)
        self._acting_z = self._acting.z[0]
        assert self.env is not None
        lists = [np.array(ids) for ids in [self.trained_problem_ids, *self.env.get_attr("problem_ids")] if len(ids)]
        self.trained_problem_ids = np.unique(np.concatenate(lists), axis=0)
        return result

    # ---- acting: Algorithm 1, lines 3-12 -------------------------------------------------------------------------

    def _q_values(self, observation: dict[str, th.Tensor]) -> th.Tensor:
        executing_starts = ~is_on(observation["exploring"]) & is_on(observation["episode_start"])
        if executing_starts.any():
            self._draw_z(executing_starts.cpu().numpy())
        # where inner episodes start, and so trials, the observation says
        q_values, self._acting = self.policy.act(observation, self._acting, self._acting_z)
        return q_values

    def _draw_z(self, starts: np.ndarray) -> None:
        """For each execution episode that starts, z from the problem ID or from the exploration trajectory (lines 8-10)."""
        assert self.rng is not None and self._acting is not None
        z = th.where(th.as_tensor(starts, device=self.device).unsqueeze(1), self._acting.z[0], self._acting_z)
        from_id = np.flatnonzero(starts & (self.rng.random(self.n_envs) < self.problem_id_probability))
        if len(from_id):
            ids = th.as_tensor(np.stack([self._problem_ids[env] for env in from_id]), device=self.device)
            z[th.as_tensor(from_id, device=self.device)] = self._noisy(self.policy.problem_encoder(ids))
        self._acting_z = z

    def _noisy(self, mean: th.Tensor) -> th.Tensor:
        """A draw of z ~ N(mean, ρ²I)."""
        assert self.rng is not None
        noise = self.rng.standard_normal(tuple(mean.shape), dtype=np.float32)
        return mean + self.problem_std * th.as_tensor(noise, device=self.device)

    def _epsilon(self, observation: Any) -> np.ndarray:
        """Of the phase that each environment is in."""
        return np.where(is_on(np.asarray(observation["exploring"])), self.explorer_rate, self.exploration_rate)

    # ---- learning: Algorithm 1, lines 13-25 ----------------------------------------------------------------------

    def _sample(self, batch_size: int) -> TrialBatch:
        assert self.replay_buffer is not None
        return self.replay_buffer.sample(batch_size, self._vec_normalize_env, self.rng)

    def _losses(self, batch: TrialBatch) -> Losses:
        """All losses of one update, from one batch that both agents share."""
        policy = self.policy
        explored, executed = batch.exploration, batch.execution
        explore_steps = policy.steps(explored.observations, explored.prefix_mask)

        # z of each trial: from its problem ID, and the guesses from every prefix of its exploration trajectory
        f = policy.problem_encoder(batch.problem_ids)  # (B, Z)
        g, _ = policy.trajectory_decoder(explore_steps)  # (T + 1, B, Z)
        distance = (f.detach() - g).pow(2).sum(dim=-1)  # ‖f(μ) − g(τ_:t)‖², (T + 1, B)
        decoder = masked_mean(distance, explored.prefix_mask)  # moves ω only: f is held fixed ("EM")
        squared_norm = f.pow(2).sum(dim=-1)
        bottleneck = self.bottleneck_weight * squared_norm.clamp(min=self.bottleneck_size).mean()

        # exploration: the reward is the drop in distance (Eq. 5), with today's f and g and no gradient through it
        settled = distance.detach()
        cost = self.exploration_cost_schedule(self._current_progress_remaining)
        check_range(0.0, np.inf, exploration_cost=cost)
        reward = settled[:-1] - explored.following(settled) - cost
        (q_explore,), _ = policy.explorer(explore_steps)
        with th.no_grad():
            (q_explore_target,), _ = policy.explorer_target(explore_steps)
        exploration_td = td_loss(explored, reward, q_explore, q_explore_target, self.gamma)

        # execution: z from the trajectory and z from the problem ID, in one pass
        # (an episode's last observation has no action to value)
        execute_steps = policy.steps(executed.observations, executed.action_mask)
        zs = (batch.per_execution(last_prefix(g, explored)), self._noisy(batch.per_execution(f)))
        contexts = [policy.context(execute_steps, executed.observations, z) for z in zs]
        (q_trajectory, q_problem), _ = policy.executor(execute_steps, contexts)
        with th.no_grad():
            f_target = policy.problem_encoder_target(batch.problem_ids)
            g_target, _ = policy.trajectory_decoder_target(explore_steps)
            zs = (batch.per_execution(last_prefix(g_target, explored)), self._noisy(batch.per_execution(f_target)))
            contexts = [policy.context(execute_steps, executed.observations, z) for z in zs]
            (q_trajectory_target, q_problem_target), _ = policy.executor_target(execute_steps, contexts)

        mask = explored.mask
        return Losses(
            exploration_td=exploration_td,
            execution_td_trajectory=td_loss(executed, executed.rewards, q_trajectory, q_trajectory_target, self.gamma),
            execution_td_problem=td_loss(executed, executed.rewards, q_problem, q_problem_target, self.gamma),
            bottleneck=bottleneck,
            decoder=decoder,
            problem_norm=squared_norm.mean(),
            decoder_distance_start=settled[0].mean(),
            decoder_distance_end=last_prefix(settled, explored).mean(),
            exploration_reward=(reward * mask).sum() / mask.shape[1],
        )

    def _on_step(self) -> None:
        super()._on_step()
        self.explorer_rate = self.explorer_schedule(self._current_progress_remaining)
        self.logger.record("rollout/explorer_rate", self.explorer_rate)

    # ---- looking at it -------------------------------------------------------------------------------------------

    explain = explain

    # ---- the rest of SB3's contract ------------------------------------------------------------------------------

    def learn(
        self: SelfDREAM,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 1000,
        tb_log_name: str = "DREAM",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfDREAM:
        """As ``RecurrentOffPolicyAlgorithm.learn``, with a log every 1000 trials."""
        return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_acting_z"]
