"""The bandit family: which arm pays, and which one tells."""

import pytest
from gymnasium.spaces import Discrete

from sb3_dream.envs.bandit import BanditEnv


@pytest.mark.parametrize("n_arms", [2, 5, 16])
def test_only_the_named_arm_pays_while_executing(n_arms):
    """Otherwise the limits 1 and 1 / n_arms are wrong, or pulling the informative arm is a way out."""
    env = BanditEnv(n_arms)
    for problem in range(n_arms):
        for arm in range(n_arms):
            assert env.reset(options={"problem_id": problem})[0] == 0
            assert env.step(arm) == (0, float(arm == problem), True, False, {})


@pytest.mark.parametrize("n_arms", [2, 5, 16])
def test_only_the_last_arm_tells_while_exploring(n_arms):
    """Otherwise there is nothing to explore, or nothing to be learned by it."""
    env = BanditEnv(n_arms)
    for problem in range(n_arms):
        for arm in range(n_arms):
            assert env.reset(options={"problem_id": problem, "exploring": True})[0] == 0
            shown = problem + 1 if arm == n_arms - 1 else 0
            assert env.step(arm) == (shown, 0.0, True, False, {})


def test_spaces_and_splits_follow_the_number_of_arms():
    """Otherwise a bandit with another number of arms would be trained on problems that it does not have."""
    env = BanditEnv(n_arms=7)
    spaces = (env.action_space, env.problem_space, env.observation_space)
    assert spaces == (Discrete(7), Discrete(7), Discrete(8))
    assert env.problem_ids("train") == env.problem_ids("test") == list(range(7))
    assert BanditEnv().problem_space.n == 16


def test_one_arm_is_refused():
    """Otherwise a bandit without any problem breaks somewhere inside training."""
    with pytest.raises(ValueError, match="n_arms must be at least 2"):
        BanditEnv(n_arms=1)
