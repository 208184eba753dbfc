"""The sign family: MiniWorld's world, what is paid, and what exploring must not tell."""

import contextlib
import io
from itertools import combinations, product
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete

import sb3_dream  # noqa: F401  (registers the ids)
from sb3_dream.envs.sign import SHAPES, SIGN_PIXELS, SignEnv, sign_pixels

pytestmark = pytest.mark.usefixtures("gl")

STAY_AND_TURN = 0


def miniworlds_own(colour=0, goal=0):
    """MiniWorld's environment itself."""
    import miniworld  # noqa: F401, PLC0415  (the fixture has made sure that it can be imported)

    with contextlib.redirect_stdout(io.StringIO()):
        return gym.make("MiniWorld-Sign-v0", color_index=colour, goal=goal, window_width=8, window_height=6).unwrapped


def stand(env, x, z, direction=0.0):
    """Put the agent somewhere."""
    env._world.agent.pos, env._world.agent.dir = np.array([x, 0.0, z]), direction


def touch(env, shape, colour, **options):
    """An episode in which the agent stands before an object and turns. What the step returned."""
    env.reset(seed=0, options=options)
    x, _, z = env._world._objects[shape][colour].pos
    stand(env, x - 1.2, z)
    return env.step(STAY_AND_TURN)


@pytest.mark.parametrize(("colour", "goal"), list(product(range(3), range(2))))
def test_equal_to_miniworlds_own_by_the_pixel(colour, goal):
    """Otherwise results are those of another world than the paper's. Other environments of the process draw in between."""
    theirs, ours, other = miniworlds_own(colour, goal), SignEnv(), SignEnv(shapes=SHAPES)
    options = {"problem_id": colour, "instruction": goal}
    for seed in range(8):
        expected = theirs.reset(seed=seed)[0]["obs"]
        observation, _ = ours.reset(seed=seed, options=options)
        other.reset(seed=seed, options={"problem_id": (colour + 1) % 3})
        assert (observation["instruction"] == np.eye(2)[goal]).all()
        actions = np.random.default_rng(seed)
        over: Any = [False]
        while not any(over):
            np.testing.assert_array_equal(observation["observation"], expected)
            action = int(actions.choice(4, p=[0.2, 0.15, 0.6, 0.05]))
            state, *expected_rest, _ = theirs.step(action)
            observation, *rest, info = ours.step(action)
            expected = state["obs"]
            assert (rest, info) == (expected_rest, {})
            over = rest[1:]
        np.testing.assert_array_equal(observation["observation"], expected)
        assert ours.np_random.bit_generator.state == theirs.np_random.bit_generator.state


def test_environments_of_one_process_show_their_own_sign():
    """MiniWorld's own show each other's, and an agent trained on those would read the wrong colour."""
    frames = []
    envs = [SignEnv() for _ in range(3)]
    for problem, env in enumerate(envs):
        env.reset(seed=0, options={"problem_id": problem, "exploring": True})
    miniworlds_own()
    for env in envs:
        stand(env, 5.0, 8.5, -0.4)
        frames.append(env.step(STAY_AND_TURN)[0]["observation"])
    widths = [int(sign_pixels(frame[None])[0]) for frame in frames]
    assert 0 < widths[1] < widths[0] < widths[2], "RED is the shortest word, GREEN the longest"


@pytest.mark.parametrize("shapes", [SHAPES[:2], SHAPES])
def test_only_the_right_object_pays_while_executing(shapes):
    """Otherwise the agent is paid for something else than what it was told to fetch."""
    env = SignEnv(shapes)
    kinds = range(len(shapes))
    for problem, instruction, shape, colour in product(range(3), kinds, kinds, range(3)):
        _, reward, terminated, _, _ = touch(env, shape, colour, problem_id=problem, instruction=instruction)
        assert terminated
        assert reward == (1.0 if (shape, colour) == (instruction, problem) else -1.0)


def test_a_touch_while_exploring_ends_the_episode_and_tells_nothing():
    """Otherwise exploring finds out by trial and error what each object is worth, and nobody needs the sign."""
    env = SignEnv()
    for shape, colour in product(range(2), range(3)):
        seen = []
        for problem in range(3):
            observation, reward, terminated, truncated, info = touch(env, shape, colour, problem_id=problem, exploring=True)
            assert (reward, terminated, truncated, info) == (0.0, True, False, {})
            assert not observation["instruction"].any()
            seen.append(observation["observation"])
        assert (seen[0] == seen[1]).all() and (seen[0] == seen[2]).all(), "objects tell which problem it is"


def test_a_trial_tells_nothing_of_a_touch_either():
    """The raw reward comes back in the next observation: that way too, exploring must not learn an object's worth."""
    trial = gym.make("MetaSign-v0").unwrapped
    family = trial.get_wrapper_attr("env")
    for shape, colour in product(range(2), range(3)):
        trial.reset(seed=0, options={"problem_id": 1})
        x, _, z = family._world._objects[shape][colour].pos
        stand(family, x - 1.2, z)
        observation, reward, _, _, info = trial.step(STAY_AND_TURN)
        assert observation["episode_end"] == 1.0
        assert reward == info["raw_reward"] == observation["previous_reward"][0] == 0.0
        observation, *_ = trial.step(STAY_AND_TURN)
        assert observation["exploring"] == 0.0 and observation["previous_reward"][0] == 0.0
        assert observation["instruction"].sum() == 1.0


