"""DREAM: decoupled exploration and execution for meta-reinforcement learning (Liu et al., ICML 2021)."""

from collections import deque
from dataclasses import fields
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import (
    FloatSchedule,
    LinearSchedule,
    get_parameters_by_name,
    obs_as_tensor,
    polyak_update,
    safe_mean,
)

from sb3_dream.common.buffers import TrialBatch, TrialReplayBuffer
from sb3_dream.common.checks import check_range
from sb3_dream.common.off_policy import RecurrentOffPolicyAlgorithm
from sb3_dream.common.trial import TRIAL_KEYS, is_on
from sb3_dream.dream.losses import Losses, last_prefix, masked_mean, td_loss
from sb3_dream.dream.policies import ActingState, CnnPolicy, DREAMPolicy, MlpPolicy, MultiInputPolicy

SelfDREAM = TypeVar("SelfDREAM", bound="DREAM")


class DREAM(RecurrentOffPolicyAlgorithm):
    """
    DREAM (Decoupling Exploration and Execution in Meta-RL). Paper: https://arxiv.org/abs/2008.02790, Algorithm 1.

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
    :param explorer_fraction: fraction of training over which ε of the *exploration episode* falls; by default
        ``exploration_fraction``
    :param explorer_final_eps: final ε of the exploration episode; by default ``exploration_final_eps``
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
    exploration_schedule: Schedule
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
        check_range(
            0.0,
            np.inf,
            problem_std=problem_std,
            bottleneck_weight=bottleneck_weight,
            bottleneck_size=bottleneck_size,
            exploration_cost=exploration_cost if isinstance(exploration_cost, float | int) else None,
        )
        check_range(
            0.0,
            1.0,
            gamma=gamma,
            tau=tau,
            problem_id_probability=problem_id_probability,
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            explorer_final_eps=explorer_final_eps,
        )
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least one trial, got {batch_size}")
        # a trial takes at least 3 steps: explore, between episodes, execute
        if buffer_size < 3 * batch_size:
            raise ValueError(f"buffer_size of {buffer_size} steps is smaller than one batch of {batch_size} trials")
        super().__init__(
            self.policy_aliases.get(policy, policy) if isinstance(policy, str) else policy,
            env,
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            tau,
            gamma,
            train_freq,
            gradient_steps,
            replay_buffer_class=replay_buffer_class or TrialReplayBuffer,
            replay_buffer_kwargs=dict(replay_buffer_kwargs or {}),  # copies: what the trials are like is added
            optimize_memory_usage=optimize_memory_usage,
            policy_kwargs=dict(policy_kwargs or {}),
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
            support_multi_env=True,
        )
        self.target_update_interval = target_update_interval
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.explorer_fraction = explorer_fraction
        self.explorer_final_eps = explorer_final_eps
        self.problem_std = problem_std
        self.bottleneck_weight = bottleneck_weight
        self.bottleneck_size = bottleneck_size
        self.exploration_cost = exploration_cost
        self.problem_id_probability = problem_id_probability
        self.max_grad_norm = max_grad_norm
        self._n_calls = 0
        #: ε of execution and of exploration episodes
        self.exploration_rate = exploration_initial_eps
        self.explorer_rate = exploration_initial_eps
        if _init_setup_model:
            self._setup_model()

    def _check_trials(self) -> None:
        """Learn what the networks and the buffer need to know of the trials, or say what is wrong with the environment."""
        assert self.env is not None
        space = self.observation_space
        if not isinstance(space, spaces.Dict) or not set(TRIAL_KEYS) <= set(space.spaces):
            raise ValueError(
                "DREAM learns on trials, but the environment's observation has no "
                f"{sorted(set(TRIAL_KEYS) - set(getattr(space, 'spaces', {})))}: wrap the family in sb3_dream.TrialEnv, "
                f"or use a registered id such as 'MetaMap-v0'. Got {space}"
            )
        for name, settings in {
            "problem_space": (self.policy_kwargs, self.replay_buffer_kwargs),
            "n_execution_episodes": (self.replay_buffer_kwargs,),
        }.items():
            first, *others = self.env.get_attr(name)
            wanted = settings[0].get(name, first)  # what the networks and the buffer were made for
            for value in [first, *others]:
                if value != wanted:
                    raise ValueError(
                        f"{name} of the environment is {value}, but must be {wanted} as in the model and everywhere"
                    )
            for kwargs in settings:
                kwargs[name] = wanted

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        Learn on another environment of the same spaces, problem space and number of execution episodes.

        :param env: trials, or a VecEnv of as many as before
        :param force_reset: begin with a reset
        :raises ValueError: if the environment does not fit
        """
        super().set_env(env, force_reset)
        self._check_trials()

    def _setup_model(self) -> None:
        if self.env is not None:
            self._check_trials()
        super()._setup_model()
        initial, final, fraction = self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        self.exploration_schedule = LinearSchedule(initial, final, fraction)
        self.explorer_schedule = LinearSchedule(
            initial,
            final if self.explorer_final_eps is None else self.explorer_final_eps,
            fraction if self.explorer_fraction is None else self.explorer_fraction,
        )
        self.exploration_cost_schedule = FloatSchedule(self.exploration_cost)
        networks, targets = self.policy.networks, self.policy.target_networks
        self._parameters = list(networks.parameters())
        self._target_parameters = list(targets.parameters())
        self._batch_norm_stats = get_parameters_by_name(networks, ["running_"])
        self._batch_norm_stats_target = get_parameters_by_name(targets, ["running_"])
        self._acting: ActingState | None = None
        self._trial_infos: deque[dict[str, Any]] = deque(maxlen=self._stats_window_size)

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._setup_learn(*args, **kwargs)
        self._acting = self.policy.initial_state(self.n_envs)
        self._acting_z = self._acting.z[0]
        self._problem_ids: list[Any] = [None] * self.n_envs
        return result

    # ---- acting: Algorithm 1, lines 3-12 -------------------------------------------------------------------------

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(self._last_obs, dict) and self._acting is not None
        with th.no_grad():
            observation = obs_as_tensor(self._last_obs, self.device)
            executing_starts = ~is_on(self._last_obs["exploring"]) & is_on(self._last_obs["episode_start"])
            if executing_starts.any():
                self._draw_z(executing_starts)
            q_values, self._acting = self.policy.act(observation, self._acting, self._acting_z)  # type: ignore[arg-type]
        warming_up = self.num_timesteps < learning_starts
        actions = self._epsilon_greedy(self.rng, q_values.cpu().numpy(), is_on(self._last_obs["exploring"]), warming_up)
        return actions, actions

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

    def _epsilon_greedy(
        self, rng: np.random.Generator | None, q_values: np.ndarray, exploring: np.ndarray, warming_up: bool = False
    ) -> np.ndarray:
        """Greedy, or random with the ε of the phase that each environment is in. The networks have run in any case."""
        assert rng is not None
        n_envs, n_actions = q_values.shape
        epsilon = 1.0 if warming_up else np.where(exploring.reshape(n_envs), self.explorer_rate, self.exploration_rate)
        random = rng.random(n_envs) < epsilon
        return np.where(random, rng.integers(n_actions, size=n_envs), q_values.argmax(axis=1))

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        normalizer = self._vec_normalize_env
        if normalizer is None:
            self._last_original_obs, new_original_obs = self._last_obs, new_obs
        else:
            new_original_obs, reward = normalizer.get_original_obs(), normalizer.get_original_reward()
        try:
            self._problem_ids = [info["problem_id"] for info in infos]
        except KeyError as error:
            raise ValueError(
                "info has no 'problem_id': DREAM learns on trials with training=True (their default on the train split)"
            ) from error
        self._refuse_nan(new_original_obs, reward)
        replay_buffer.add(self._last_original_obs, new_original_obs, buffer_action, reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs, self._last_original_obs = new_obs, new_original_obs
        self._last_episode_starts = dones
        for env in np.flatnonzero(dones):
            self._trial_infos.append(infos[env])

    # ---- learning: Algorithm 1, lines 13-25 ----------------------------------------------------------------------

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Sample trials and update all four networks.

        :param gradient_steps: number of updates
        :param batch_size: number of trials in each
        """
        assert self.replay_buffer is not None
        if self.replay_buffer.n_trials == 0:
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        history = []
        for _ in range(gradient_steps):
            losses = self._losses(self.replay_buffer.sample(batch_size, env=self._vec_normalize_env, rng=self.rng))
            self.policy.optimizer.zero_grad()
            losses.total.backward()
            th.nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)
            self.policy.optimizer.step()
            history.append(th.stack([getattr(losses, field.name).detach() for field in fields(losses)]))
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for field, value in zip(fields(Losses), th.stack(history).mean(dim=0).tolist(), strict=True):
            self.logger.record(f"train/{field.name}", value)

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
        reward = settled[:-1] - settled[1:] - cost
        (q_explore,), _ = policy.explorer(explore_steps)
        with th.no_grad():
            (q_explore_target,), _ = policy.explorer_target(explore_steps)
        exploration_td = td_loss(explored, reward, q_explore, q_explore_target, self.gamma)

        # execution: z from the trajectory and z from the problem ID, in one pass
        # (an episode's last observation has no action to value)
        execute_steps = policy.steps(executed.observations, executed.action_mask)
        zs = (last_prefix(g, explored), self._noisy(f))
        contexts = [policy.context(execute_steps, executed.observations, z) for z in zs]
        (q_trajectory, q_problem), _ = policy.executor(execute_steps, contexts)
        with th.no_grad():
            f_target = policy.problem_encoder_target(batch.problem_ids)
            g_target, _ = policy.trajectory_decoder_target(explore_steps)
            zs = (last_prefix(g_target, explored), self._noisy(f_target))
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
        self._n_calls += 1
        # each call is n_envs steps
        if self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            polyak_update(self._parameters, self._target_parameters, self.tau)
            polyak_update(self._batch_norm_stats, self._batch_norm_stats_target, 1.0)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.explorer_rate = self.explorer_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)
        self.logger.record("rollout/explorer_rate", self.explorer_rate)

    def dump_logs(self) -> None:
        """Write log data, per phase too."""
        if self._trial_infos:
            self.logger.record("rollout/exploration_length", safe_mean([i["exploration_length"] for i in self._trial_infos]))
            self.logger.record(
                "rollout/execution_length", safe_mean([i["execution_lengths"].mean() for i in self._trial_infos])
            )
            self.logger.record(
                "rollout/execution_return", safe_mean([i["execution_returns"].mean() for i in self._trial_infos])
            )
        super().dump_logs()

    # ---- the rest of SB3's contract ------------------------------------------------------------------------------

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The next action, ε-greedy unless ``deterministic``. Recurrent as RecurrentPPO's: pass back the state it returns.
        It never looks at a problem ID: z comes from the exploration trajectory.

        :param observation: of one trial or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new trial starts (the observation says so too)
        :param deterministic: whether to act greedily
        :return: actions (B,), or one, and the new state
        """
        if deterministic:
            return self.policy.predict(observation, state, episode_start)
        q_values, state, vectorized = self.policy.predict_q_values(observation, state, episode_start)
        actions = self._epsilon_greedy(self.predict_rng, q_values, is_on(np.asarray(observation["exploring"])))
        return (actions if vectorized else actions[0]), state

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
        return [
            *super()._excluded_save_params(),
            "_parameters",
            "_target_parameters",
            "_batch_norm_stats",
            "_batch_norm_stats_target",
            "_acting",
            "_acting_z",
            "_problem_ids",
            "_trial_infos",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
