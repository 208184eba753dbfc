"""The cooking family: drawers, hand, bowl, and the four subgoals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dream.envs.cooking import CookingEnv

LEFT, UP, RIGHT, DOWN, NO_OP, TOGGLE, END, PICK, DROP = range(9)
PROBLEM = 0 + 4 * 1 + 16 * 2  # drawer (2, 0) holds 0, (2, 1) holds 1, (2, 2) holds 2


def play(actions, problem=PROBLEM, **options):
    """Reset with the options, play the actions, and return the observations, rewards and terminations."""
    env = CookingEnv()
    observation, _ = env.reset(seed=0, options={"problem_id": problem, **options})
    steps = [env.step(action) for action in actions]
    observations = [observation, *(step[0] for step in steps)]
    return [tuple(o["observation"].tolist()) for o in observations], [s[1] for s in steps], [s[2] for s in steps]


def test_drawers_hold_the_base_4_digits_of_the_id():
    """Otherwise problem IDs mean other problems than in the paper, and test ID 10 is another kitchen."""
    for problem, contents in [(PROBLEM, (0, 1, 2)), (10, (2, 2, 0)), (63, (3, 3, 3)), (1, (1, 0, 0))]:
        for way, ingredient in zip([[RIGHT, DOWN], [RIGHT], [RIGHT, UP]], contents, strict=True):
            observation = play([*way, PICK], problem, exploring=True)[0][-1]
            assert observation[2:4] == (3, ingredient)


def test_start_and_status():
    """Otherwise the agent cannot tell bowl, drawers and empty cells apart."""
    observations, _, _ = play([LEFT, UP, RIGHT, RIGHT, DOWN], exploring=True)
    assert observations[0] == (1, 1, 2, 4, 4, 4, 4)
    assert [o[:3] for o in observations[1:]] == [(0, 1, 0), (0, 2, 0), (1, 2, 0), (2, 2, 3), (2, 1, 3)]


def test_hand():
    """Otherwise the agent loses or keeps ingredients that the rules say it has or has not."""
    held = [o[3] for o in play([RIGHT, PICK, PICK, UP, PICK, LEFT, PICK, TOGGLE, DROP, PICK], exploring=True)[0]]
    assert held == [4, 4, 1, 1, 1, 2, 2, 2, 2, 4, 4], "a drawer replaces what is held; empty cells give and take nothing"
    held = [o[3] for o in play([RIGHT, PICK, LEFT, PICK], exploring=True)[0]]
    assert held == [4, 4, 1, 1, 4], "picking up at the bowl empties the hand"


def test_bowl_takes_three_and_no_more():
    """Otherwise the fourth ingredient would overwrite one, or crash the environment."""
    fetch = [RIGHT, PICK, LEFT, DROP]
    observations, _, _ = play(fetch * 4, exploring=True)
    assert [observations[4 * n][3:] for n in range(5)] == [
        (4, 4, 4, 4),
        (4, 1, 4, 4),
        (4, 1, 1, 4),
        (4, 1, 1, 1),
        (4, 1, 1, 1),
    ]
    assert play([DROP, DROP], exploring=True)[0][-1][4:] == (4, 4, 4), "nothing lands from an empty hand"


def test_instruction_names_what_the_two_drawers_hold():
    """Otherwise a recipe may ask for what no drawer holds, or show another than the one that pays."""
    for instruction in range(9):
        observation, _ = CookingEnv().reset(seed=0, options={"problem_id": PROBLEM, "instruction": instruction})
        first, second = instruction % 3, instruction // 3
        np.testing.assert_array_equal(observation["instruction"], [*np.eye(4)[first], *np.eye(4)[second]])


def test_four_subgoals_pay_and_the_last_ends():
    """Otherwise the returns are not those of the paper."""
    actions = [RIGHT, PICK, LEFT, DROP, RIGHT, UP, PICK, DOWN, LEFT, DROP]
    observations, rewards, done = play(actions, instruction=1 + 3 * 2)
    assert rewards == [-0.1, 0.25, -0.1, 0.25, -0.1, -0.1, 0.25, -0.1, -0.1, 0.25]
    assert done == [False] * 9 + [True]
    assert observations[-1] == (1, 1, 2, 4, 1, 2, 4)


def test_wrong_pick_up_costs_more_while_looking():
    """Otherwise opening drawers at random would be free, and exploring not worth it."""
    _, rewards, _ = play([RIGHT, UP, PICK, PICK, DOWN, PICK], instruction=1 + 3 * 2)
    assert rewards == pytest.approx([-0.1, -0.1, -0.35, -0.35, -0.1, 0.25])
    _, rewards, _ = play([PICK, LEFT, PICK], instruction=1 + 3 * 2)
    assert rewards == pytest.approx([-0.35, -0.1, -0.35]), "a pick-up that leaves the hand empty is no better"


@pytest.mark.parametrize("loss", [[DROP], [UP, PICK]])
def test_losing_the_ingredient_steps_back(loss):
    """Otherwise an agent could be paid for an ingredient again and again, or never find its way back."""
    _, rewards, _ = play([RIGHT, PICK, *loss], instruction=1 + 3 * 2)
    assert rewards[-1] == pytest.approx(-0.35)
    back = [DOWN] * (len(loss) - 1)
    _, rewards, _ = play([RIGHT, PICK, *loss, *back, PICK, LEFT, DROP], instruction=1 + 3 * 2)
    assert rewards[-3:] == pytest.approx([0.25, -0.1, 0.25])


def test_losing_the_second_ingredient_keeps_the_first_in_the_bowl():
    """Otherwise one mistake late in the recipe would cost all of it."""
    actions = [RIGHT, PICK, LEFT, DROP, RIGHT, PICK, DROP, PICK, LEFT, DROP]
    _, rewards, done = play(actions, instruction=1 + 3 * 1)
    assert rewards == pytest.approx([-0.1, 0.25, -0.1, 0.25, -0.1, 0.25, -0.35, 0.25, -0.1, 0.25])
    assert done[-1]


def test_order_matters():
    """Otherwise the recipe's order, which the agent is shown, would mean nothing."""
    _, rewards, done = play([RIGHT, UP, PICK, DOWN, LEFT, DROP, RIGHT, PICK, LEFT, DROP], instruction=1 + 3 * 2)
    assert rewards == pytest.approx([-0.1, -0.1, -0.35, -0.1, -0.1, -0.1, -0.1, 0.25, -0.1, -0.35])
    assert not any(done), "[2, 1] is not [1, 2]: the bowl is spoilt"


def test_splits():
    """Otherwise the agent is tested on what it was trained on."""
    assert CookingEnv.problem_ids("test") == [10]
    assert CookingEnv.problem_ids("train") == [problem for problem in range(64) if problem != 10]


@settings(max_examples=150, deadline=None)
@given(
    problem=st.integers(0, 63),
    instruction=st.integers(0, 8),
    actions=st.lists(st.sampled_from([LEFT, UP, RIGHT, DOWN, PICK, PICK, DROP, DROP]), max_size=19),
)
def test_spoilt_bowls_are_alike(problem, instruction, actions):
    """Otherwise the oracle, which takes them for one, would compute a wrong limit."""
    raw = merged = CookingEnv.start
    for action in actions:
        raw, reward, done = CookingEnv.rules(problem, instruction, raw, action)
        merged, merged_reward, merged_done = CookingEnv.rules(problem, instruction, merged, action)
        merged = CookingEnv.simplify(problem, instruction, merged)
        assert (reward, done) == (merged_reward, merged_done)
        assert CookingEnv.observe(problem, raw)[:4] == CookingEnv.observe(problem, merged)[:4]
        if done:
            break