def test_action_3_ends_and_twenty_steps_are_the_limit():
    """Otherwise an episode goes on that MiniWorld would have ended."""
    env = SignEnv()
    env.reset(seed=0)
    assert env.step(3)[1:4] == (0.0, True, False)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(20)] == [(False, False)] * 19 + [(False, True)]


def test_instructions_are_drawn_anew_and_none_while_exploring():
    """Otherwise one shape would never be asked for, or the exploration policy could see which one will be."""
    env = SignEnv(shapes=SHAPES)
    env.reset(seed=0)
    drawn = [int(env.reset()[0]["instruction"].argmax()) for _ in range(90)]
    assert np.bincount(drawn, minlength=3).min() > 15
    observation, _ = env.reset(options={"exploring": True})
    assert not observation["instruction"].any()


def test_frames_that_are_kept_do_not_change():
    """Otherwise a buffer that keeps frames would find the latest one in every place."""
    env = SignEnv()
    first, _ = env.reset(seed=0)
    copy = first["observation"].copy()
    env.step(2)
    env.reset()
    np.testing.assert_array_equal(first["observation"], copy)


def test_balls_make_nine_objects_that_can_be_touched_one_at_a_time():
    """Otherwise a third shape could not be fetched without touching something else."""
    env = SignEnv(shapes=SHAPES)
    observation, _ = env.reset(seed=0)
    assert observation["instruction"].shape == (3,) and env.observation_space.contains(observation)
    world: Any = env._world
    objects = [entity for group in world._objects for entity in group]
    assert len(objects) == 9 and env.n_instructions == 3
    reach = world.agent.radius + 1.1 * world.max_forward_step
    for one, other in combinations(objects, 2):
        assert np.linalg.norm(np.subtract(one.pos, other.pos)) > max(one.radius, other.radius) + reach
    assert len(SignEnv().problem_ids("train")) == len(SignEnv().problem_ids("test")) == 3
    assert SignEnv().problem_space == Discrete(3)


@pytest.mark.parametrize("shapes", [("box",), ("key", "box"), ("box", "key", "ball", "duck"), "box"])
def test_other_shapes_are_refused(shapes):
    """Otherwise a typing error gives a world that nobody knows."""
    with pytest.raises(ValueError, match=r"shapes must be \('box', 'key'\) or \('box', 'key', 'ball'\), not"):
        SignEnv(shapes)


def test_the_sign_is_found_in_frames_by_its_colour():
    """Otherwise the share of explorations that saw the sign is wrong. Exact is: what changes when the sign is taken away."""
    exact_in_view = 0
    for colour in range(3):
        env = miniworlds_own(colour)
        env.reset(seed=0)
        places = np.random.default_rng(colour)
        poses: list[tuple[np.ndarray, float]] = []
        while len(poses) < 150:
            (x, z), direction = places.uniform([0.5, 0.5], [9.5, 12.5]), places.uniform(-np.pi, np.pi)
            if not env.intersect(env.agent, np.array([x, 0.0, z]), env.agent.radius):
                poses.append((np.array([x, 0.0, z]), direction))
        frames = []
        for signs in (True, False):
            if not signs:
                env.entities = [entity for entity in env.entities if not entity.is_static]
                env._render_static()
            for env.agent.pos, env.agent.dir in poses:
                frames.append(env.render_obs())
        with_sign, without = np.array(frames[:150]), np.array(frames[150:])
        exact = (with_sign != without).any(axis=-1).sum(axis=(1, 2))
        judged = sign_pixels(with_sign)
        assert (judged <= exact).all() and not sign_pixels(without).any()
        assert (judged[exact >= 2 * SIGN_PIXELS] >= SIGN_PIXELS).all()
        np.testing.assert_array_equal(sign_pixels(with_sign.transpose(0, 3, 1, 2)), judged)
        exact_in_view += (exact >= SIGN_PIXELS).sum()
    assert exact_in_view > 50, "the sign must be in some of the frames for this to mean something"


def test_describe_exploration_counts_trials_that_saw_the_sign():
    """One look in an episode is enough, and an episode without any does not count."""
    board, wall = np.full((60, 80, 3), 166, np.uint8), np.full((60, 80, 3), 100, np.uint8)
    seen = [np.array([wall, board, wall]), np.array([wall, wall]), np.array([wall]), np.array([board])]
    described = SignEnv().describe_exploration(np.arange(4) % 3, seen, [np.zeros(1)] * 4)
    assert described == {"sign_in_view": 0.5}


def test_limits():
    """A result is read against them."""
    env = SignEnv()
    assert [env.optimal_return(problem) for problem in range(3)] == [1.0] * 3
    assert env.no_exploration_return() == 1.0
