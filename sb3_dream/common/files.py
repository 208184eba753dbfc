"""Files that are whole or not there at all, and what they say when they cannot be read."""

import io
import json
import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from stable_baselines3.common.save_util import load_from_pkl, open_path

from sb3_dream.version import __version__

#: What SB3 takes where a file is wanted.
PathOrFile = str | Path | io.BufferedIOBase


@contextmanager
def whole_file(path: str | Path, suffix: str) -> Iterator[io.BufferedWriter]:
    """
    Write a file aside and rename it when it is whole: whoever is killed half-way leaves what was there before. Paths mean
    what they mean to SB3's ``open_path``: folders are made, and a path that is a folder gets ``_2``.

    :param path: where the file goes
    :param suffix: appended if the path has none
    :return: the file to write to
    :raises OSError: that says so, if the disk is full or the file cannot be written
    """
    path = Path(path)
    if not path.suffix:
        path = Path(f"{path}.{suffix}")
    if path.is_dir():
        warnings.warn(f"Path '{path}' is a folder. Will save instead to {path}_2", stacklevel=3)
        path = Path(f"{path}_2")
    aside = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        message = f"Could not save to {path} ({error.strerror}). What was there before is untouched, and training can go on"
        raise OSError(error.errno, message) from error
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def check_model_file(path: PathOrFile, algorithm: str) -> None:
    """
    Say what is wrong with a model file before anything of it is unpickled.

    :param path: of the file, or the open file
    :param algorithm: name of the class that is to be loaded
    :raises ValueError: if it is cut short, damaged, of another algorithm or of another version
    """
    file = open_path(path, "r", suffix="zip")
    try:
        with zipfile.ZipFile(file) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
            if "data" not in archive.namelist():  # the weights are zip files themselves, found where the end is missing
                raise zipfile.BadZipFile("it has no 'data'")
            saved_by = json.loads(archive.read("data")).get("saved_by")
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a model file, or was cut short or damaged: {error}") from error
    finally:
        if isinstance(path, str | Path):
            file.close()
    if saved_by is None:
        raise ValueError(f"{path} was not saved by sb3_dream, so {algorithm} cannot load it")
    name, version = saved_by.split()
    if name != algorithm:
        raise ValueError(f"{path} holds a model of {name}: load it with {name}.load, not {algorithm}.load")
    if version.split(".")[:2] != __version__.split(".")[:2]:
        raise ValueError(f"{path} was saved by sb3_dream {version}, which {__version__} cannot load: install that version")


def load_pickle(path: PathOrFile, wanted: type) -> Any:
    """
    :param path: of the file, or the open file
    :param wanted: the class of what is in it
    :return: the object
    :raises ValueError: if the file is cut short, damaged, or of something else
    """
    try:
        loaded = load_from_pkl(path)
    except OSError:
        raise
    except Exception as error:  # pickle has many ways to say that it cannot go on
        what = "was cut short" if isinstance(error, EOFError | pickle.UnpicklingError) else "is of another version"
        raise ValueError(f"{path} is not a {wanted.__name__}, or {what}: {error}") from error
    if type(loaded) is not wanted:  # a subclass may sample something else
        raise ValueError(f"{path} holds a {type(loaded).__name__}, not a {wanted.__name__}")
    return loaded
