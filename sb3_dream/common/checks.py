"""Checks of what a user passes: each error names the argument, what it got and what it wants."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn


def check_widths(**arguments: int | Sequence[int]) -> None:
    """
    :param arguments: by name: a number of units or layers, or a list of them
    :raises ValueError: for anything else, and for a number below 1
    """
    for name, value in arguments.items():
        for number in value if isinstance(value, list | tuple) else [value]:
            if isinstance(number, bool) or not isinstance(number, int | np.integer) or number < 1:
                raise ValueError(f"{name} must be made of whole numbers of at least 1, got {value!r}")


def check_classes(**arguments: Any) -> None:
    """
    :param arguments: by name: a class, or anything else that makes a module or an optimizer when it is called
    :raises TypeError: for a name or for a module that was made already
    """
    for name, value in arguments.items():
        if isinstance(value, nn.Module) or not callable(value):
            raise TypeError(f"{name} must be a class, such as torch.nn.ReLU, got {value!r}")


def check_range(low: float, high: float, **arguments: float | None) -> None:
    """
    :param low: the least value that is allowed
    :param high: the greatest; infinity and nan are never allowed
    :param arguments: by name; None is allowed
    :raises ValueError: that names the argument
    """
    for name, value in arguments.items():
        if value is not None and not (low <= value <= high and np.isfinite(value)):
            wanted = f"between {low:g} and {high:g}" if np.isfinite(high) else f"finite and at least {low:g}"
            raise ValueError(f"{name} must be {wanted}, got {value}")


def check_whole(least: int, **arguments: int) -> None:
    """
    :param least: the least value that is allowed
    :param arguments: by name
    :raises ValueError: that names the argument
    """
    for name, value in arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def check_fits(n_steps: int, room: int) -> None:
    """
    :param n_steps: of the longest trial under way
    :param room: how many the replay buffer keeps of one environment
    :raises ValueError: if the trial can never be in it as a whole
    """
    if n_steps > room:
        raise ValueError(
            f"A trial of {n_steps} steps or more does not fit: buffer_size is enough for trials of at most {room} steps. "
            "A family whose episodes may never end needs a time limit, inside TrialEnv"
        )


def check_ended(info: dict[str, Any], where: str = "") -> None:
    """
    :param info: of the last step of a trial
    :param where: whose trial it is, for the message
    :raises ValueError: if a time limit around ``TrialEnv`` has cut the trial off
    """
    if "execution_returns" not in info:
        raise ValueError(f"env: the trial{where} was cut off at its time limit, which belongs inside TrialEnv")
