"""The bus families: where buses go, what a goal pays, and which problems are in which split."""

import numpy as np
import pytest

from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.distracting_bus import DistractingBusEnv
from sb3_dream.envs.map import MapEnv

LEFT, UP, RIGHT, DOWN, NO_OP, RIDE = range(6)
TO_STOP = {(4, 5): [UP], (5, 4): [RIGHT], (3, 4): [LEFT], (4, 3): [DOWN]}
TO_USELESS_STOP = {(5, 5): [RIGHT, UP], (3, 3): [LEFT, DOWN], (3, 5): [LEFT, UP], (5, 3): [RIGHT, DOWN]}


def play(env, actions, **options):
    """Reset with the options, play the actions, and return the observations, rewards and terminations."""
    observation, _ = env.reset(seed=0, options=options)
    steps = [env.step(action) for action in actions]
    observations = [observation, *(step[0] for step in steps)]
    return [tuple(o["observation"].tolist()) for o in observations], [s[1] for s in steps], [s[2] for s in steps]


@pytest.mark.parametrize("family", [BusEnv, DistractingBusEnv, MapEnv])
def test_walking(family):
    """Otherwise the arrows of the picture and the agent's moves disagree, or it leaves the grid."""
    env = family()
    for action, cell in [(LEFT, (3, 4)), (UP, (4, 5)), (RIGHT, (5, 4)), (DOWN, (4, 3)), (NO_OP, (4, 4)), (RIDE, (4, 4))]:
        assert play(env, [action], exploring=True)[0][-1][:2] == cell
    for action, cell in [(LEFT, (0, 4)), (UP, (4, 8)), (RIGHT, (8, 4)), (DOWN, (4, 0))]:
        assert play(env, [action] * 6, exploring=True)[0][-1][:2] == cell


@pytest.mark.parametrize("family", [BusEnv, MapEnv])
@pytest.mark.parametrize(
    ("problem", "destinations"),
    [
        (0, [(0, 1), (0, 7), (8, 1), (8, 7)]),
        (1, [(0, 1), (0, 7), (8, 7), (8, 1)]),
        (6, [(0, 7), (0, 1), (8, 1), (8, 7)]),
        (23, [(8, 7), (8, 1), (0, 7), (0, 1)]),
    ],
)
def test_a_ride_goes_where_the_problem_says_and_back(family, problem, destinations):
    """Otherwise problem IDs mean other problems than in the paper, and results cannot be compared."""
    for (stop, way), destination in zip(TO_STOP.items(), destinations, strict=True):
        observations, _, _ = play(family(), [*way, RIDE, RIDE], problem_id=problem, exploring=True)
        assert [o[:2] for o in observations[-3:]] == [stop, destination, stop]


def test_distracting_problem_joins_a_helpful_and_a_useless_order():
    """Otherwise problem IDs mean other problems than in the paper, and the train split leaks into the test split."""
    env = DistractingBusEnv()
    for (stop, way), destination in zip(TO_STOP.items(), [(0, 1), (0, 7), (8, 7), (8, 1)], strict=True):
        observations, _, _ = play(env, [*way, RIDE, RIDE], problem_id=1 + 24 * 23, exploring=True)
        assert [o[:2] for o in observations[-3:]] == [stop, destination, stop]
    for (stop, way), destination in zip(TO_USELESS_STOP.items(), [(4, 8), (8, 4), (4, 0), (0, 4)], strict=True):
        observations, _, _ = play(env, [*way, RIDE, RIDE], problem_id=1 + 24 * 23, exploring=True)
        assert [o[:2] for o in observations[-3:]] == [stop, destination, stop]


@pytest.mark.parametrize(("family", "stops"), [(BusEnv, TO_STOP), (DistractingBusEnv, TO_STOP | TO_USELESS_STOP)])
def test_status_marks_stops_and_destinations_alone(family, stops):
    """Otherwise the agent cannot see where a bus leaves from."""
    env = family()
    assert play(env, [], exploring=True)[0] == [(4, 4, 0)]
    for way in stops.values():
        observations, _, _ = play(env, [*way, RIDE], problem_id=5, exploring=True)
        assert observations[-2][2] == observations[-1][2] == 1
    beside = play(env, [LEFT, LEFT], exploring=True)[0][-1]
    assert beside == (2, 4, 0)
    assert play(BusEnv(), TO_USELESS_STOP[(5, 5)], exploring=True)[0][-1] == (5, 5, 0)


@pytest.mark.parametrize("family", [BusEnv, DistractingBusEnv, MapEnv])
def test_reaching_the_goal_pays_one_and_ends(family):
    """Otherwise returns are not those of the paper; and a corner that is not the goal must be like any other cell."""
    ways = [[LEFT, DOWN], [RIGHT, UP], [LEFT, UP], [RIGHT, DOWN]]
    for instruction, corner in enumerate([(0, 0), (8, 8), (0, 8), (8, 0)]):
        for way in ways:
            observations, rewards, done = play(family(), [a for a in way for _ in range(4)], instruction=instruction)
            if observations[-1][:2] == corner:
                assert rewards == [-0.1] * 7 + [1.0] and done == [False] * 7 + [True]
            else:
                assert rewards == [-0.1] * 8 and not any(done)


def test_instruction_is_the_goal_corner_one_hot():
    """Otherwise the agent is sent to another corner than it is paid for."""
    for instruction in range(4):
        observation, _ = BusEnv().reset(seed=0, options={"instruction": instruction})
        np.testing.assert_array_equal(observation["instruction"], np.eye(4)[instruction])


def test_splits():
    """Otherwise the agent is tested on what it was trained on, or results are not comparable with the paper's."""
    train, test = DistractingBusEnv.problem_ids("train"), DistractingBusEnv.problem_ids("test")
    assert len(train) == 53 and len(test) == 523
    assert train[:3] == [0, 11, 22] and train[-1] == 572
    assert sorted(train + test) == list(range(576))
    assert BusEnv.problem_ids("train") == BusEnv.problem_ids("test") == list(range(24))
