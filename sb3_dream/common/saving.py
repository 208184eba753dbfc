"""Saving and loading of models and replay buffers."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch as th
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.type_aliases import GymEnv

from sb3_dream.common.buffers import EpisodeReplayBuffer
from sb3_dream.common.files import PathOrFile, check_model_file, load_pickle, whole_file
from sb3_dream.version import __version__

SelfSafelySaved = TypeVar("SelfSafelySaved", bound="SafelySaved")


class SafelySaved(OffPolicyAlgorithm):
    """An off-policy algorithm whose files are whole or not there, and are looked at before they are believed."""

    replay_buffer: EpisodeReplayBuffer | None
    #: what must be the same in a replay buffer that is loaded
    _buffer_traits: ClassVar[tuple[str, ...]] = ("observation_space", "action_space", "n_envs", "buffer_size")
    #: how a replay buffer samples: the model's arguments hold, not the file's
    _sampling: ClassVar[tuple[str, ...]] = ("random_shift",)
    _just_loaded = False

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
        cls: type[SelfSafelySaved],
        path: PathOrFile,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfSafelySaved:
        """
        Load a model. A model file is unpickled, which can run any code: load only files that you trust.

        :param path: of the file, or an open file
        :param env: to learn on; without one the model can predict
        :param device: where to put it
        :param custom_objects: what to use instead of attributes in the file
        :param print_system_info: show where it was saved and where it is loaded
        :param force_reset: kept for SB3's sake: ``learn`` begins new episodes anyway
        :param kwargs: attributes to change; with a ``seed`` the model's generators begin anew from it
        :return: the model. The first ``learn`` goes on with fresh problems
        :raises ValueError: if the file is cut short, or of another algorithm or version, or does not fit ``env``
        """
        check_model_file(path, cls.__name__)
        model = super().load(path, env, device, custom_objects, print_system_info, force_reset, **kwargs)
        model._just_loaded = True
        if kwargs.get("seed") is not None:  # else the saved generators go on
            model.set_random_seed(kwargs["seed"])
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
        :raises ValueError: if the file is cut short, or its spaces, number of environments or size are not the model's
        """
        buffer = load_pickle(path, self.replay_buffer_class or EpisodeReplayBuffer)
        for name in self._buffer_traits:
            theirs, ours = getattr(buffer, name), getattr(self.replay_buffer, name)
            if theirs != ours:
                raise ValueError(f"{path} does not fit the model: its {name} is {theirs}, but must be {ours}")
        for name in self._sampling:
            setattr(buffer, name, getattr(self.replay_buffer, name))
        buffer.device = self.device
        self.replay_buffer = buffer
