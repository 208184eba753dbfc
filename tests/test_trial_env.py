"""TrialEnv: what a trial is, what it shows, and that Gymnasium's and SB3's own tools take it for an ordinary environment."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env as gymnasium_check_env
from stable_baselines3.common.env_checker import check_env as sb3_check_env
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_dream import RecurrentDQN, TrialEnv
from sb3_dream.envs import FAMILIES
from sb3_dream.envs.bandit import BanditEnv

END_EPISODE = 6


class Corridor(gym.Env[Any, Any]):
    """A plain family: 3 steps an episode, reward 1 each, observes its step count, draws one of 8 instructions. Its
    generator draws nothing but instructions, as most families' would."""

    problem_space = spaces.Discrete(8)
    action_space = spaces.Discrete(2)
    observation_space = spaces.Dict(
        {"observation": spaces.Box(0.0, 3.0, (1,), np.float32), "instruction": spaces.Box(0.0, 1.0, (8,), np.float32)}
    )

    def __init__(self) -> None:
        self.resets: list[dict[str, Any] | None] = []
        self.actions: list[int] = []

    def _observe(self) -> dict[str, np.ndarray]:
        return {"observation": np.array([self.t], np.float32), "instruction": self.instruction}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode. It shows an instruction even while exploring, which the trial must hide."""
        super().reset(seed=seed)
        self.resets.append(options)
        self.t = 0
        options = options or {}
        self.problem_id = options.get("problem_id")
        index = 0 if options.get("exploring") else options.get("instruction")
        self.instruction = np.zeros(8, np.float32)
        self.instruction[self.np_random.integers(8) if index is None else index] = 1.0
        return self._observe(), {"problem_id": "the family's own"}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step."""
        self.actions.append(action)
        self.t += 1
        return self._observe(), 1.0, self.t == 3, False, {"problem_id": "the family's own", "episode": {"r": -1.0}, "x": 1}


def corridor(**kwargs: Any) -> TrialEnv:
    """Trials in the corridor."""
    return TrialEnv(Corridor(), list(range(8)), **kwargs)


def play(env: gym.Env, policy: Callable[[Any], int] = lambda observation: 0, **reset: Any) -> list[tuple[Any, float, dict]]:
    """One trial: (observation, reward, info) of the reset and of every step."""
    observation, info = env.reset(**reset)
    steps, over = [(observation, 0.0, info)], False
    while not over:
        observation, reward, terminated, truncated, info = env.step(policy(observation))
        assert not truncated, "a trial ends with terminated, or buffers would bootstrap past it"
        steps.append((observation, float(reward), info))
        over = terminated
    return steps


