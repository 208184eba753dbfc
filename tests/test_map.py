"""The map family: what the map shows, and where."""

import numpy as np

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
