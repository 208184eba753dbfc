"""What recurrent off-policy algorithms on whole-episode replay share: acting, targets, generators, faults."""

from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import LinearSchedule, get_parameters_by_name, obs_as_tensor, polyak_update
from torch.optim.swa_utils import get_ema_multi_avg_fn

from sb3_dream.common.buffers import EpisodeReplayBuffer, as_dict, seeded_by_numpy
from sb3_dream.common.checks import check_range, check_whole
from sb3_dream.common.policies import RecurrentPolicy
from sb3_dream.common.saving import SafelySaved

SelfRecurrentOffPolicy = TypeVar("SelfRecurrentOffPolicy", bound="RecurrentOffPolicyAlgorithm")


class RecurrentOffPolicyAlgorithm(SafelySaved):
    """
    Base of the off-policy algorithms here: ε-greedy on recurrent Q-networks with targets, learning from whole episodes. It has
    a generator of its own, which a saved model takes along; begins new episodes whenever ``learn`` begins; stops NaN and
    infinity before they are stored; and writes whole files or none.

    :param policy: a class, or its name in ``policy_aliases``
    :param env: environment, id or VecEnv
    :param learning_rate: a number or a function of the remaining progress (from 1 to 0)
    :param replay_buffer_class: ``EpisodeReplayBuffer`` or a subclass
    :param replay_buffer_kwargs: its arguments
    :param policy_kwargs: arguments of the policy
    :param target_update_interval: update the target networks every so many environment steps
    :param exploration_fraction: fraction of training over which ε falls
    :param exploration_initial_eps: ε at the beginning
    :param exploration_final_eps: ε at the end
    :param exploration_duration: the longest time for which a random action is held
    :param max_grad_norm: maximum norm of the gradient
    :param kwargs: of SB3's ``OffPolicyAlgorithm``
    :raises ValueError: if an argument is out of its range
    """

    policy: RecurrentPolicy
    exploration_schedule: Schedule
    #: draws ε-greedy coins, random actions, noise and batches while learning
    rng: np.random.Generator | None = None
    #: the same in ``predict``, so that evaluation on the way does not change what is learned
    predict_rng: np.random.Generator | None = None

    def __init__(
        self,
        policy: str | type[RecurrentPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule,
        *,
        replay_buffer_class: type[EpisodeReplayBuffer],
        replay_buffer_kwargs: dict[str, Any] | None,
        policy_kwargs: dict[str, Any] | None,
        target_update_interval: int,
        exploration_fraction: float,
        exploration_initial_eps: float,
        exploration_final_eps: float,
        exploration_duration: int,
        max_grad_norm: float,
        **kwargs: Any,
    ):
        check_whole(1, exploration_duration=exploration_duration)
        if not max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0 (infinity for any), got {max_grad_norm}")
        check_range(
            0.0,
            1.0,
            gamma=kwargs["gamma"],
            tau=kwargs["tau"],
            exploration_initial_eps=exploration_initial_eps,
            exploration_final_eps=exploration_final_eps,
            exploration_fraction=exploration_fraction,
        )
        check_range(0.0, np.inf, learning_starts=kwargs["learning_starts"])
        check_range(1.0, np.inf, target_update_interval=target_update_interval)
        super().__init__(
            self.policy_aliases.get(policy, policy) if isinstance(policy, str) else policy,
            env,
            learning_rate,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=dict(replay_buffer_kwargs or {}),  # copies: more may be added
            policy_kwargs=dict(policy_kwargs or {}),
            sde_support=False,
            supported_action_spaces=(spaces.Discrete,),
            support_multi_env=True,
            **kwargs,
        )
        self.target_update_interval = target_update_interval
        self.exploration_fraction = exploration_fraction
        self.exploration_initial_eps = exploration_initial_eps
        self.exploration_final_eps = exploration_final_eps
        self.exploration_duration = exploration_duration
        self.max_grad_norm = max_grad_norm
        self._n_calls = 0
        #: ε
        self.exploration_rate = exploration_initial_eps

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Seed every generator: Python's, numpy's, torch's, the environments' and the model's own.

        :param seed: None leaves all as they are
        """
        super().set_random_seed(seed)
        if seed is not None:
            self.rng = np.random.default_rng(seed)
            self.predict_rng = np.random.default_rng([seed, 1])

    def _setup_model(self) -> None:
        rng, predict_rng = self.rng, self.predict_rng  # a loaded model goes on where its generators were
        super()._setup_model()
        self.rng = rng or self.rng or seeded_by_numpy()
        self.predict_rng = predict_rng or self.predict_rng or seeded_by_numpy()
        self.exploration_schedule = LinearSchedule(
            self.exploration_initial_eps, self.exploration_final_eps, self.exploration_fraction
        )
        networks, targets = self.policy.networks, self.policy.target_networks
        self._parameters = list(networks.parameters())
        networks = networks[: len(targets)]  # the others have no target
        self._online_parameters = list(networks.parameters())
        self._target_parameters = list(targets.parameters())
        self._batch_norm_stats = get_parameters_by_name(networks, ["running_"])
        self._batch_norm_stats_target = get_parameters_by_name(targets, ["running_"])
        #: what the policy remembers of each environment
        self._acting: Any = None

    def _begin_new_episodes(self) -> None:
        if self.env is not None and getattr(self.env.unwrapped, "waiting", False):
            raise RuntimeError(
                "env was interrupted in the middle of a step, and some of its processes still have answers to that one: "
                "set_env with new environments, and learn on"
            )
        # After a stop, observations, hidden states and the buffer would no longer fit together.
        self._last_obs = None
        self._last_original_obs = None
        if self._just_loaded:
            # load() has seeded as at the very beginning, and the same problems would come again. The model's own generator
            # says where to go on, so that two resumes of one file are the same run.
            assert self.rng is not None
            BaseAlgorithm.set_random_seed(self, int(self.rng.integers(2**31)))
            self._just_loaded = False

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        self._begin_new_episodes()
        result = super()._setup_learn(*args, **kwargs)
        assert self.replay_buffer is not None
        assert self._last_obs is not None
        self.replay_buffer.drop_unfinished_episodes()
        self._refuse_nan(self._last_obs if self._last_original_obs is None else self._last_original_obs)
        self._acting = self.policy.initial_state(self.n_envs)
        #: random actions that are held, and for how many more steps
        self._held, self._n_held = np.zeros((2, self.n_envs), dtype=np.int64)
        return result

    def _update_current_progress_remaining(self, num_timesteps: int, total_timesteps: int) -> None:
        # the last rollout may go on after the end: no schedule is asked for what lies there
        super()._update_current_progress_remaining(min(num_timesteps, total_timesteps), total_timesteps)

    def _q_values(self, observation: dict[str, th.Tensor]) -> th.Tensor:
        """Q-values (n_envs, n_actions) of the last observation; what is remembered goes one step on."""
        assert self._last_episode_starts is not None
        q_values, self._acting = self.policy.act(observation, self.policy.forget(self._acting, self._last_episode_starts))
        return q_values

    def _epsilon(self, observation: Any) -> float | np.ndarray:
        """The chance of a random action, in each environment if they differ."""
        return self.exploration_rate

    @staticmethod
    def _epsilon_greedy(rng: np.random.Generator | None, q_values: np.ndarray, epsilon: float | np.ndarray) -> np.ndarray:
        """Greedy, or random in each environment by itself. The networks have run in any case."""
        assert rng is not None
        n_envs, n_actions = q_values.shape
        random = rng.random(n_envs) < epsilon
        return np.where(random, rng.integers(n_actions, size=n_envs), q_values.argmax(axis=1))

    def _sample_action(self, learning_starts: int, action_noise: Any = None, n_envs: int = 1) -> tuple[np.ndarray, np.ndarray]:
        with th.no_grad():
            q_values = self._q_values(as_dict(obs_as_tensor(self._last_obs, self.device)))  # type: ignore[arg-type]
        epsilon = 1.0 if self.num_timesteps < learning_starts else self._epsilon(self._last_obs)
        actions = self._explore(q_values.cpu().numpy(), epsilon)
        return actions, actions

    def _starts(self) -> np.ndarray:
        """(n_envs,), bool: where the last observation begins an episode."""
        assert self._last_episode_starts is not None
        return self._last_episode_starts

    def _explore(self, q_values: np.ndarray, epsilon: float | np.ndarray) -> np.ndarray:
        """ε-greedy; or εz-greedy (Dabney et al. 2021): a random action is held for n steps, n drawn with probability ∝ 1/n."""
        if self.exploration_duration == 1:
            return self._epsilon_greedy(self.rng, q_values, epsilon)
        assert self.rng is not None
        n_envs, n_actions = q_values.shape
        chances = 1 / np.arange(1, self.exploration_duration + 1)
        durations = 1 + self.rng.choice(len(chances), size=n_envs, p=chances / chances.sum())
        goes_on = (self._n_held > 0) & ~self._starts()
        begins = ~goes_on & (self.rng.random(n_envs) < epsilon)
        self._held = np.where(begins, self.rng.integers(n_actions, size=n_envs), self._held)
        self._n_held = np.where(begins, durations, np.where(goes_on, self._n_held, 0))
        actions = np.where(self._n_held > 0, self._held, q_values.argmax(axis=1))
        self._n_held = np.maximum(self._n_held - 1, 0)
        return actions

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
        self._refuse_nan(new_original_obs, reward)
        if dones.any():
            infos = [self._with_raw_end(env, info) for env, info in enumerate(infos)]
        replay_buffer.add(self._last_original_obs, new_original_obs, buffer_action, reward, dones, infos)  # type: ignore[arg-type]
        self._last_obs, self._last_original_obs = new_obs, new_original_obs
        self._last_episode_starts = dones

    def _with_raw_end(self, env: int, info: dict[str, Any]) -> dict[str, Any]:
        """``info``, and where a time limit has cut an episode, its last observation as the environment gave it."""
        if not info.get("TimeLimit.truncated", False):
            return info
        last = info["terminal_observation"]
        if self._vec_normalize_env is not None:
            last = self._vec_normalize_env.unnormalize_obs(last)
        self._refuse_nan({key: np.expand_dims(value, 0) for key, value in as_dict(last).items()}, first_env=env)
        return {**info, "terminal_observation": last}

    def _refuse_nan(self, observations: Any, rewards: np.ndarray | None = None, first_env: int = 0) -> None:
        """
        :param observations: each (n_envs, *shape), as the environments gave them
        :param rewards: (n_envs,)
        :param first_env: number of the first of these environments
        :raises ValueError: if one of them is NaN or infinite, with the environment that gave it and the step
        """
        values = {f"observation {key!r}": value for key, value in as_dict(observations).items()}
        if rewards is not None:
            values["reward"] = rewards
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                env = int(np.argwhere(~np.isfinite(value))[0][0])
                raise ValueError(
                    f"Environment {env + first_env} gave {name} = {value[env]} at its step "
                    f"{self.num_timesteps // self.n_envs} ({self.num_timesteps} over all environments): nothing can be "
                    "learned from NaN or infinity"
                )

    def _on_step(self) -> None:
        self._n_calls += 1
        # each call is n_envs steps
        if self._n_calls % max(self.target_update_interval // self.n_envs, 1) == 0:
            # polyak_update takes two calls for each parameter, and this a few for all
            get_ema_multi_avg_fn(1 - self.tau)(self._target_parameters, self._online_parameters, 0)
            polyak_update(self._batch_norm_stats, self._batch_norm_stats_target, 1.0)
        self.exploration_rate = self.exploration_schedule(self._current_progress_remaining)
        self.logger.record("rollout/exploration_rate", self.exploration_rate)

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        The next action, ε-greedy unless ``deterministic``. Recurrent as RecurrentPPO's: pass back the state it returns.

        :param observation: of one environment or of B
        :param state: from the call before; None at the start
        :param episode_start: (B,), whether a new episode starts
        :param deterministic: whether to act greedily
        :return: actions (B,), or one, and the new state
        """
        if deterministic:
            return self.policy.predict(observation, state, episode_start)
        q_values, state, vectorized = self.policy.predict_q_values(observation, state, episode_start)
        actions = self._epsilon_greedy(self.predict_rng, q_values, self._epsilon(observation))
        return (actions if vectorized else actions[0]), state

    def learn(
        self: SelfRecurrentOffPolicy,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "run",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfRecurrentOffPolicy:
        """
        :param total_timesteps: number of environment steps, over all environments
        :param callback: called at every step
        :param log_interval: episodes (trials) between two logs
        :param tb_log_name: name of the TensorBoard run
        :param reset_num_timesteps: whether to count steps anew
        :param progress_bar: show a progress bar (needs tqdm and rich)
        :return: the model
        :raises RuntimeError: if a worker of a SubprocVecEnv has died, or one was interrupted in the middle of a step
        :raises ValueError: if an environment gives NaN or infinity
        """
        try:
            return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
        except (EOFError, ConnectionError) as error:
            assert self.env is not None
            workers = getattr(self.env.unwrapped, "processes", [])
            for worker in workers:
                worker.join(0.1)  # its pipe closes a little before it has ended
            dead = {env: worker.exitcode for env, worker in enumerate(workers) if not worker.is_alive()}
            if not dead:
                raise
            raise RuntimeError(
                f"Worker processes have died, by environment and exit code: {dead}. A negative code is the signal that "
                "killed it (-9: often out of memory); else its own error is printed above. The model can be saved, and "
                "learn on after set_env"
            ) from error

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_parameters",
            "_online_parameters",
            "_target_parameters",
            "_batch_norm_stats",
            "_batch_norm_stats_target",
            "_acting",
            "_held",
            "_n_held",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []
