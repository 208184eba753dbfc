"""What every family promises to ``TrialEnv``, Gymnasium and Stable-Baselines3."""

import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env

from sb3_dream.envs.bandit import BanditEnv
from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.cooking import CookingEnv
from sb3_dream.envs.distracting_bus import DistractingBusEnv
from sb3_dream.envs.map import MapEnv
from sb3_dream.envs.sign import SignEnv

GRIDS: list[Any] = [BusEnv, DistractingBusEnv, MapEnv, CookingEnv]
FAMILIES: list[Any] = [*GRIDS, BanditEnv, SignEnv]


@pytest.mark.parametrize("family", FAMILIES)
def test_checkers_are_silent(family):
    """Otherwise a user's ``check_env`` fails or warns on our own environments."""
    gym.register(f"Checked{family.__name__}-v0", entry_point=family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gymnasium_check_env(gym.make(f"Checked{family.__name__}-v0", render_mode="rgb_array").unwrapped)
        sb3_check_env(family())


@pytest.mark.parametrize("family", FAMILIES)
def test_problem_stays_until_told(family):
    """Otherwise the execution episode would be played in another problem than the one that was explored."""
    env = family()
    for problem in (0, env.n_problems - 1):
        env.reset(seed=1, options={"problem_id": problem, "exploring": True})
        env.reset()
        env.reset(seed=2)
        assert env._problem == problem


@pytest.mark.parametrize("family", FAMILIES)
def test_first_problem_is_drawn_from_the_seed(family):
    """Otherwise a seeded run would not repeat, or would always meet the same problem."""
    drawn = []
    for seed in [*range(60), *range(60)]:
        env = family()
        env.reset(seed=seed)
        drawn.append(env._problem)
    assert drawn[:60] == drawn[60:]
    assert len(set(drawn)) > min(family().n_problems, 60) / 3


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_seeds_leave_equal_generators(family):
    """Otherwise two evaluations with one seed differ in their instructions, depending on what was played before."""
    env = family()
    observations, states = [], []
    for _ in range(2):
        observations.append(env.reset(seed=5)[0])
        states.append(env.np_random.bit_generator.state)
    np.testing.assert_equal(observations[0], observations[1])
    assert states[0] == states[1]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem_id": -1}, "problem_id"),
        ({"problem_id": 576}, "576"),
        ({"problem_id": 1.0}, "problem_id"),
        ({"problem_id": True}, "problem_id"),
        ({"instruction": 9}, "instruction"),
        ({"instruction": 0, "exploring": True}, "exploration episode has no instruction"),
        ({"problem": 1}, "problem"),
    ],
)
def test_bad_options_are_named(family, options, message):
    """Otherwise a typing error in the options plays some other problem without a word."""
    with pytest.raises(ValueError, match=message):
        family().reset(options=options)


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_split_is_refused(family):
    """Otherwise ``split="eval"`` trains on some split that nobody asked for."""
    with pytest.raises(ValueError, match="'eval'"):
        family().problem_ids("eval")


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_render_mode_is_refused(family):
    """Otherwise ``render_mode="human"`` shows nothing and the user looks for a window."""
    with pytest.raises(ValueError, match="human"):
        family(render_mode="human")


@pytest.mark.parametrize("family", FAMILIES)
def test_bad_actions_are_refused(family):
    """Otherwise an action from another space becomes some other move."""
    env = family()
    env.reset(seed=0)
    for action in (-1, env.action_space.n, 0.5):
        with pytest.raises(ValueError, match=r"action must be an integer in 0\.\."):
            env.step(action)


@pytest.mark.parametrize("family", FAMILIES)
def test_step_needs_a_reset(family):
    """Otherwise a loop that forgets to reset goes on collecting steps of an episode that is over."""
    env = family()
    with pytest.raises(ResetNeeded):
        env.step(0)
    env.reset(seed=0)
    while not any(env.step(0)[2:4]):
        pass
    with pytest.raises(ResetNeeded):
        env.step(0)


@pytest.mark.parametrize("family", GRIDS)
@pytest.mark.parametrize("exploring", [False, True])
def test_twenty_steps_terminate(family, exploring):
    """Otherwise SB3 would bootstrap past a limit that is a rule of the family."""
    env = family()
    env.reset(seed=0, options={"exploring": exploring})
    steps = [env.step(4) for _ in range(20)]
    assert [step[2] for step in steps] == [False] * 19 + [True]
    assert not any(step[3] for step in steps)
    assert [step[1] for step in steps] == [-0.1] * 20


@pytest.mark.parametrize("family", GRIDS)
@pytest.mark.parametrize("exploring", [False, True])
@pytest.mark.parametrize("waited", [0, 7, 19])
def test_ending_costs_the_steps_that_were_left(family, exploring, waited):
    """Otherwise giving up would be cheaper than looking for the goal, and the agent would learn to give up."""
    env = family()
    env.reset(seed=0, options={"exploring": exploring})
    total = sum(env.step(4)[1] for _ in range(waited))
    _, reward, terminated, truncated, _ = env.step(6)
    assert terminated and not truncated
    assert reward == pytest.approx(-0.1 - 0.1 * (20 - waited - 1))
    assert total + reward == pytest.approx(-2.0)


@pytest.mark.parametrize("family", GRIDS)
def test_exploring_shows_and_draws_no_instruction(family):
    """Otherwise the exploration policy could see a goal, or exploring would change the goals that come after."""
    env = family()
    env.reset(seed=0)
    before = env.np_random.bit_generator.state
    observation, _ = env.reset(options={"exploring": True})
    assert not observation["instruction"].any()
    assert not env.step(0)[0]["instruction"].any()
    assert env.np_random.bit_generator.state == before
    assert env.reset()[0]["instruction"].any(), "an instruction must be back in the execution episode"


@pytest.mark.parametrize("family", GRIDS)
def test_every_instruction_is_drawn(family):
    """Otherwise part of the instructions would never be trained or tested."""
    env = family()
    env.reset(seed=0)
    drawn = [env.reset() and env._instruction for _ in range(300)]
    counts = np.bincount(drawn, minlength=env.n_instructions)
    assert len(counts) == env.n_instructions
    assert counts.min() > 300 / env.n_instructions / 3


@pytest.mark.parametrize("family", GRIDS)
def test_kept_observations_do_not_change(family):
    """Otherwise a buffer that keeps observations would find the latest one in every place."""
    env = family()
    first, _ = env.reset(seed=0)
    copy = {key: value.copy() for key, value in first.items()}
    env.step(2)
    env.reset(options={"exploring": True})
    for key, value in first.items():
        np.testing.assert_array_equal(value, copy[key])


@pytest.mark.parametrize("family", [*GRIDS, BanditEnv])
def test_exploring_never_terminates_on_a_goal(family):
    """Otherwise exploring could stumble on a goal that does not exist yet, and be cut short or paid."""
    env = family()
    for seed in range(30):
        env.reset(seed=seed, options={"exploring": True, "problem_id": seed % env.n_problems})
        env.action_space.seed(seed)
        rewards, steps, terminated = [], 0, False
        while not terminated:
            action = int(env.action_space.sample())
            if action == 6 and family is not BanditEnv:
                continue
            _, reward, terminated, _, _ = env.step(action)
            rewards.append(reward)
            steps += 1
        assert steps == (1 if family is BanditEnv else 20)
        assert set(rewards) == {0.0 if family is BanditEnv else -0.1}
