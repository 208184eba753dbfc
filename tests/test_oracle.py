"""The exact limits: known values, replay through the real environments, and brute force."""

from collections import defaultdict
from statistics import fmean

import pytest

from sb3_dream.envs.bandit import BanditEnv
from sb3_dream.envs.bus import BusEnv
from sb3_dream.envs.cooking import CookingEnv
from sb3_dream.envs.distracting_bus import DistractingBusEnv, _better_informed_return
from sb3_dream.envs.map import MapEnv
from sb3_dream.envs.oracle import best_return, optimal_actions


class ShortBusEnv(BusEnv):
    """Starts at a stop and lasts four steps, so that brute force can see all of it."""

    start = (4, 5)
    max_steps = 4


class SignpostEnv(BusEnv):
    """Starts beside a signpost that tells the problem, and leaves just enough steps to read it and ride."""

    start = (3, 4)
    max_steps = 4
    observation_sizes = (9, 9, 2, 25)

    @classmethod
    def observe(cls, problem, state):
        return (*super().observe(problem, state), problem + 1 if state == (4, 4) else 0)


class ShortCookingEnv(CookingEnv):
    """Lasts four steps: enough to look into two drawers."""

    max_steps = 4


@pytest.mark.parametrize("family", [BusEnv, MapEnv])
def test_known_bus_limits(family):
    """Otherwise every result is read against a wrong limit."""
    assert [family().optimal_return(problem) for problem in range(24)] == pytest.approx([0.8] * 24)
    assert family().no_exploration_return() == pytest.approx(0.3)


def test_known_distracting_bus_limits():
    """Otherwise every result is read against a wrong limit; the two bounds must meet, or neither is exact."""
    problems = [*DistractingBusEnv.problem_ids("train"), 1, 575]
    assert [DistractingBusEnv().optimal_return(problem) for problem in problems] == pytest.approx([0.8] * len(problems))
    assert DistractingBusEnv().no_exploration_return() == pytest.approx(0.3)
    assert _better_informed_return() == pytest.approx(0.3)


def test_known_cooking_limits():
    """Otherwise every result is read against a wrong limit, or the rules are not the paper's."""
    env = CookingEnv()
    assert env.optimal_return(10) == pytest.approx(0.6 - 0.2 * 2 / 3)
    assert fmean(env.optimal_return(problem) for problem in env.problem_ids("train")) == pytest.approx(0.398942, abs=5e-7)
    assert env.no_exploration_return() == pytest.approx(0.07604166666666666)


def test_known_bandit_limits():
    """Otherwise every result is read against a wrong limit."""
    for n_arms in (2, 16):
        assert BanditEnv(n_arms).optimal_return(n_arms - 2) == 1.0
        assert BanditEnv(n_arms).no_exploration_return() == pytest.approx(1 / n_arms)


@pytest.mark.parametrize("family", [BusEnv, DistractingBusEnv, MapEnv, CookingEnv])
def test_a_problem_that_does_not_exist_has_no_limit(family):
    """Otherwise a wrong ID gets a number, and nobody notices."""
    with pytest.raises(ValueError, match="problem_id"):
        family().optimal_return(576)


@pytest.mark.parametrize(
    ("family", "problems"),
    [(BusEnv, range(24)), (DistractingBusEnv, range(0, 576, 37)), (MapEnv, range(24)), (CookingEnv, range(0, 64, 5))],
)
def test_the_limit_is_reached_in_the_real_environment(family, problems):
    """Otherwise the limit is higher than what any agent can get."""
    env = family()
    for problem in problems:
        returns = []
        for instruction in range(env.n_instructions):
            env.reset(options={"problem_id": problem, "instruction": instruction})
            steps = [env.step(action) for action in optimal_actions(family, problem, instruction)]
            assert [step[2] for step in steps] == [False] * (len(steps) - 1) + [True]
            returns.append(sum(step[1] for step in steps))
        assert fmean(returns) == pytest.approx(env.optimal_return(problem))


def brute_force(env, worlds, history=()):
    """Best expected return after a history, by playing every action in every world on the real environment."""
    if len(history) == env.max_steps:
        return 0.0
    best = -float("inf")
    for action in range(env.n_actions):
        outcomes = defaultdict(list)
        for problem, instruction in worlds:
            env.reset(options={"problem_id": problem, "instruction": instruction})
            for past in history:
                env.step(past)
            observation, reward, terminated, _, _ = env.step(action)
            outcomes[observation["observation"].tobytes(), reward, terminated].append((problem, instruction))
        value = 0.0
        for (_, reward, terminated), alike in outcomes.items():
            future = 0.0 if terminated else brute_force(env, alike, (*history, action))
            value += len(alike) / len(worlds) * (reward + future)
        best = max(best, value)
    return best


@pytest.mark.parametrize(
    ("family", "worlds"),
    [
        (ShortBusEnv, [(problem, 2) for problem in range(24)]),
        (SignpostEnv, [(problem, 3) for problem in range(24)]),
        (ShortCookingEnv, [(p, i) for p in range(64) for i in range(9) if CookingEnv.recipe(p, i) == (0, 1)]),
    ],
)
def test_brute_force_agrees(family, worlds):
    """Otherwise what an agent can learn during the episode itself is counted wrongly, and so is the value of exploring."""
    assert best_return(family, worlds) == pytest.approx(brute_force(family(), worlds))
    known = [best_return(family, [world]) for world in worlds]
    assert best_return(family, worlds) <= fmean(known) + 1e-9, "knowing the world can only help"
