"""The map family: what the map shows, and where."""

import gymnasium as gym
import numpy as np
import pytest

import sb3_dream  # noqa: F401  (registers the ids)
from sb3_dream.envs.drawing import SMOOTH, Picture
from sb3_dream.envs.map import MapEnv


def test_map_shows_the_problem_on_its_cell_alone():
    """Otherwise reading the map tells nothing, or the agent knows the problem without walking there."""
    env = MapEnv()
    for problem in range(24):
        env.reset(options={"problem_id": problem, "exploring": True})
        shown = {}
        for x in range(9):
            for y in range(9):
                env.reset(options={"exploring": True})
                ways = [2 if x > 4 else 0] * abs(x - 4) + [1 if y > 4 else 3] * abs(y - 4)
                observation = env.reset(options={"exploring": True})[0]["observation"]
                for action in ways:
                    observation = env.step(action)[0]["observation"]
                shown[int(observation[0]), int(observation[1])] = int(observation[3])
        assert len(shown) == 81
        assert {cell: value for cell, value in shown.items() if value} == {(7, 3): problem + 1}


def test_map_can_be_read_while_executing_too():
    """Otherwise an agent that did not explore would be worse off than the rules say."""
    env = MapEnv()
    env.reset(seed=0, options={"problem_id": 4, "instruction": 0})
    for action in (2, 2, 2):
        env.step(action)
    np.testing.assert_array_equal(env.step(3)[0]["observation"], [7, 3, 0, 5])


def test_both_splits_hold_all_problems():
    """Otherwise results are not comparable with the paper's."""
    assert MapEnv.problem_ids("train") == MapEnv.problem_ids("test") == list(range(24))


START = (4, 4)


def test_the_map_can_lie_where_each_episode_starts() -> None:
    """The control that every rival must pass: the number is seen at once, in every episode, and so exploring adds nothing."""
    env = gym.make("MetaMap-v0", map_position=list(START))  # as from JSON or YAML
    for _ in range(2):
        observation, info = env.reset()
        while observation["episode_end"][0] == 0:
            x, y, _, shown = observation["observation"]
            assert shown == (info["problem_id"] + 1 if (x, y) == START else 0)
            observation, *_, info = env.step(1)
        observation, *_, info = env.step(0)
        assert observation["observation"].tolist() == [*START, 0, info["problem_id"] + 1]
    env = MapEnv(map_position=START)
    assert env.no_exploration_return() == pytest.approx(0.8)
    assert env.optimal_return(5) == pytest.approx(0.8)


def test_the_map_is_drawn_where_it_lies() -> None:
    """Else the picture shows another problem than the one that is played."""
    positions, frames = [(7, 3), (1, 5)], []
    for position in positions:
        env = MapEnv(position, render_mode="rgb_array")
        env.reset(options={"problem_id": 0, "exploring": True})
        frames.append(np.asarray(env.render()))
    differs = (frames[0] != frames[1]).any(axis=-1)
    for position in positions:
        left, top, right, bottom = (int(edge / SMOOTH) for edge in Picture(9, 9).box(position))
        assert differs[top:bottom, left:right].mean() > 0.5
        differs[top - 1 : bottom + 2, left - 1 : right + 2] = False  # and its smooth edge
    assert not differs.any()


@pytest.mark.parametrize("position", [(9, 3), (4, 5), (0, 1), (-1, 0), (1, 2, 3), (1.5, 2)])
def test_no_map_off_the_grid_or_on_a_bus(position: tuple) -> None:
    """It could not be read, or would hide the bus."""
    with pytest.raises(ValueError, match="map_position must be a cell"):
        MapEnv(position)
