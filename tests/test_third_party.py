"""Environments of others, from the package index, each made a family in one line, checked, and learned on for some steps."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import metaworld
import minigrid  # noqa: F401  registers its environments
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from gymnasium.envs.mujoco.half_cheetah_v5 import HalfCheetahEnv
from gymnasium.envs.toy_text.frozen_lake import generate_random_map
from gymnasium.wrappers import FlattenObservation, TimeLimit
from minigrid.wrappers import ImgObsWrapper
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.base_class import BaseAlgorithm

from sb3_dream import DREAM, TrialEnv, check_trial_env, evaluate_problems
from tests.context_family import ContextCartPole


def minigrid_trials(seeds: Any = range(50), **kwargs: Any) -> TrialEnv:
    """Four rooms, other ones for each seed."""
    env = gym.make("MiniGrid-FourRooms-v0", max_steps=20)
    return TrialEnv(FlattenObservation(ImgObsWrapper(env)), seeds, set_problem="seed", **kwargs)


@pytest.fixture(scope="module")
def ml1() -> metaworld.ML1:
    """Meta-World's reaching: 50 hidden goals to train on, and 50 others to test on."""
    return metaworld.ML1("reach-v3", seed=0)


def metaworld_trials(ml1: metaworld.ML1, **kwargs: Any) -> TrialEnv:
    """Its training tasks."""
    return TrialEnv(TimeLimit(ml1.train_classes["reach-v3"](), 15), ml1.train_tasks, **kwargs)


class HalfCheetahVelocity(HalfCheetahEnv):
    """VariBAD's: run at the velocity that the task says."""

    goal = 0.0

    def reset_task(self, task: float) -> None:
        """Another velocity."""
        self.goal = task

    def step(self, action: np.ndarray) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Reward for being near it."""
        observation, _, terminated, truncated, info = super().step(action)
        return observation, -abs(info["x_velocity"] - self.goal), terminated, truncated, info


def set_gravity(env: gym.Env, gravity: float) -> None:
    """MuJoCo's physics."""
    env.unwrapped.model.opt.gravity[2] = -gravity  # type: ignore[attr-defined]


MAPS = [{"desc": generate_random_map(size=4, seed=seed)} for seed in range(20)]

DISCRETE: dict[str, Callable[[], TrialEnv]] = {
    "MiniGrid": minigrid_trials,
    "FrozenLake": lambda: TrialEnv(gym.make("FrozenLake-v1", is_slippery=False), MAPS),
    "contexts": lambda: TrialEnv(ContextCartPole(), [{"gravity": gravity} for gravity in (2.0, 10.0, 50.0)]),
    "CartPole": lambda: TrialEnv(
        gym.make("CartPole-v1", max_episode_steps=30),
        [0.2, 0.5, 1.5],
        set_problem=lambda env, length: setattr(env.unwrapped, "length", length),
    ),
}
CONTINUOUS: dict[str, Callable[[], TrialEnv]] = {
    "Pendulum": lambda: TrialEnv(gym.make("Pendulum-v1", max_episode_steps=30), [{"g": g} for g in (2.0, 5.0, 10.0)]),
    "direction": lambda: TrialEnv(
        gym.make("HalfCheetah-v5", max_episode_steps=20), [{"forward_reward_weight": weight} for weight in (-1.0, 1.0)]
    ),
    "velocity": lambda: TrialEnv(TimeLimit(HalfCheetahVelocity(), 20), np.linspace(0.0, 3.0, 10)),
    "gravity": lambda: TrialEnv(
        gym.make("Hopper-v5", max_episode_steps=20), [5.0, 9.81, 15.0], set_problem=set_gravity, n_execution_episodes=2
    ),
}
WAYS = {
    "MiniGrid": "seed",
    "FrozenLake": "kwargs",
    "contexts": "context",
    "Pendulum": "kwargs",
    "direction": "kwargs",
    "velocity": "reset_task",
}


def learn(model: BaseAlgorithm, n_steps: int) -> None:
    """All that is learned has changed and is finite."""
    before = [parameter.detach().clone() for parameter in model.policy.parameters() if parameter.requires_grad]
    model.learn(n_steps)
    after = [parameter.detach() for parameter in model.policy.parameters() if parameter.requires_grad]
    assert all(bool(th.isfinite(parameter).all()) for parameter in after)
    changed = [not th.equal(one, two) for one, two in zip(before, after, strict=True)]
    assert np.mean(changed) > 0.8, "a few have no gradient yet, e.g. of instructions that are always zero"


def dream(env: TrialEnv) -> DREAM:
    """Small enough to be quick."""
    return DREAM(
        "MlpPolicy", env, learning_starts=200, buffer_size=2000, batch_size=8, train_freq=40, learning_rate=1e-3, device="cpu"
    )


@pytest.mark.parametrize("name", [*DISCRETE, *CONTINUOUS])
def test_one_line_is_enough(name: str) -> None:
    """The way is found, and nothing is wrong with the trials."""
    env = {**DISCRETE, **CONTINUOUS}[name]()
    if name in WAYS:
        assert env.set_problem == WAYS[name]
    check_trial_env(env)


@pytest.mark.parametrize("name", DISCRETE)
def test_dream_learns(name: str) -> None:
    """From the one line to training, with SB3's own words."""
    learn(dream(DISCRETE[name]()), 400)


