"""What the algorithms on trials share: checks of the environment, problem IDs, the loop of updates, figures of each phase."""

from abc import abstractmethod
from collections import deque
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import safe_mean

from sb3_dream.common.checks import check_ended, check_whole
from sb3_dream.common.losses import UpdateLosses
from sb3_dream.common.off_policy import RecurrentOffPolicyAlgorithm
from sb3_dream.common.policies import RecurrentPolicy
from sb3_dream.common.trial import TRIAL_KEYS, is_on


class TrialAlgorithm(RecurrentOffPolicyAlgorithm):
    """
    Base of the algorithms that learn from whole trials.

    :param policy: a class, or its name in ``policy_aliases``
    :param env: a registered id, a ``TrialEnv``, or a VecEnv of them
    :param learning_rate: a number or a function of the remaining progress (from 1 to 0)
    :param buffer_size: number of steps kept, over all environments
    :param batch_size: number of whole trials in an update
    :param kwargs: of ``RecurrentOffPolicyAlgorithm``
    :raises ValueError: if the environment is not made of trials, or an argument is out of its range
    """

    #: whether it learns from the problem ID: on a ``TrialReplayBuffer``, and with networks made for the space of IDs
    _uses_problem_id: ClassVar[bool] = True
    _buffer_traits = (
        *RecurrentOffPolicyAlgorithm._buffer_traits,
        "problem_space",
        "n_exploration_episodes",
        "n_execution_episodes",
    )
    _sampling = (*RecurrentOffPolicyAlgorithm._sampling, "n_sampled_executions")

    def __init__(
        self,
        policy: str | type[RecurrentPolicy],
        env: GymEnv | str,
        learning_rate: float | Schedule,
        *,
        buffer_size: int,
        batch_size: int,
        **kwargs: Any,
    ):
        check_whole(1, batch_size=batch_size)
        # a trial takes at least 3 steps: explore, between episodes, execute
        if buffer_size < 3 * batch_size:
            raise ValueError(f"buffer_size of {buffer_size} steps is smaller than one batch of {batch_size} trials")
        #: what the networks and the buffer were made for: arguments that they get beside the user's
        self._trial_traits: dict[str, Any] = {}
        self._trial_figures: deque[dict[str, float]] | None = None
        super().__init__(policy, env, learning_rate, buffer_size=buffer_size, batch_size=batch_size, **kwargs)

    def _check_trials(self) -> None:
        """Learn what the networks and the buffer need to know of the trials, or say what is wrong with the environment."""
        assert self.env is not None
        space = self.observation_space
        if not isinstance(space, spaces.Dict) or not set(TRIAL_KEYS) <= set(space.spaces):
            raise ValueError(
                f"{type(self).__name__} learns on trials, but the environment's observation has no "
                f"{sorted(set(TRIAL_KEYS) - set(getattr(space, 'spaces', {})))}: wrap the family in sb3_dream.TrialEnv, "
                f"or use a registered id such as 'MetaMap-v0'. Got {space}"
            )
        if not self._uses_problem_id:
            return
        for name in ("problem_space", "n_exploration_episodes", "n_execution_episodes"):
            first, *others = self.env.get_attr(name)
            # the buffer's: of a user who has given them, and in files of before
            wanted = self._trial_traits.get(name, self.replay_buffer_kwargs.get(name, first))
            for value in [first, *others]:
                if value != wanted:
                    raise ValueError(
                        f"{name} of the environment is {value}, but must be {wanted} as in the model and everywhere "
                        "(an argument of TrialEnv)"
                    )
            self._trial_traits[name] = wanted

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        """
        Learn on another environment of the same spaces, problem space and numbers of exploration and execution episodes.

        :param env: trials, or a VecEnv of as many as before
        :param force_reset: begin with a reset
        :raises ValueError: if the environment does not fit
        """
        before = self.env, self._vec_normalize_env, self._last_obs
        super().set_env(env, force_reset)
        try:
            self._check_trials()
        except Exception:
            self.env, self._vec_normalize_env, self._last_obs = before
            raise

    def _setup_model(self) -> None:
        if self.env is not None:
            self._check_trials()
        policy_kwargs, buffer_kwargs = self.policy_kwargs, self.replay_buffer_kwargs
        if "problem_space" in self._trial_traits:
            self.policy_kwargs = {**policy_kwargs, "problem_space": self._trial_traits["problem_space"]}
        self.replay_buffer_kwargs = {**buffer_kwargs, **self._trial_traits}
        super()._setup_model()
        # the user's own, which SB3's load compares with what it is given
        self.policy_kwargs, self.replay_buffer_kwargs = policy_kwargs, buffer_kwargs

    def _setup_learn(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._setup_learn(*args, **kwargs)
        if self._trial_figures is None or self.num_timesteps == 0:  # as SB3's ep_info_buffer
            self._trial_figures = deque(maxlen=self._stats_window_size)
        self._problem_ids: list[Any] = [None] * self.n_envs
        return result

    def _starts(self) -> np.ndarray:
        """Where an inner episode begins."""
        assert isinstance(self._last_obs, dict)
        return is_on(self._last_obs["episode_start"])

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: np.ndarray,
        new_obs: np.ndarray | dict[str, np.ndarray],
        reward: np.ndarray,
        dones: np.ndarray,
        infos: list[dict[str, Any]],
    ) -> None:
        if self._uses_problem_id:
            try:
                self._problem_ids = [info["problem_id"] for info in infos]
            except KeyError as error:
                raise ValueError(
                    f"info has no 'problem_id': {type(self).__name__} learns on trials with training=True (their default on "
                    "the train split)"
                ) from error
        ended = np.flatnonzero(dones)
        for env in ended:
            check_ended(infos[env], f" in environment {env}")
        super()._store_transition(replay_buffer, buffer_action, new_obs, reward, dones, infos)
        assert self._trial_figures is not None
        for info in [infos[env] for env in ended]:
            figures = {"exploration_length": info["exploration_length"]}
            figures |= {f"execution_{name}": info[f"execution_{name}s"].mean() for name in ("length", "return")}
            self._trial_figures.append(figures)

    @abstractmethod
    def _sample(self, batch_size: int) -> Any:
        """A batch of whole trials."""

    @abstractmethod
    def _losses(self, batch: Any) -> UpdateLosses:
        """All losses of one update."""

    def _can_sample(self) -> bool:
        """Whether there is a whole trial to learn from."""
        assert self.replay_buffer is not None
        return self.replay_buffer.n_episodes > 0

    def _clip_gradients(self) -> None:
        th.nn.utils.clip_grad_norm_(self._parameters, self.max_grad_norm)

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        Sample trials and update all networks.

        :param gradient_steps: number of updates
        :param batch_size: number of trials in each
        """
        if gradient_steps < 1 or not self._can_sample():
            return
        self.policy.set_training_mode(True)
        self._update_learning_rate(self.policy.optimizer)
        history = []
        for _ in range(gradient_steps):
            losses = self._losses(self._sample(batch_size))
            self.policy.optimizer.zero_grad()
            losses.total.backward()
            self._clip_gradients()
            self.policy.optimizer.step()
            history.append(th.stack([getattr(losses, field.name).detach() for field in fields(losses)]))
        self._n_updates += gradient_steps
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        for field, value in zip(fields(losses), th.stack(history).mean(dim=0).tolist(), strict=True):
            self.logger.record(f"train/{field.name}", value)

    def dump_logs(self) -> None:
        """Write log data, per phase too."""
        if trials := self._trial_figures:
            for name in trials[0]:
                self.logger.record(f"rollout/{name}", safe_mean([figures[name] for figures in trials]))
        super().dump_logs()

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_problem_ids"]