@pytest.mark.parametrize("n_execution_episodes", [1, 3])
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("env_id", sorted(FAMILIES))
@pytest.mark.parametrize("check_env", [gymnasium_check_env, sb3_check_env])
def test_check_env(check_env: Callable[..., None], env_id: str, split: str, n_execution_episodes: int) -> None:
    """The first thing that a user who does not trust an environment runs. Any warning would be ours."""
    env = gym.make(env_id, split=split, n_execution_episodes=n_execution_episodes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(env.unwrapped)  # Gymnasium's wants the environment without make's own wrappers


@pytest.mark.parametrize("env_id", sorted(FAMILIES))
def test_registered_ids_are_trials(env_id: str) -> None:
    """Monitor must see whole trials, so the trial has to be inside what the id makes."""
    env = gym.make(env_id)
    assert isinstance(env.unwrapped, TrialEnv)
    assert env.spec is not None
    assert env.spec.id == env_id
    assert gym.make(env_id, split="test").unwrapped.training is False  # type: ignore[attr-defined]
    assert gym.make(env_id, split="test", training=True).unwrapped.training is True  # type: ignore[attr-defined]


def test_the_module_name_in_an_id_registers_it() -> None:
    """From a notebook, workers know our ids only so."""
    assert isinstance(gym.make("sb3_dream:MetaMap-v0").unwrapped, TrialEnv)


def test_phases() -> None:
    """1 + N inner episodes: flags tell where each begins and ends and whether it is the exploration episode."""
    steps = play(corridor(n_execution_episodes=2))
    flags = {
        key: [int(observation[key][0]) for observation, *_ in steps] for key in ("exploring", "episode_start", "episode_end")
    }
    assert flags["exploring"] == [1] * 4 + [0] * 8
    assert flags["episode_start"] == [1, 0, 0, 0] * 3
    assert flags["episode_end"] == [0, 0, 0, 1] * 3
    assert [float(observation["observation"][0]) for observation, *_ in steps] == [0, 1, 2, 3] * 3


def test_the_action_between_episodes_is_ignored() -> None:
    """The last observation of an inner episode is answered by an action that must neither act nor be remembered."""
    env = corridor()
    # action 1 only between episodes
    steps = play(env, lambda observation: int(observation["episode_end"][0]))
    family = env.unwrapped.env  # type: ignore[attr-defined]
    assert family.actions == [0] * 6
    for observation, *_ in steps:
        start = observation["episode_start"][0] == 1
        assert observation["previous_action"].tolist() == ([0, 0] if start else [1, 0])
        assert observation["previous_reward"].tolist() == ([0] if start else [1])


def test_no_reward_while_exploring() -> None:
    """A trial's return must be its execution return, or EvalCallback's best model would be the one that explores for pay.
    What exploration would have paid is still there to look at."""
    steps = play(corridor(n_execution_episodes=2))
    assert [reward for _, reward, _ in steps] == [0] * 4 + [0, 1, 1, 1] * 2
    assert [info.get("raw_reward") for *_, info in steps] == [None, 1.0, 1.0, 1.0, *[None] * 8]
    assert steps[-1][2]["execution_returns"].tolist() == [3.0, 3.0]
    assert steps[-1][2]["execution_lengths"].tolist() == [3, 3]
    assert steps[-1][2]["exploration_length"] == 3


@pytest.mark.parametrize("env_id", sorted(FAMILIES))
def test_a_problem_holds_for_the_whole_trial(env_id: str) -> None:
    """What was explored must be what is executed, also where the family could draw problems by itself."""
    env = gym.make(env_id, n_execution_episodes=3)
    rng = np.random.default_rng(0)
    seen = set()
    for seed in range(5):
        ids = {info["problem_id"] for *_, info in play(env, lambda _: int(rng.integers(env.action_space.n)), seed=seed)}  # type: ignore[attr-defined]
        assert len(ids) == 1
        family: Any = env.unwrapped.env.unwrapped  # type: ignore[attr-defined]
        assert family._problem in ids
        seen |= ids
    assert len(seen) > 1


def test_instruction_is_hidden_while_exploring_and_redrawn_for_each_execution_episode() -> None:
    """An instruction shown while exploring would let exploration serve one goal; one that never changed would let the
    agent learn it in the first execution episode."""
    env = corridor(n_execution_episodes=6)
    drawn = set()
    for seed in range(5):
        steps = play(env, seed=seed)
        for observation, *_ in steps:
            assert (observation["instruction"].sum() == 0) == (observation["exploring"][0] == 1)
        starts = [observation["instruction"].argmax() for observation, *_ in steps if observation["episode_start"][0] == 1][1:]
        assert len(set(starts)) > 1, "one instruction in all execution episodes"
        drawn |= set(starts)
    assert len(drawn) == 8


def test_problem_and_instruction_are_independent() -> None:
    """If the family's generator had the same seed as the trial's, it would draw the same numbers: in a seeded run every
    problem would always come with the same instruction, and most pairs would never be trained on."""
    env = corridor()
    pairs = set()
    for trial in range(640):
        steps = play(env, seed=0 if trial == 0 else None)
        pairs.add((steps[0][2]["problem_id"], int(steps[-1][0]["instruction"].argmax())))
    assert len(pairs) == 64


@pytest.mark.parametrize("training", [True, False])
def test_the_problem_id_is_in_info_iff_training(training: bool) -> None:
    """A test environment that leaked the ID, or a training one that withheld it, would both ruin the experiment."""
    for *_, info in play(corridor(training=training)):
        assert ("problem_id" in info) == training
        assert info.get("problem_id") != "the family's own"


def test_the_problem_id_is_not_observed() -> None:
    """RecurrentPPO and DQN run on the same environment and must not be able to peek."""
    env = TrialEnv(Corridor(), list(range(8)))
    trials = [
        play(env, seed=1, options={"problem_id": problem_id}) for problem_id in range(8)
    ]  # the corridor is the same in all
    for steps in zip(*trials, strict=True):
        for key in env.observation_space.spaces:  # type: ignore[attr-defined]
            assert len({observation[key].tobytes() for observation, *_ in steps}) == 1, key


def test_the_inner_monitor_is_dropped_and_other_info_is_kept() -> None:
    """SB3 takes info['episode'] for a finished trial: an inner Monitor's would corrupt ep_rew_mean."""
    for _, _, info in play(Monitor(corridor()))[1:-1]:
        assert "episode" not in info
        assert info.get("x", 1) == 1
    assert any("x" in info for *_, info in play(corridor()))


def test_a_monitor_inside_is_enough() -> None:
    """SB3 finds it, puts none around the trial and waits for its record: evaluate_policy would never return, and
    ep_rew_mean would never be logged. ``make_vec_env(..., wrapper_class=TrialEnv)`` puts it there."""
    outside = make_vec_env(lambda: TrialEnv(BanditEnv(4), range(4), n_execution_episodes=2))
    inside = make_vec_env(
        lambda: BanditEnv(4),
        wrapper_class=TrialEnv,  # type: ignore[arg-type]
        wrapper_kwargs={"problem_ids": range(4), "n_execution_episodes": 2},
    )
    records = []
    for env in (outside, inside):
        model = RecurrentDQN("MlpPolicy", env, learning_starts=0, seed=0, device="cpu").learn(200)
        assert model.ep_info_buffer
        logged = [(info["r"], info["l"]) for info in model.ep_info_buffer]
        records.append((logged, evaluate_policy(model, env, 5, return_episode_rewards=True)))
    assert records[0] == records[1]
    assert {length for _, length in records[1][0]} == {5}


def test_monitor_counts_execution_return_per_trial() -> None:
    """ep_rew_mean, EvalCallback and reward thresholds mean execution return per trial."""
    record = play(Monitor(corridor(n_execution_episodes=2)))[-1][2]["episode"]
    assert record["r"] == 6.0
    assert record["l"] == 3 * 3 + 2  # and the two steps between episodes
    vec_env = make_vec_env("MetaMap-v0", n_envs=3, seed=0, env_kwargs={"n_execution_episodes": 2})
    vec_env.reset()
    infos: list[dict] = []
    while len(infos) < 6:
        _, _, dones, step_infos = vec_env.step(np.array([vec_env.action_space.sample() for _ in range(3)]))
        infos += [info for info, done in zip(step_infos, dones, strict=True) if done]
    for info in infos:
        assert info["episode"]["r"] == pytest.approx(info["execution_returns"].sum(), abs=1e-5)


@pytest.mark.parametrize("wrapped", [False, True])
def test_inner_time_limits_end_inner_episodes_only(wrapped: bool) -> None:
    """Any Gymnasium environment can be a family. Its TimeLimit must not end the trial, nor be truncation of it."""

    def set_gravity(env: gym.Env, problem_id: int) -> None:
        calls.append((env, problem_id))
        env.unwrapped.gravity = float(problem_id)  # type: ignore[attr-defined]

    calls: list[tuple[gym.Env, int]] = []
    cart_pole: gym.Env = gym.make("CartPole-v1", max_episode_steps=4)
    if wrapped:
        cart_pole = Monitor(cart_pole)
    env = TrialEnv(cart_pole, [5, 10, 15], set_problem=set_gravity, n_execution_episodes=2)
    steps = play(env, lambda observation: 0, seed=0)
    lengths = np.diff(np.flatnonzero([observation["episode_start"][0] for observation, *_ in steps])) - 1
    assert lengths.tolist() == [4, 4]
    assert len(steps) == 3 * 5
    assert steps[-1][2]["execution_returns"].tolist() == [4.0, 4.0]
    assert calls == [(cart_pole, steps[0][2]["problem_id"])], "set_problem is called once for each trial"
    assert env.env.unwrapped.gravity == steps[0][2]["problem_id"]  # type: ignore[attr-defined]
    assert not any("episode" in info for *_, info in steps[:-1])
    assert steps[0][0]["instruction"].tolist() == [0.0]


@pytest.mark.parametrize("observation_space", [spaces.Discrete(3), spaces.MultiBinary(2)])
def test_a_family_without_instruction_gets_an_empty_one(observation_space: spaces.Space) -> None:
    """Every trial has the same keys, so that one policy class can be written."""

    class Family(Corridor):
        def _observe(self) -> Any:
            return observation_space.sample()

    family: Any = Family()
    family.observation_space = observation_space
    for observation, *_ in play(TrialEnv(family, [0])):
        assert observation["instruction"].tolist() == [0.0]
        assert observation_space.contains(observation["observation"])


@pytest.mark.parametrize(
    "space", [spaces.Box(0, 3, (2,), np.int64), spaces.Box(1.0, 3.0, (2,), np.float32), spaces.Box(-3.0, -1.0, (), np.float64)]
)
def test_an_instruction_of_any_type_and_any_bounds(space: spaces.Box) -> None:
    """The zeros that are seen while exploring are the trial's, and the family would be blamed for them."""

    class Family(Corridor):
        observation_space = spaces.Dict({"observation": spaces.Box(0.0, 3.0, (1,), np.float32), "instruction": space})

        def _observe(self) -> dict[str, Any]:
            return {"observation": np.array([self.t], np.float32), "instruction": space.sample()}

    env = TrialEnv(Family(), [0])
    for observation, *_ in play(env):
        assert env.observation_space.contains(observation)
        assert not observation["exploring"][0] or not observation["instruction"].any()


def test_options_choose_problem_and_instructions() -> None:
    """Evaluation must be able to go through all problems and instructions; the next trial is drawn again."""
    env = corridor(n_execution_episodes=3)
    steps = play(env, options={"problem_id": 5, "instructions": [7, 0, 7]})
    assert {info["problem_id"] for *_, info in steps} == {5}
    starts = [observation["instruction"] for observation, *_ in steps if observation["episode_start"][0] == 1]
    assert [int(instruction.argmax()) for instruction in starts[1:]] == [7, 0, 7]
    assert starts[0].sum() == 0
    family = env.unwrapped.env  # type: ignore[attr-defined]
    assert "instruction" not in family.resets[0], "an exploration episode has no instruction"
    later = {play(env)[0][2]["problem_id"] for _ in range(20)}
    assert len(later) > 1
    assert all("instruction" not in options for options in family.resets[4:])


def test_seeding() -> None:
    """The same seed gives the same trials, and another seed others, in the first trial after it and in those that follow."""

    def trials(seed: int) -> list[tuple[int, tuple[int, ...]]]:
        env = corridor(n_execution_episodes=2)
        played = [play(env, seed=seed)] + [play(env) for _ in range(9)]
        return [(steps[0][2]["problem_id"], tuple(o["instruction"].argmax() for o, *_ in steps)) for steps in played]

    assert trials(3) == trials(3)
    assert trials(3) != trials(4)
    assert len({problem_id for problem_id, _ in trials(3)}) > 2


def test_problems_are_drawn_with_the_trials_own_generator() -> None:
    """A family that draws more or fewer numbers must not change which problems come up, and an unseeded TrialEnv must not
    repeat another's problems."""

    class Greedy(Corridor):
        def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
            result = super().reset(**kwargs)
            self.np_random.random(100)
            return result

    def problems(family: gym.Env, seed: int | None) -> list[int]:
        env = TrialEnv(family, list(range(8)))
        return [env.reset(seed=seed)[1]["problem_id"]] + [env.reset()[1]["problem_id"] for _ in range(30)]

    assert problems(Corridor(), 0) == problems(Greedy(), 0)
    assert problems(Corridor(), None) != problems(Corridor(), None)
    env = TrialEnv(Corridor(), list(range(8)))
    env.reset(seed=0)
    state = env.np_random.bit_generator.state
    play(env, options={"problem_id": 1})
    assert env.np_random.bit_generator.state == state, "a problem that was chosen costs no draw"


def test_every_problem_comes_up_equally_often() -> None:
    """The distribution of problems is what meta-learning learns from."""
    env = corridor()
    env.reset(seed=0)
    counts = np.bincount([env.reset()[1]["problem_id"] for _ in range(8000)], minlength=8)
    assert ((counts - 1000) ** 2 / 1000).sum() < 24  # χ² with 7 degrees of freedom: p < 0.001


def test_step_without_a_trial_is_an_error() -> None:
    """Stepping on past the end would start an execution episode too many."""
    env = corridor()
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    play(env)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(0)
    env.reset()
    env.step(0)


def test_problem_ids_of_every_kind() -> None:
    """Labels may be integers, integer vectors or real vectors; the space is inferred where the family has none."""

    def trial(problem_ids: Any, **kwargs: Any) -> TrialEnv:
        return TrialEnv(gym.make("CartPole-v1"), problem_ids, set_problem=lambda env, problem_id: None, **kwargs)

    assert trial([0, 4, 2]).problem_space == spaces.Discrete(5)
    assert trial([[0, 1], [2, 0]]).problem_space == spaces.MultiDiscrete([3, 2])
    box = trial([[0.5, -1.0], [0.25, 2.0]])
    assert box.problem_space == spaces.Box(np.array([0.25, -1.0], np.float32), np.array([0.5, 2.0], np.float32))
    small = [np.array([255, 0], np.uint8), np.array([3, 1], np.uint8)]
    assert trial(small).problem_space == spaces.MultiDiscrete([256, 2])
    assert trial([0.5, 0.25]).problem_space == spaces.Box(0.25, 0.5, (1,), np.float32)
    assert trial([0, 4], problem_space=spaces.Discrete(9)).problem_space == spaces.Discrete(9)
    problem_id = box.reset(options={"problem_id": [0.25, 2.0]})[1]["problem_id"]
    assert problem_id.tolist() == [0.25, 2.0]


def test_subprocesses_give_the_same_trials_as_one_process() -> None:
    """How environments are run must not change what is learned from them."""
    results = []
    for vec_env_cls in (DummyVecEnv, SubprocVecEnv):
        vec_env = make_vec_env("sb3_dream:MetaMap-v0", n_envs=2, seed=7, vec_env_cls=vec_env_cls)
        try:
            rng = np.random.default_rng(0)
            observations: Any = vec_env.reset()
            records: list[Any] = [observations]
            n_trials = 0
            while n_trials < 8:
                actions = np.where(rng.random(2) < 0.2, END_EPISODE, rng.integers(6, size=2))
                observations, rewards, dones, infos = vec_env.step(actions)
                records.append((observations, np.array(rewards, np.float32), dones, [info["problem_id"] for info in infos]))
                n_trials += dones.sum()
            results.append(records)
        finally:
            vec_env.close()
    assert len(results[0]) == len(results[1])
    np.testing.assert_equal(results[0], results[1])