@pytest.mark.parametrize("name", CONTINUOUS)
def test_recurrent_ppo_learns(name: str) -> None:
    """Continuous actions are not DREAM's, but trials have them, and sb3-contrib learns on them."""
    learn(RecurrentPPO("MultiInputLstmPolicy", CONTINUOUS[name](), n_steps=64, n_epochs=2, device="cpu"), 128)


# ---- MiniGrid ----------------------------------------------------------------------------------------------------------


def test_minigrid_has_one_world_in_a_trial() -> None:
    """What was seen while exploring must be there while executing."""
    env = minigrid_trials(n_execution_episodes=2)
    worlds: dict[int, set[bytes]] = {}
    for _ in range(8):
        observation, info = env.reset()
        over = False
        while not over:
            if observation["episode_start"][0] > 0:
                family: Any = env.env.unwrapped
                worlds.setdefault(info["problem_id"], set()).add(family.grid.encode().tobytes())
            observation, _, over, _, info = env.step(env.action_space.sample())
    assert all(len(world) == 1 for world in worlds.values())
    assert len({next(iter(world)) for world in worlds.values()}) == len(worlds) > 3


def test_minigrid_is_evaluated_on_worlds_that_it_has_not_seen() -> None:
    """Train and test are two ranges of seeds."""
    model = dream(minigrid_trials())
    results = evaluate_problems(model, minigrid_trials(range(1000, 1005), training=False))
    assert results.problem_ids.tolist() == list(range(1000, 1005))
    assert np.all(results.execution_lengths <= 20)


def test_the_text_of_minigrids_mission() -> None:
    """Networks do not read: the error names the wrapper that helps."""
    with pytest.raises(ValueError, match=r"'mission' is .*MissionSpace.*minigrid\.wrappers\.ImgObsWrapper"):
        TrialEnv(gym.make("MiniGrid-FourRooms-v0"), range(5), set_problem="seed")


# ---- Meta-World --------------------------------------------------------------------------------------------------------


def test_metaworld_is_one_line(ml1: metaworld.ML1) -> None:
    """set_task is found; nothing is wrong; RecurrentPPO learns."""
    env = metaworld_trials(ml1)
    assert env.set_problem == "set_task"
    assert env.problem_space == spaces.Discrete(50)
    check_trial_env(env)
    learn(RecurrentPPO("MultiInputLstmPolicy", env, n_steps=64, n_epochs=2, device="cpu"), 64)


@pytest.mark.parametrize("wrapped", [False, True])
def test_metaworld_keeps_its_goal(ml1: metaworld.ML1, wrapped: bool) -> None:
    """Its own wrappers draw another task at each reset, which would put another goal into each inner episode."""
    tasks = ml1.train_tasks[:5]
    family: Any = ml1.train_classes["reach-v3"]()
    if wrapped:
        family = metaworld.RandomTaskSelectWrapper(TimeLimit(family, 3), tasks)
    env = TrialEnv(TimeLimit(family, 3), tasks, n_execution_episodes=2)
    goals: dict[int, set[tuple[float, ...]]] = {}
    for problem_id in [0, 3, 1, 3, 0]:
        observation, info = env.reset(options={"problem_id": problem_id})
        over = False
        while not over:
            if observation["episode_start"][0] > 0:
                goals.setdefault(info["problem_id"], set()).add(tuple(family.unwrapped._target_pos))
            observation, _, over, _, info = env.step(env.action_space.sample())
    assert sorted(goals) == [0, 1, 3]
    assert all(len(goal) == 1 for goal in goals.values())
    assert len(set.union(*goals.values())) == 3


def test_check_trial_env_sees_metaworld_draw_another_task(ml1: metaworld.ML1) -> None:
    """A callable that sets the task does not keep Meta-World's wrapper from setting another."""
    family = metaworld.RandomTaskSelectWrapper(TimeLimit(ml1.train_classes["reach-v3"](), 10), ml1.train_tasks)
    env = TrialEnv(family, ml1.train_tasks, set_problem=lambda env, task: env.unwrapped.set_task(task))  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="the problem changes within a trial"):
        check_trial_env(env)


# ---- physics -----------------------------------------------------------------------------------------------------------


def test_frozen_lake_has_the_map_of_its_problem() -> None:
    """A map is a constructor argument of FrozenLake."""
    env = DISCRETE["FrozenLake"]()
    family: Any = env.env
    for problem_id in [3, 0, 3]:
        env.reset(options={"problem_id": problem_id})
        rows = ["".join(letter.decode() for letter in row) for row in family.unwrapped.desc]
        assert rows == MAPS[problem_id]["desc"]


@pytest.mark.parametrize(("name", "attribute"), [("Pendulum", "g"), ("direction", "_forward_reward_weight")])
def test_constructor_arguments_reach_the_physics(name: str, attribute: str) -> None:
    """For each problem its own."""
    env = CONTINUOUS[name]()
    for problem_id, problem in enumerate(env.problems):
        env.reset(options={"problem_id": problem_id})
        assert [getattr(env.env.unwrapped, attribute)] == list(problem.values())


def test_gravity_holds_for_the_whole_trial() -> None:
    """MuJoCo's reset restores positions and velocities, and must not restore the planet."""
    env = CONTINUOUS["gravity"]()
    for gravity in env.problems:
        env.reset(options={"problem_id": gravity})
        over = False
        while not over:
            assert env.env.unwrapped.model.opt.gravity[2] == -gravity  # type: ignore[attr-defined]
            _, _, over, _, _ = env.step(env.action_space.sample())
