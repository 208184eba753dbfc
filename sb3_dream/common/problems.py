"""Problems: what they are called, and how a family is told which one to be. ``TrialEnv`` is made of both."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

#: Each way to tell a family its problem, and the method that it calls before a trial, if it does.
WAYS: dict[str, str | None] = {
    "set_task": "set_task",
    "reset_task": "reset_task",
    "context": "set_context",
    "kwargs": "set_kwargs",
    "options": None,
    "seed": None,
}


# ---- what problems are called --------------------------------------------------------------------------------------


def number_problems(problems: list[Any], problem_space: spaces.Space | None = None) -> tuple[spaces.Space, list[Any]]:
    """
    The problem IDs, and the smallest space that holds them: ``Discrete`` for integers from 0, ``MultiDiscrete`` for vectors
    of them and ``Box`` for real numbers and vectors. Problems of any other kind (names, dicts, tasks, negative integers)
    go by their place in the list.

    :param problems: the problems of the family
    :param problem_space: the space, if it is known
    :return: the space, and the ID of each problem
    :raises ValueError: if a problem is outside ``problem_space``, or that is of another kind, or for NaN and infinity
    """
    ids: Any = problems
    if problem_space is None:
        try:
            ids = np.asarray(problems)
        except ValueError:  # of different shapes
            ids = np.empty(0, dtype=object)
        if ids.dtype.kind == "f" and ids.ndim in (1, 2):
            ids = ids.reshape(len(ids), -1).astype(np.float32)
            if not np.isfinite(ids).all():
                raise ValueError(f"Problems that are numbers must be finite, got {problems[:5]}")
            problem_space = spaces.Box(ids.min(axis=0), ids.max(axis=0), dtype=np.float32)
        elif ids.dtype.kind in "iu" and ids.ndim in (1, 2) and ids.min() >= 0:
            counts = ids.max(axis=0).astype(np.int64) + 1  # a uint8 would run over
            problem_space = spaces.Discrete(int(counts)) if ids.ndim == 1 else spaces.MultiDiscrete(counts)
        else:
            return spaces.Discrete(len(problems)), list(range(len(problems)))
    if not isinstance(problem_space, spaces.Discrete | spaces.MultiDiscrete | spaces.Box):
        raise ValueError(f"problem_space must be Discrete, MultiDiscrete or Box, got {problem_space}")
    if isinstance(problem_space, spaces.Discrete | spaces.MultiDiscrete) and (
        np.any(problem_space.start) or len(problem_space.shape or ()) > 1
    ):
        raise ValueError(f"problem_space must count from 0, in one dimension at most, got {problem_space!r}")
    if isinstance(problem_space, spaces.Box) and len(problem_space.shape) != 1:
        raise ValueError(f"problem_space must be of one dimension, got {problem_space!r}")
    return problem_space, [checked_problem_id(problem_id, problem_space) for problem_id in ids]


def checked_problem_id(problem_id: Any, problem_space: spaces.Space) -> Any:
    """
    :param problem_id: a problem ID
    :param problem_space: their space
    :return: the ID in the type of the space
    :raises ValueError: if it is outside
    """
    try:
        value: Any = np.asarray(problem_id)
    except ValueError:  # ragged
        value = np.empty(0, dtype=object)
    is_number = value.dtype.kind in ("iuf" if isinstance(problem_space, spaces.Box) else "iu")
    if isinstance(problem_space, spaces.Discrete):
        value = int(value) if is_number and value.ndim == 0 else None
    elif isinstance(problem_space, spaces.Box) and is_number:
        value = value.astype(problem_space.dtype).reshape(-1)
    if not is_number or not problem_space.contains(value):
        raise ValueError(f"Problem {problem_id!r} is outside problem_space {problem_space}")
    return value if isinstance(value, int) else value.astype(problem_space.dtype)


# ---- how a family is told its problem ------------------------------------------------------------------------------


def find_way(env: gym.Env, problems: list[Any]) -> str:
    """
    The first way that the family understands, in the order of ``TrialEnv``'s docstring.

    :param env: the family
    :param problems: its problems
    :return: a key of ``WAYS``
    """
    for method in ("set_task", "reset_task"):
        if env.has_wrapper_attr(method):
            return method
    if env.has_wrapper_attr("contexts") and env.has_wrapper_attr("context_selector"):
        return "context"
    if env.unwrapped.spec is not None and all(isinstance(problem, Mapping) for problem in problems):
        return "kwargs"
    return "options"


def prepare_family(env: gym.Env, way: str, problems: list[Any]) -> gym.Env:
    """
    Make a family ready to be told its problem.

    :param env: the family
    :param way: a key of ``WAYS``
    :param problems: its problems
    :return: the family, with a wrapper around it where the way needs one
    :raises ValueError: if the family cannot be told in this way, or these problems cannot
    """
    if way not in WAYS:
        raise ValueError(f"set_problem must be None, a callable (env, problem) or one of {sorted(WAYS)}, got {way!r}")
    if way in ("set_task", "reset_task"):
        if not env.has_wrapper_attr(way):
            raise ValueError(f"set_problem={way!r} calls {way}(problem), but {env} has no such method")
        if env.has_wrapper_attr("toggle_sample_tasks_on_reset"):  # Meta-World: reset would draw another task
            env.get_wrapper_attr("toggle_sample_tasks_on_reset")(False)
    elif way == "context":
        return ContextFamily(env, problems)
    elif way == "kwargs":
        return KwargsFamily(env, problems)
    elif way == "seed":
        for problem in problems:
            if isinstance(problem, bool) or not isinstance(problem, int | np.integer) or problem < 0:
                raise ValueError(f"With set_problem='seed' problems must be integers from 0, got {problem!r}")
    return env


class WatchedOptions(dict[str, Any]):
    """Reset options that know whether anybody has looked at their ``problem_id``."""

    was_read = False


def _watched(name: str, takes_key: bool) -> Any:
    def method(self: WatchedOptions, *args: Any) -> Any:
        self.was_read |= not takes_key or args[0] == "problem_id"
        return getattr(dict, name)(self, *args)

    return method


for _name in ("__getitem__", "__contains__", "get", "pop"):
    setattr(WatchedOptions, _name, _watched(_name, takes_key=True))
for _name in ("__iter__", "__or__", "copy", "items", "keys", "values"):  # whoever takes them all may look later
    setattr(WatchedOptions, _name, _watched(_name, takes_key=False))


class _GivenContext:
    """A context selector for CARL, whose own ones go on to another context at each reset."""

    def __init__(self) -> None:
        self.context: dict[str, Any] = {}
        self.context_id = self._n_given = 0

    def give(self, context: dict[str, Any]) -> None:
        self.context = context
        self._n_given += 1

    def select(self) -> dict[str, Any]:
        self.context_id = self._n_given  # where it has changed, CARL puts the context into effect
        return self.context


class ContextFamily(gym.ObservationWrapper[Any, Any, Any]):
    """
    A CARL environment that stays in the context it is given, and does not show it: the key ``context`` is taken out of the
    observation.

    :param env: an environment with CARL's ``contexts`` and ``context_selector``
    :param problems: keys of ``contexts``, or contexts (dicts; what they leave out is the default)
    :raises ValueError: for another environment, or a problem that is neither
    """

    def __init__(self, env: gym.Env, problems: list[Any]):
        super().__init__(env)
        carl: Any = env
        while not (hasattr(carl, "contexts") and hasattr(carl, "context_selector")):
            if not isinstance(carl, gym.Wrapper):
                raise ValueError(f"set_problem='context' needs CARL's contexts and context_selector, but {env} has none")
            carl = carl.env
        for problem in problems:
            if not isinstance(problem, Mapping) and problem not in carl.contexts:
                raise ValueError(
                    f"With set_problem='context' problems must be dicts or keys of contexts {list(carl.contexts)[:5]}, "
                    f"got {problem!r}"
                )
        self._carl = carl
        self._selector = carl.context_selector = _GivenContext()
        space = env.observation_space
        self._key: str | None = None
        if isinstance(space, spaces.Dict) and "context" in space.spaces:
            rest = {key: subspace for key, subspace in space.spaces.items() if key != "context"}
            self._key = next(iter(rest)) if len(rest) == 1 else None
            self.observation_space = spaces.Dict(rest) if self._key is None else rest[self._key]

    def set_context(self, problem: Any) -> None:
        """
        Choose the context that holds from the next reset on.

        :param problem: a key of ``contexts``, or a context
        """
        context = problem if isinstance(problem, Mapping) else self._carl.contexts[problem]
        self._selector.give({**self._carl.get_default_context(), **context})

    def observation(self, observation: Any) -> Any:
        """
        :param observation: with the context
        :return: without it
        """
        if self._key is not None:
            return observation[self._key]
        if isinstance(self.observation_space, spaces.Dict):
            return {key: observation[key] for key in self.observation_space.spaces}
        return observation


def _n_wrappers(env: gym.Env) -> int:
    return 1 + _n_wrappers(env.env) if isinstance(env, gym.Wrapper) else 0


class KwargsFamily(gym.Wrapper[Any, Any, Any, Any]):
    """
    ``gymnasium.make(id, **problem)`` for each problem. Only what the id itself stands for is made anew: the wrappers around
    it stay.

    :param env: made by ``gymnasium.make``
    :param problems: dicts of constructor arguments
    :raises ValueError: for another environment, or a problem that is not a dict
    """

    def __init__(self, env: gym.Env, problems: list[Any]):
        super().__init__(env)
        if env.unwrapped.spec is None:
            raise ValueError(f"set_problem='kwargs' needs an environment that gymnasium.make has made, got {env}")
        for problem in problems:
            if not isinstance(problem, Mapping):
                raise ValueError(f"With set_problem='kwargs' problems must be dicts of arguments, got {problem!r}")
        self._spec = env.unwrapped.spec
        self._problem: Any = None

    def set_kwargs(self, problem: Mapping[str, Any]) -> None:
        """
        Make the environment anew, unless it is the same problem.

        :param problem: the arguments that are special to it
        :raises ValueError: if it has other spaces, or does not take the arguments
        """
        if problem is self._problem:
            return
        try:
            new = gym.make(self._spec, **problem)
        except TypeError as error:  # SB3's check_env would say that reset() takes no seed
            raise ValueError(f"{self._spec.id} could not be made with the arguments {dict(problem)!r}: {error}") from error
        parent: Any = self
        while _n_wrappers(parent.env) > _n_wrappers(new):
            parent = parent.env
        old = parent.env
        if (new.observation_space, new.action_space) != (old.observation_space, old.action_space):
            raise ValueError(f"Problem {problem!r} changes the spaces of {self._spec.id}, but they must be the same in all")
        old.close()
        parent.env, self._problem = new, problem
