"""A trial, exploration episodes and then execution episodes in one problem, as one Gymnasium episode."""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from stable_baselines3.common.env_util import is_wrapped
from stable_baselines3.common.monitor import Monitor

from sb3_dream.common.problems import WAYS, WatchedOptions, checked_problem_id, find_way, number_problems, prepare_family

#: What ``TrialEnv`` adds to the family's own observation. All are float ``Box``, so every SB3 wrapper accepts them.
BOOKKEEPING_KEYS = ("exploring", "episode_start", "episode_end", "previous_action", "previous_reward")
TRIAL_KEYS = ("instruction", *BOOKKEEPING_KEYS)
#: what instructions ask of a family, for messages
NEEDS_OPTIONS = "can be given to a family that reads its problem in reset(options) alone (set_problem='options')"


def is_on(flag: Any) -> Any:
    """
    Whether ``exploring``, ``episode_start`` or ``episode_end`` is on, whatever SB3's wrappers have made of it: VecFrameStack
    puts the newest frame last, and a normalised 1 is positive (as the mean lies between 0 and 1) while a 0 is not.

    :param flag: (..., 1), or (..., n_stack): an array or a tensor
    :return: (...,), bool
    """
    return flag[..., -1] > 0


_FLOAT_MAX = float(np.finfo(np.float32).max)
_ON = np.ones(1, dtype=np.float32)
_OFF = np.zeros(1, dtype=np.float32)


def _key(problem_id: Any) -> Any:
    """A problem ID as the key of a dict."""
    return problem_id if isinstance(problem_id, int) else problem_id.tobytes()


