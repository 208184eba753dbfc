"""TrialEnv on families of random spaces, lengths and early ends: what the family says comes out, bit for bit."""

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_dream import TrialEnv
from tests.random_families import Episode, FamilyPlan, family_plans, own_observations


def play(env: TrialEnv, rng: np.random.Generator) -> list[tuple[Any, ...]]:
    """One trial: (observation, action, reward, terminated, truncated, info) of each step, and the reset as a step of its
    own with action None."""
    observation, info = env.reset()
    steps: list[tuple[Any, ...]] = [(observation, None, 0.0, False, False, info)]
    terminated = False
    while not terminated:
        action = int(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
        observation, reward, terminated, truncated, info = env.step(action)
        steps.append((observation, action, reward, terminated, truncated, info))
    return steps


def expected_steps(plan: FamilyPlan, episodes: list[Episode]) -> list[dict[str, Any]]:
    """What a trial of these inner episodes must show at each step, worked out from the family's own log."""
    expected = []
    for number, episode in enumerate(episodes):
        for t, raw in enumerate(episode.observations):
            own = own_observations(plan.observation_space, raw)
            one_hot = np.zeros(plan.n_actions, np.float32)
            if t > 0:
                one_hot[episode.actions[t - 1]] = 1
            raw_reward = episode.rewards[t - 1] if t > 0 else 0.0
            exploring = number < plan.n_exploration_episodes
            if exploring or "instruction" not in own:
                shape = own["instruction"].shape if "instruction" in own else (1,)
                own["instruction"] = np.zeros(shape, np.float32)
            expected.append(
                {
                    "observation": {
                        **own,
                        "exploring": np.array([exploring], np.float32),
                        "episode_start": np.array([t == 0], np.float32),
                        "episode_end": np.array([t == len(episode.observations) - 1], np.float32),
                        "previous_action": one_hot,
                        "previous_reward": np.array([raw_reward], np.float32),
                    },
                    "action": episode.actions[t - 1] if t > 0 else None,  # None: whatever the agent did, nobody saw it
                    "reward": 0.0 if exploring else raw_reward,
                    "raw_reward": raw_reward if exploring and t > 0 else None,
                }
            )
    return expected


@settings(max_examples=400, deadline=None)
@given(plan=family_plans(), training=st.booleans(), n_trials=st.integers(1, 3))
def test_a_trial_is_its_inner_episodes_bit_for_bit(plan: FamilyPlan, training: bool, n_trials: int) -> None:
    """If one observation, action or reward were lost, changed or shifted at an inner boundary, an agent would learn from
    trials that never happened."""
    env = plan.trials(training=training)
    family: Any = env.env
    rng = np.random.default_rng(plan.seed)
    n_inner = plan.n_exploration_episodes + plan.n_execution_episodes
    for trial in range(n_trials):
        steps = play(env, rng)
        episodes = family.log[trial * n_inner :]
        assert len(episodes) == n_inner
        assert all(episode.ended for episode in episodes)
        expected = expected_steps(plan, episodes)
        assert len(steps) == len(expected)
        for (observation, action, reward, terminated, truncated, info), wanted in zip(steps, expected, strict=True):
            assert env.observation_space.contains(observation)
            assert set(observation) == set(wanted["observation"])
            for key, value in wanted["observation"].items():
                got = np.asarray(observation[key])
                assert got.dtype == value.dtype, key
                assert got.tobytes() == value.tobytes(), key
            assert wanted["action"] in (None, action)
            assert reward == wanted["reward"]
            assert info.get("raw_reward") == wanted["raw_reward"]
            assert terminated == (wanted is expected[-1])
            assert truncated is False
            assert ("problem_id" in info) == training


@settings(max_examples=200, deadline=None)
@given(plan=family_plans())
def test_a_trial_is_one_problem_and_its_last_info_sums_it_up(plan: FamilyPlan) -> None:
    """A problem that changed within a trial could not be explored; wrong returns in info would be what the user reads."""
    env = plan.trials()
    family: Any = env.env
    steps = play(env, np.random.default_rng(plan.seed))
    told = [episode.options for episode in family.log]
    phases = [True] * plan.n_exploration_episodes + [False] * plan.n_execution_episodes
    assert [options["exploring"] for options in told if options] == phases
    for problem_id in [*(options["problem_id"] for options in told if options), *(step[-1]["problem_id"] for step in steps)]:
        assert np.array_equal(problem_id, steps[0][-1]["problem_id"])
    assert any(np.array_equal(steps[0][-1]["problem_id"], problem_id) for problem_id in plan.problem_ids)
    info = steps[-1][-1]
    explored, executed = family.log[: plan.n_exploration_episodes], family.log[plan.n_exploration_episodes :]
    assert info["exploration_length"] == sum(len(episode.actions) for episode in explored)
    assert info["execution_lengths"].tolist() == [len(episode.actions) for episode in executed]
    np.testing.assert_allclose(info["execution_returns"], [sum(episode.rewards) for episode in executed], rtol=1e-12)
    np.testing.assert_allclose(sum(step[2] for step in steps), info["execution_returns"].sum(), rtol=1e-9, atol=1e-12)
    assert not any("execution_returns" in step[-1] for step in steps[:-1])


@settings(max_examples=100, deadline=None)
@given(plan=family_plans(), seed=st.integers(0, 2**31 - 1))
def test_what_was_returned_stays_as_it_was(plan: FamilyPlan, seed: int) -> None:
    """Replay buffers and loggers keep what step() returned: an array that is reused would change under them."""
    env = plan.trials()
    observation, info = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    returned: list[tuple[Any, ...]] = []
    terminated = False
    for _ in range(2):
        while not terminated:
            returned.append((observation, {key: np.array(value) for key, value in observation.items()}))
            observation, _, terminated, _, info = env.step(int(rng.integers(plan.n_actions)))
        returned.append(({"returns": info["execution_returns"]}, {"returns": info["execution_returns"].copy()}))
        observation, _ = env.reset()
        terminated = False
    for kept, then in returned:
        for key, value in then.items():
            assert np.array_equal(kept[key], value), key


numbers = st.floats(-1e6, 1e6, width=32)
one_kind_of_problem = st.sampled_from(
    [
        st.integers(0, 50),
        st.integers(-3, 3),
        numbers,
        st.text(max_size=3),
        st.booleans(),
        st.none(),
        st.binary(max_size=2),
        st.lists(st.integers(0, 4), max_size=3),
        st.tuples(numbers, numbers),
        st.dictionaries(st.sampled_from(["gravity", "wind"]), numbers),
    ]
)
kinds_of_problems = st.one_of(one_kind_of_problem, st.lists(one_kind_of_problem, min_size=2, max_size=3).map(st.one_of))


@settings(max_examples=200, deadline=None)
@given(problems=kinds_of_problems.flatmap(lambda kind: st.lists(kind, min_size=1, max_size=5)), seed=st.integers(0, 99))
def test_any_list_of_problems_has_ids_and_reaches_the_family(problems: list[Any], seed: int) -> None:
    """Numbers, names, dicts, or a mixture: the networks can embed every ID, and the family is given the thing that was
    listed, not something that was made of it."""
    told: list[Any] = []
    plan = FamilyPlan(spaces.Discrete(3), 2, spaces.Discrete(1), [0], 1, 1, seed)
    family = plan.family()
    family.problem_space = None  # type: ignore[assignment]

    def set_problem(env: gym.Env, problem: Any) -> None:
        told.append(problem)

    env = TrialEnv(family, problems, set_problem=set_problem)
    assert len(env.problem_ids) == len(problems)
    for problem_id, problem in zip(env.problem_ids, problems, strict=True):
        assert env.problem_space.contains(problem_id)
        assert env.reset(options={"problem_id": problem_id})[1]["problem_id"] is not None
        same = [p for i, p in zip(env.problem_ids, problems, strict=True) if np.array_equal(i, problem_id)]
        assert any(told[-1] is p for p in same)
        assert problem is same[0] or problem == same[0]
    drawn = env.reset(seed=seed)[1]["problem_id"]
    assert any(told[-1] is p for i, p in zip(env.problem_ids, problems, strict=True) if np.array_equal(i, drawn))
