"""What recurrent off-policy algorithms on whole-episode replay share: generators, faults, files."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_dream.common.buffers import TrialReplayBuffer
from sb3_dream.common.files import PathOrFile, check_model_file, load_pickle, whole_file
from sb3_dream.version import __version__

SelfRecurrentOffPolicy = TypeVar("SelfRecurrentOffPolicy", bound="RecurrentOffPolicyAlgorithm")


class RecurrentOffPolicyAlgorithm(OffPolicyAlgorithm):
    """
    Base of the off-policy algorithms here. It has a generator of its own, which a saved model takes along; begins new
    episodes whenever ``learn`` begins; stops NaN and infinity before they are stored; and writes whole files or none.
    """

    replay_buffer: TrialReplayBuffer | None
    #: what must be the same in a replay buffer that is loaded
    _buffer_traits: ClassVar[tuple[str, ...]] = (
        "observation_space",
        "action_space",
        "n_envs",
        "problem_space",
        "n_execution_episodes",
    )
    #: draws ε-greedy coins, random actions, noise and batches while learning
    rng: np.random.Generator | None = None
    #: the same in ``predict``, so that evaluation on the way does not change what is learned
    predict_rng: np.random.Generator | None = None
    _just_loaded = False

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
        self.rng = rng or self.rng or np.random.default_rng()
        self.predict_rng = predict_rng or self.predict_rng or np.random.default_rng()

    def _begin_new_episodes(self) -> None:
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
        self.replay_buffer.drop_unfinished_trials()
        self._refuse_nan(self._last_original_obs or self._last_obs)
        return result

    def _refuse_nan(self, observations: Any, rewards: np.ndarray | None = None) -> None:
        """
        :param observations: each (n_envs, *shape), as the environments gave them
        :param rewards: (n_envs,)
        :raises ValueError: if one of them is NaN or infinite, with the environment that gave it and the step
        """
        values = {f"observation {key!r}": value for key, value in observations.items()}
        if rewards is not None:
            values["reward"] = rewards
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                env = int(np.argwhere(~np.isfinite(value))[0][0])
                raise ValueError(
                    f"Environment {env} gave {name} = {value[env]} at its step {self.num_timesteps // self.n_envs} "
                    f"({self.num_timesteps} over all environments): nothing can be learned from NaN or infinity"
                )

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
        :raises RuntimeError: if a worker of a SubprocVecEnv has died
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

    def save(self, path: PathOrFile, exclude: Iterable[str] | None = None, include: Iterable[str] | None = None) -> None:
        """
        Save the model. The file is whole or not there: who is killed half-way leaves what was there before.

        :param path: of the file (``.zip`` is appended if it has no suffix), or an open file
        :param exclude: attributes to leave out
        :param include: attributes to keep that are left out otherwise
        :raises OSError: if the disk is full or the file cannot be written
        """
        self.saved_by = f"{type(self).__name__} {__version__}"
        if not isinstance(path, str | Path):
            super().save(path, exclude, include)
            return
        memory = io.BytesIO()
        super().save(memory, exclude, include)
        with whole_file(path, "zip") as file:
            file.write(memory.getbuffer())

    @classmethod
    def load(
        cls: type[SelfRecurrentOffPolicy],
        path: PathOrFile,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfRecurrentOffPolicy:
        """
        Load a model. A model file is unpickled, which can run any code: load only files that you trust.

        :param path: of the file, or an open file
        :param env: to learn on; without one the model can predict
        :param device: where to put it
        :param custom_objects: what to use instead of attributes in the file
        :param print_system_info: show where it was saved and where it is loaded
        :param force_reset: kept for SB3's sake: ``learn`` begins new episodes anyway
        :param kwargs: attributes to change
        :return: the model. The first ``learn`` goes on with fresh problems
        :raises ValueError: if the file is cut short, or of another algorithm or version, or does not fit ``env``
        """
        check_model_file(path, cls.__name__)
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        model._just_loaded = True
        return model

    def save_replay_buffer(self, path: PathOrFile) -> None:
        """
        Save the replay buffer, as safely as ``save``.

        :param path: of the file (``.pkl`` is appended if it has no suffix), or an open file
        :raises OSError: if the disk is full or the file cannot be written
        """
        if not isinstance(path, str | Path):
            super().save_replay_buffer(path)
            return
        with whole_file(path, "pkl") as file:
            super().save_replay_buffer(file)

    def load_replay_buffer(self, path: PathOrFile, truncate_last_traj: bool = True) -> None:
        """
        Load a replay buffer. It is unpickled, which can run any code: load only files that you trust.

        :param path: of the file, or an open file
        :param truncate_last_traj: kept for SB3's sake: ``learn`` begins new episodes anyway
        :raises ValueError: if the file is cut short, or its spaces or number of environments are not the model's
        """
        buffer = load_pickle(path, self.replay_buffer_class or TrialReplayBuffer)
        for name in self._buffer_traits:
            theirs, ours = getattr(buffer, name), getattr(self.replay_buffer, name)
            if theirs != ours:
                raise ValueError(f"{path} does not fit the model: its {name} is {theirs}, but must be {ours}")
        buffer.device = self.device
        self.replay_buffer = buffer