class TrialEnv(gym.Wrapper):
    """
    Turns a family of problems into trials: ``n_exploration_episodes`` exploration episodes (one, as in the paper), then
    ``n_execution_episodes`` execution episodes, all in the same problem. A trial is one Gymnasium (and so one SB3) episode.

    The observation is one flat ``Dict``: the family's own (key ``observation``, or the keys of its ``Dict``),
    ``instruction`` (zeros while exploring) and the trial's bookkeeping ``exploring``, ``episode_start``, ``episode_end``,
    ``previous_action`` (one-hot) and ``previous_reward``.

    The last observation of an inner episode comes like any other, with ``episode_end`` = 1. The action that answers it is
    ignored and brings the first observation of the next episode. Reward is 0 while exploring; the family's own reward is
    then in ``info["raw_reward"]`` (and, a step later, in ``previous_reward``), so that a trial's return is its execution
    return. A trial ends with ``terminated``; the family's time limits end inner episodes only.

    ``info["problem_id"]`` is there in every step and at reset if and only if ``training``. When a trial ends, ``info``
    has ``execution_returns`` and ``execution_lengths`` (both of shape (N,)) and ``exploration_length``, the number of steps
    of all exploration episodes together.

    Any Gymnasium environment is a family, if it can be told which problem to be. ``set_problem`` says how; by default it is
    the first of these that the family understands:

    - ``"set_task"``: it has a method ``set_task(problem)`` (Meta-World, learn2learn). Meta-World's own wrappers are kept
      from drawing another task at reset
    - ``"reset_task"``: it has a method ``reset_task(problem)`` (VariBAD)
    - ``"context"``: it is one of CARL's environments. A problem is a key of its ``contexts``, or a context (a dict). The
      context is taken out of the observation
    - ``"kwargs"``: problems are dicts, and ``gymnasium.make`` made it: ``gymnasium.make(id, **problem)``
    - ``"options"``: ``reset(options={"problem_id": problem, "exploring": ..., "instruction": ...})``. If by default, and
      the family does not look at ``problem_id``, the first reset says so

    or, if ``set_problem`` says so:

    - ``"seed"``: the problem is the seed of each inner episode's ``reset`` (MiniGrid, and all that is generated)
    - a callable ``(env, problem)``, called once before the first reset of each trial

    :param env: the family
    :param problem_ids: the problems to draw from, each with the same chance. Integers from 0 and vectors are their own IDs;
        the ID of any other problem (names, dicts, tasks) is its place in this list. The family is given the problem itself
    :param set_problem: how the family is told its problem: a name or a callable from above, or None for the default
    :param n_execution_episodes: N, at least 1
    :param training: whether the problem ID is shown in ``info``
    :param problem_space: the space of problem IDs; by default the family's ``problem_space``, else inferred from the IDs
    :param n_exploration_episodes: at least 1
    :raises ValueError: for less than one episode of a kind, no problems, a problem outside ``problem_space``, spaces that
        cannot be handled, or a ``set_problem`` that does not fit the family or its problems
    :raises TypeError: if ``env`` is not a Gymnasium environment, a number of episodes is not an integer or ``set_problem`` is
        neither name nor callable
    """

    _np_random = None  # the trial's own generator, not the family's
    spec = None  # a registered id names the trial, not the family inside

    def __init__(
        self,
        env: gym.Env,
        problem_ids: Iterable[Any],
        set_problem: str | Callable[[gym.Env, Any], Any] | None = None,
        n_execution_episodes: int = 1,
        training: bool = True,
        problem_space: spaces.Space | None = None,
        n_exploration_episodes: int = 1,
    ):
        if not isinstance(env, gym.Env):
            raise TypeError(f"env must be a gymnasium.Env, got {type(env).__name__}")
        for name, number in {
            "n_exploration_episodes": n_exploration_episodes,
            "n_execution_episodes": n_execution_episodes,
        }.items():
            if isinstance(number, bool) or not isinstance(number, int | np.integer):
                raise TypeError(f"{name} must be an integer, got {number!r}")
            if number < 1:
                raise ValueError(f"{name} must be at least 1, got {number}")
        if not isinstance(problem_ids, Iterable):
            raise TypeError(f"problem_ids must be a list of problems, got {problem_ids!r}")
        if not (set_problem is None or isinstance(set_problem, str) or callable(set_problem)):
            raise TypeError(f"set_problem must be None, a name or a callable (env, problem), got {set_problem!r}")
        #: the problems as they were listed, and in ``problem_ids`` the ID of each
        self.problems = list(problem_ids)
        if not self.problems:
            raise ValueError("problem_ids is empty: a family needs at least one problem")
        #: the way in which the family is told its problem, or the callable that does it
        self.set_problem = find_way(env, self.problems) if set_problem is None else set_problem
        if isinstance(self.set_problem, str):
            env = prepare_family(env, self.set_problem, self.problems)
        super().__init__(env)
        self.problem_space, self.problem_ids = number_problems(
            self.problems, problem_space or getattr(env.unwrapped, "problem_space", None)
        )
        self._problem_of = dict(zip(map(_key, self.problem_ids), self.problems, strict=True))
        # where options were nothing but the last guess, the family must show that it looks at them
        self._is_guess = set_problem is None and self.set_problem == "options"
        self.n_exploration_episodes = int(n_exploration_episodes)
        self.n_execution_episodes = int(n_execution_episodes)
        self.training = training

        if isinstance(env.action_space, spaces.Discrete) and env.action_space.start != 0:
            raise ValueError(f"SB3 needs Discrete spaces with start=0, but the action space is {env.action_space!r}")
        self.observation_space = self._build_observation_space(env.observation_space)
        self.action_space = env.action_space
        self._has_monitor = is_wrapped(env, Monitor)
        self._no_action = np.zeros(spaces.flatdim(env.action_space), dtype=np.float32)
        if isinstance(env.action_space, spaces.Discrete):
            self._one_hot_actions = np.eye(int(env.action_space.n), dtype=np.float32)
        instruction: Any = self.observation_space["instruction"]
        self._no_instruction = np.zeros(instruction.shape, dtype=instruction.dtype)

        self.problem_id: Any = None
        self._problem: Any = None
        self._instructions: Sequence[int] | None = None
        self._episode = 0  # the exploration episodes come first
        self._between_episodes = False
        self._running = False

    def _build_observation_space(self, space: spaces.Space) -> spaces.Dict:
        own: dict[str, Any] = dict(space.spaces) if isinstance(space, spaces.Dict) else {"observation": space}
        for key, subspace in own.items():
            if not isinstance(subspace, spaces.Box | spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
                raise ValueError(
                    f"TrialEnv needs a flat observation space, but {key!r} is {subspace}: wrap the family so that it observes "
                    "numbers only (MiniGrid: minigrid.wrappers.ImgObsWrapper leaves the text of the mission out)"
                )
            if isinstance(subspace, spaces.Discrete | spaces.MultiDiscrete) and np.any(subspace.start):
                raise ValueError(f"SB3 needs Discrete spaces with start=0, but {key!r} is {subspace!r}")
            if isinstance(subspace, spaces.MultiDiscrete) and len(subspace.shape) != 1:
                raise ValueError(f"SB3 needs MultiDiscrete spaces of one dimension, but {key!r} is {subspace!r}")
            if isinstance(subspace, spaces.MultiDiscrete):
                # SB3 adds these numbers up: a uint8 would run over at 256, and nn.LSTM (RecurrentPPO) takes Python's int only
                own[key] = copy(subspace)
                own[key].nvec = subspace.nvec.astype(object)
        if clash := set(own).intersection(BOOKKEEPING_KEYS):
            raise ValueError(f"The family's observation has keys that belong to the trial: {sorted(clash)}")
        self._is_dict = isinstance(space, spaces.Dict)
        self._has_instruction = "instruction" in own
        instruction = own.setdefault("instruction", spaces.Box(0.0, 1.0, (1,), np.float32))
        if not isinstance(instruction, spaces.Box):
            raise ValueError(f"instruction must be a Box (zeros while exploring), got {instruction}")
        lowest, highest = np.minimum(instruction.low, 0), np.maximum(instruction.high, 0)
        own["instruction"] = spaces.Box(lowest, highest, instruction.shape, instruction.dtype)
        flag = spaces.Box(0.0, 1.0, (1,), np.float32)
        n_action = spaces.flatdim(self.env.action_space)
        low, high = (0.0, 1.0) if isinstance(self.env.action_space, spaces.Discrete) else (-_FLOAT_MAX, _FLOAT_MAX)
        return spaces.Dict(
            {
                **own,
                "exploring": flag,
                "episode_start": flag,
                "episode_end": flag,
                "previous_action": spaces.Box(low, high, (n_action,), np.float32),
                "previous_reward": spaces.Box(-_FLOAT_MAX, _FLOAT_MAX, (1,), np.float32),
            }
        )

    @property
    def unwrapped(self) -> gym.Env:
        """The trial itself: it is what the registered ids name. The family is ``env.unwrapped.env``."""
        return self

    @property
    def np_random(self) -> np.random.Generator:
        """The generator that draws the problems; the family has its own."""
        if self._np_random is None:
            self._np_random, _ = seeding.np_random()
        return self._np_random

    @np_random.setter
    def np_random(self, value: np.random.Generator) -> None:
        self._np_random = value

    @property
    def exploring(self) -> bool:
        """Whether the current inner episode is an exploration episode."""
        return self._episode < self.n_exploration_episodes

    @property
    def takes_instructions(self) -> bool:
        """Whether the family can be given its instructions."""
        return self.set_problem == "options"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """
        Begin a new trial.

        :param seed: seeds the draw of problems, and the family
        :param options: ``problem_id`` chooses the problem and ``instructions`` (N indices) the instruction of each
            execution episode; by default both are drawn
        :return: the first observation of the first exploration episode, and ``info``
        :raises ValueError: for another option, a problem outside ``problem_space``, not N instructions, or a family that was
            not told how to know its problem and does not look at the options
        """
        options = options or {}
        if unknown := set(options) - {"problem_id", "instructions"}:
            raise ValueError(f"TrialEnv.reset takes the options 'problem_id' and 'instructions', got {sorted(unknown)}")
        self._instructions = options.get("instructions")
        if self._instructions is not None and not self.takes_instructions:
            raise ValueError(
                f"options['instructions'] {NEEDS_OPTIONS}, but this one is told by set_problem={self.set_problem!r}"
            )
        if self._instructions is not None and len(self._instructions) != self.n_execution_episodes:
            raise ValueError(
                f"options['instructions'] needs one index for each of the {self.n_execution_episodes} execution episodes, "
                f"got {self._instructions!r}"
            )
        if seed is not None:
            self._np_random, _ = seeding.np_random(seed)
        if seed is not None or self.set_problem == "kwargs":  # an environment made anew has no generator yet
            # the family gets a seed of its own: with the same one it would draw the same numbers, and its instructions
            # would go with the problems
            seed = int(self.np_random.integers(2**31))
        if "problem_id" in options:
            self.problem_id = checked_problem_id(options["problem_id"], self.problem_space)
            self._problem = self._problem_of.get(_key(self.problem_id), options["problem_id"])
        else:
            index = self.np_random.integers(len(self.problem_ids))
            self.problem_id, self._problem = self.problem_ids[index], self.problems[index]
        if not isinstance(self.set_problem, str):
            self.set_problem(self.env, self._problem)
        elif (method := WAYS[self.set_problem]) is not None:
            self.env.get_wrapper_attr(method)(self._problem)
        self._episode = 0
        self._running = True
        self._exploration_length = 0
        self._execution_returns = np.zeros(self.n_execution_episodes)
        self._execution_lengths = np.zeros(self.n_execution_episodes, dtype=np.int64)
        return self._begin_episode(seed)

    def _begin_episode(self, seed: int | None = None) -> tuple[dict, dict]:
        options: dict[str, Any] | None = None
        if self.set_problem == "options":
            options = {"problem_id": self._problem, "exploring": self.exploring}
            if self._instructions is not None and not self.exploring:
                options["instruction"] = self._instructions[self._episode - self.n_exploration_episodes]
            if self._is_guess:
                options = WatchedOptions(options)
        elif self.set_problem == "seed":
            seed = int(self._problem)
        self._between_episodes = False
        observation, info = self.env.reset(seed=seed, options=options)
        if isinstance(options, WatchedOptions):
            if not options.was_read:
                raise ValueError(
                    f"{self.env} did not look at options['problem_id'] in reset, so it cannot know its problem. How is it "
                    "told? set_problem='seed' if the reset seed makes the problem; 'kwargs' with dicts of arguments for "
                    "gymnasium.make (register a class of your own first); or a callable (env, problem), which may set an "
                    "attribute of env.unwrapped. ('options' if it looks at them later)"
                )
            self._is_guess = False
        return self._observe(observation, _ON, _OFF, self._no_action, 0.0), self._label(info)

    def step(self, action: Any) -> tuple[dict, float, bool, bool, dict]:
        """
        One step of the inner episode, or the start of the next one if the last observation had ``episode_end`` = 1.

        :param action: the action; ignored between inner episodes
        :return: observation, reward (0 while exploring), whether the trial is over, False, info
        :raises RuntimeError: if no trial is running
        """
        if not self._running:
            raise RuntimeError("No trial is running: call reset() before step()")
        if self._between_episodes:
            self._episode += 1
            observation, info = self._begin_episode()
            return observation, 0.0, False, False, info

        raw_observation, raw_reward, terminated, truncated, info = self.env.step(action)
        raw_reward = float(raw_reward)
        ended = terminated or truncated
        info = self._label(info)
        if self.exploring:
            reward = 0.0
            info["raw_reward"] = raw_reward
            self._exploration_length += 1
        else:
            reward = raw_reward
            episode = self._episode - self.n_exploration_episodes
            self._execution_returns[episode] += raw_reward
            self._execution_lengths[episode] += 1
        self._between_episodes = ended
        over = ended and self._episode == self.n_exploration_episodes + self.n_execution_episodes - 1
        if over:
            self._running = False
            info["execution_returns"] = self._execution_returns
            info["execution_lengths"] = self._execution_lengths
            info["exploration_length"] = self._exploration_length
            if self._has_monitor:  # SB3 finds it there, puts none around the trial, and waits for a record
                n_steps = self._exploration_length + int(self._execution_lengths.sum())
                between = self._episode  # a step to each episode after the first
                info["episode"] = {"r": float(self._execution_returns.sum()), "l": n_steps + between}
        if isinstance(self.env.action_space, spaces.Discrete):
            previous_action = self._one_hot_actions[int(action)]
        else:
            previous_action = np.asarray(spaces.flatten(self.env.action_space, action), dtype=np.float32)
        return (
            self._observe(raw_observation, _OFF, (_ON if ended else _OFF), previous_action, raw_reward),
            reward,
            over,
            False,
            info,
        )

    def _observe(self, observation: Any, start: np.ndarray, end: np.ndarray, action: np.ndarray, reward: float) -> dict:
        observed = dict(observation) if self._is_dict else {"observation": observation}
        exploring = self.exploring
        if exploring or not self._has_instruction:
            observed["instruction"] = self._no_instruction.copy()
        observed["exploring"] = (_ON if exploring else _OFF).copy()
        observed["episode_start"] = start.copy()
        observed["episode_end"] = end.copy()
        observed["previous_action"] = action.copy()
        observed["previous_reward"] = np.array([reward], dtype=np.float32)
        return observed

    def _label(self, info: dict) -> dict:
        """``info`` with the problem ID iff training, and without an inner Monitor's record, which is no trial's."""
        info = {key: value for key, value in info.items() if key not in ("episode", "problem_id")} if info else {}
        if self.training:
            info["problem_id"] = self.problem_id
        return info

    def render(self) -> Any:
        """The family's picture; a family that has ``caption`` is told which episode of the trial it shows."""
        family = self.env.unwrapped
        if hasattr(family, "caption"):
            phase = self._phase()
            family.caption = f"problem {self.problem_id}: {phase}" if self.training else phase
        return self.env.render()

    def _phase(self) -> str:
        if not self.exploring:
            return f"execution {self._episode - self.n_exploration_episodes + 1} of {self.n_execution_episodes}"
        if self.n_exploration_episodes == 1:
            return "exploration"
        return f"exploration {self._episode + 1} of {self.n_exploration_episodes}"
