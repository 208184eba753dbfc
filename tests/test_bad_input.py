"""Bad input gets a clear error, at once, that names what is wrong."""

import re
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import DREAM, IMPORT, TrialEnv, TrialReplayBuffer, VariBAD
from sb3_dream.envs import BanditEnv


class Family(gym.Env[Any, Any]):
    """A family of any spaces."""

    def __init__(self, observation_space: spaces.Space | None = None, action_space: spaces.Space | None = None):
        self.observation_space = spaces.Box(0.0, 1.0, (2,), np.float32) if observation_space is None else observation_space
        self.action_space = spaces.Discrete(2) if action_space is None else action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Episodes have one step."""
        return self.observation_space.sample(), 0.0, True, False, {}


def trials(**kwargs: Any) -> TrialEnv:
    """Trials in a family of two problems."""
    return TrialEnv(Family(), **{"problem_ids": [0, 1], **kwargs})


def dream(env: Any = "MetaBandit-v0", **kwargs: Any) -> DREAM:
    """A model that is never trained."""
    return DREAM("MlpPolicy", env, device="cpu", **kwargs)


# ---- TrialEnv ----------------------------------------------------------------------------------------------------------


def test_a_family_must_be_a_gymnasium_environment() -> None:
    """E.g. an id instead of the environment that it names."""
    with pytest.raises(TypeError, match=r"env must be a gymnasium\.Env, got str"):
        TrialEnv("CartPole-v1", [0])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["n_exploration_episodes", "n_execution_episodes"])
@pytest.mark.parametrize("n", [0, -1])
def test_a_trial_needs_an_episode_of_each_kind(name: str, n: int) -> None:
    """A trial that is never explored, or never paid."""
    number: dict[str, Any] = {name: n}
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {n}"):
        trials(**number)
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {n}"):
        gym.make("MetaBandit-v0", **number)


@pytest.mark.parametrize("name", ["n_exploration_episodes", "n_execution_episodes"])
@pytest.mark.parametrize("n", [1.0, "2", True, None])
def test_numbers_of_episodes_must_be_integers(name: str, n: Any) -> None:
    """Half an episode is a mistake in a configuration file."""
    with pytest.raises(TypeError, match=f"{name} must be an integer, got {n!r}"):
        trials(**{name: n})


def test_a_family_needs_problems() -> None:
    """An empty split would fail at the first reset, deep inside numpy."""
    with pytest.raises(ValueError, match="problem_ids is empty"):
        trials(problem_ids=[])


@pytest.mark.parametrize(
    ("problem_ids", "problem_space"),
    [
        ([0, 5], spaces.Discrete(5)),
        ([-1], spaces.Discrete(5)),
        ([0.5], spaces.Discrete(5)),
        ([True], spaces.Discrete(5)),
        ([[0, 1]], spaces.Discrete(5)),
        (["a"], spaces.Discrete(5)),
        ([[0, 3]], spaces.MultiDiscrete([3, 3])),
        ([[0]], spaces.MultiDiscrete([3, 3])),
        ([[0.5, 1.5]], spaces.MultiDiscrete([3, 3])),
        ([[2.0, 0.0]], spaces.Box(-1.0, 1.0, (2,), np.float32)),
        ([[np.nan, 0.0]], spaces.Box(-1.0, 1.0, (2,), np.float32)),
    ],
)
def test_problems_must_be_inside_their_space(problem_ids: list[Any], problem_space: spaces.Space) -> None:
    """An ID outside would read a row of the embedding table that is not there, or another problem's."""
    with pytest.raises(ValueError, match=f"Problem {re.escape(repr(problem_ids[-1]))} is outside problem_space"):
        trials(problem_ids=problem_ids, problem_space=problem_space)


def test_problems_must_be_a_list() -> None:
    """A number of problems is not a list of them."""
    with pytest.raises(TypeError, match="problem_ids must be a list of problems, got 5"):
        trials(problem_ids=5)


@pytest.mark.parametrize("problem_ids", [[np.nan, 0.0], [[np.inf, 0.0], [np.nan, 1.0]]])
def test_problems_that_are_not_numbers(problem_ids: list[Any]) -> None:
    """A NaN among the problems would be NaN in every weight after one update."""
    with pytest.raises(ValueError, match="must be finite"):
        trials(problem_ids=problem_ids)


@pytest.mark.parametrize(
    ("problem_ids", "problem_space"),
    [
        ([1, 2], spaces.Discrete(2, start=1)),
        ([[1, 1], [2, 2]], spaces.MultiDiscrete([2, 2], start=[1, 1])),
        ([np.array([[0, 1], [1, 0]])], spaces.MultiDiscrete(np.array([[2, 2], [2, 2]]))),
    ],
    ids=str,
)
def test_a_problem_space_that_does_not_count_from_0(problem_ids: list[Any], problem_space: spaces.Space) -> None:
    """The table of embeddings has a row for each from 0 on: others would read past its end, or another's row."""
    with pytest.raises(ValueError, match="problem_space must count from 0, in one dimension at most"):
        trials(problem_ids=problem_ids, problem_space=problem_space)


@pytest.mark.parametrize("shape", [(), (2, 2)], ids=str)
def test_a_problem_space_of_more_or_fewer_dimensions(shape: tuple[int, ...]) -> None:
    """Problems are flat; it would be said of each that it is outside."""
    with pytest.raises(ValueError, match="problem_space must be of one dimension, got Box"):
        trials(problem_ids=[np.zeros(shape)], problem_space=spaces.Box(0.0, 1.0, shape))


def test_a_problem_space_that_cannot_be_embedded() -> None:
    """There are encoders for Discrete, MultiDiscrete and Box."""
    with pytest.raises(ValueError, match="problem_space must be Discrete, MultiDiscrete or Box"):
        trials(problem_space=spaces.MultiBinary(2))


@pytest.mark.parametrize("set_problem", [3, ["set_task"], True])
def test_set_problem_must_be_a_name_or_callable(set_problem: Any) -> None:
    """What else it could mean, nobody knows. Names that do not fit are in test_set_problem.py."""
    with pytest.raises(TypeError, match=r"set_problem must be None, a name or a callable \(env, problem\), got"):
        trials(set_problem=set_problem)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"inner": spaces.Dict({"x": spaces.Discrete(2)})}), "flat observation space, but 'inner' is Dict"),
        (spaces.Tuple([spaces.Discrete(2)]), "flat observation space, but 'observation' is Tuple"),
        (spaces.Dict({"t": spaces.Tuple([spaces.Discrete(2)])}), "flat observation space, but 't' is Tuple"),
        (spaces.Discrete(3, start=1), "start=0, but 'observation' is Discrete"),
        (spaces.MultiDiscrete([3, 3], start=[0, 1]), "start=0, but 'observation' is MultiDiscrete"),
        (spaces.MultiDiscrete(np.array([[3, 3], [2, 2]])), "one dimension, but 'observation' is MultiDiscrete"),
        (spaces.Text(3), "flat observation space, but 'observation' is Text"),
        (spaces.Dict({"exploring": spaces.Discrete(2)}), r"keys that belong to the trial: \['exploring'\]"),
        (spaces.Dict({"previous_reward": spaces.Box(0, 1, (1,))}), r"belong to the trial: \['previous_reward'\]"),
        (spaces.Dict({"instruction": spaces.Discrete(2)}), "instruction must be a Box"),
    ],
)
def test_observation_spaces_that_cannot_be_handled(space: spaces.Space, message: str) -> None:
    """SB3 would fail on them later, or a key of the family would be overwritten without a word."""
    with pytest.raises(ValueError, match=message):
        TrialEnv(Family(space), [0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"problem": 1}, r"takes the options 'problem_id' and 'instructions', got \['problem'\]"),
        ({"problem_id": 1, "seed": 3}, r"got \['seed'\]"),
        ({"problem_id": 2}, "Problem 2 is outside problem_space"),
        ({"problem_id": "1"}, "Problem '1' is outside problem_space"),
        ({"instructions": [0, 1]}, "one index for each of the 1 execution episodes"),
        ({"instructions": []}, "one index for each of the 1 execution episodes"),
    ],
)
def test_reset_options(options: dict[str, Any], message: str) -> None:
    """A misspelt option that is ignored would evaluate other problems than the user believes."""
    with pytest.raises(ValueError, match=message):
        trials().reset(options=options)


def test_instructions_need_a_family_that_reads_them() -> None:
    """With set_problem the family is reset without options: instructions would be dropped without a word."""
    with pytest.raises(ValueError, match="instructions"):
        trials(set_problem=lambda env, problem_id: None).reset(options={"instructions": [0]})


def test_unknown_split() -> None:
    """'validation' must not quietly be one of the two."""
    with pytest.raises(ValueError, match="split must be 'train' or 'test', got 'validation'"):
        gym.make("MetaMap-v0", split="validation")


# ---- DREAM ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env", ["CartPole-v1", Family(), BanditEnv()])
def test_an_environment_that_is_not_a_trial(env: Any) -> None:
    """The most likely first mistake, so the message says what to do."""
    with pytest.raises(ValueError, match=r"DREAM learns on trials.*exploring.*wrap the family in sb3_dream\.TrialEnv"):
        dream(env)


def test_continuous_actions() -> None:
    """DREAM is built on Q-values of each action."""
    env = TrialEnv(Family(action_space=spaces.Box(-1.0, 1.0, (2,), np.float32)), [0, 1])
    with pytest.raises((ValueError, AssertionError), match="Discrete"):
        dream(env)


def test_actions_that_do_not_start_at_zero() -> None:
    """SB3 takes actions as 0..n-1. With Discrete(3, start=1) the environment would be sent action 0, and never 3."""
    with pytest.raises(ValueError, match="start=0, but the action space is"):
        TrialEnv(Family(action_space=spaces.Discrete(3, start=1)), [0, 1])


@pytest.mark.parametrize(
    "argument", ["problem_std", "bottleneck_weight", "bottleneck_size", "exploration_cost"], ids=["ρ", "λ", "K", "c"]
)
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
def test_the_papers_numbers_must_not_be_negative(argument: str, value: float) -> None:
    """A negative cost would pay for dawdling, and a negative λ would blow f up."""
    with pytest.raises(ValueError, match=f"{argument} must be .*at least 0, got {value}"):
        dream(**{argument: value})


@pytest.mark.parametrize(
    "argument",
    [
        "problem_id_probability",
        "exploration_initial_eps",
        "exploration_final_eps",
        "exploration_fraction",
        "explorer_final_eps",
        "explorer_fraction",
        "gamma",
        "tau",
    ],
)
@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan")])
def test_probabilities_must_be_between_0_and_1(argument: str, value: float) -> None:
    """5 for 5 % is easily written, and everything would run."""
    with pytest.raises(ValueError, match=f"{argument} must be between 0 and 1, got {value}"):
        dream(**{argument: value})


@pytest.mark.parametrize(("argument", "least"), [("learning_starts", 0), ("target_update_interval", 1)])
def test_numbers_of_steps(argument: str, least: int) -> None:
    """Nothing would say that they mean something else. (As in SB3, 1e4 is a number of steps.)"""
    for value in (least - 1, float("nan")):
        with pytest.raises(ValueError, match=f"{argument} must be finite and at least {least}, got {value}"):
            dream(**{argument: value})
    dream(**{argument: 1e4})


def test_a_cost_that_is_no_number() -> None:
    """SB3's assertion would speak of the learning rate."""
    for value in ("0.01", None):
        with pytest.raises(TypeError, match=f"exploration_cost must be a number or a function .*, got {value!r}"):
            dream(exploration_cost=value)
    assert dream(exploration_cost=np.float32(0.25)).exploration_cost_schedule(1.0) == 0.25


def test_a_problem_with_a_very_large_number() -> None:
    """A random seed as a problem: a table of two billion rows does not fit into memory, and torch names no argument."""
    with pytest.raises(ValueError, match=r"problem_ids: .* has more than a million\. Take small ones"):
        dream(TrialEnv(Family(), [3, 2_084_654_370]))


def test_schedules_end_where_the_run_does() -> None:
    """The last rollout may go on after the end: a cost or a learning rate that falls to 0 would then be below it."""
    seen: list[float] = []

    def cost(progress: float) -> float:
        seen.append(progress)
        return 0.01 * progress

    dream(exploration_cost=cost, learning_starts=20, train_freq=64, batch_size=4).learn(100)
    assert min(seen) == 0.0
    assert max(seen) > 0.0


def test_a_cost_that_becomes_no_number() -> None:
    """Every weight of the explorer would be NaN after one update."""
    model = dream(exploration_cost=lambda _: float("nan"), learning_starts=20, train_freq=5, batch_size=4)
    with pytest.raises(ValueError, match="exploration_cost must be finite and at least 0, got nan"):
        model.learn(100)


@pytest.mark.parametrize("cls", [DREAM, IMPORT, VariBAD])
def test_trials_that_never_end(cls: Any) -> None:
    """Nothing would ever be learned from, and nothing would say so."""

    class Endless(Family):
        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            return self.observation_space.sample(), 0.0, False, False, {}

    env = TrialEnv(Endless(), [0], set_problem=lambda env, problem: None)
    model = cls("MlpPolicy", env, buffer_size=60, batch_size=4, device="cpu")
    with pytest.raises(
        ValueError, match=r"A trial of \d+ steps or more does not fit: buffer_size is enough for .* needs a time limit"
    ):
        model.learn(200)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_norm_of_gradients_that_turns_them_round(value: float) -> None:
    """Gradients are scaled with it: below zero each update would make the loss larger."""
    with pytest.raises(ValueError, match=f"max_grad_norm must be above 0 .*, got {value}"):
        dream(max_grad_norm=value)


@pytest.mark.parametrize("argument", ["encoder_weight_decay", "decoder_weight_decay"])
def test_a_weight_decay_that_lets_weights_grow(argument: str) -> None:
    """torch looks at that of the optimizer only."""
    with pytest.raises(ValueError, match=f"{argument} must be finite and at least 0, got -5.0"):
        dream(policy_kwargs={argument: -5.0})


def test_what_reset_returns_is_no_observation() -> None:
    """The most common mistake with SB3's predict, as in SB3 an error that says so."""
    model = dream()
    with pytest.raises(ValueError, match=r"observation is a tuple: .*obs, info = env\.reset\(\)"):
        model.predict(gym.make("MetaMap-v0").reset())  # type: ignore[arg-type]


@pytest.mark.parametrize("batch_size", [0, -1, 8.0])
def test_a_batch_of_no_whole_number(batch_size: int) -> None:
    """The mean of nothing is NaN, and so all weights would be; and 8.0 would fail after the warm-up only."""
    with pytest.raises(ValueError, match=f"batch_size must be a whole number of at least 1, got {batch_size}"):
        dream(batch_size=batch_size)


@pytest.mark.parametrize("buffer_size", [0, 10, 3 * 64 - 1])
def test_a_replay_buffer_smaller_than_one_batch_of_trials(buffer_size: int) -> None:
    """buffer_size counts steps and batch_size trials: taking one for the other is easy, and one would learn from the
    same few trials for ever."""
    with pytest.raises(ValueError, match=f"buffer_size of {buffer_size} steps is smaller than one batch of 64 trials"):
        dream(buffer_size=buffer_size, batch_size=64)


def test_optimize_memory_usage() -> None:
    """SB3's option has no meaning here: every step is stored once already."""
    with pytest.raises(ValueError, match="optimize_memory_usage must be False"):
        dream(optimize_memory_usage=True)


def test_learning_where_no_problem_ids_are_shown() -> None:
    """A test environment given to learn() would train on the test problems, or not at all."""
    model = dream(make_vec_env("MetaBandit-v0", env_kwargs={"split": "test"}))
    with pytest.raises(ValueError, match="training=True"):
        model.learn(100)


@pytest.mark.parametrize("algorithm", [DREAM, IMPORT, VariBAD])
def test_learning_where_a_time_limit_is_around_the_trial(algorithm: Any) -> None:
    """A trial that is cut off has no returns to log, and its last step is not the end that it would be learned as. Said at
    once, and not in the first log after a thousand trials."""
    env = TimeLimit(gym.make("MetaBandit-v0"), 2)
    model = algorithm("MlpPolicy", env, device="cpu")
    with pytest.raises(ValueError, match="in environment 0 was cut off at its time limit, which belongs inside"):
        model.learn(100)


def test_an_unknown_policy() -> None:
    """SB3's own message names what there is."""
    with pytest.raises(ValueError, match="MlpPolciy"):
        DREAM("MlpPolciy", "MetaBandit-v0")


def test_set_env_with_another_family() -> None:
    """Networks of one family cannot act in another."""
    with pytest.raises(ValueError, match="spaces do not match"):
        dream().set_env(make_vec_env("MetaMap-v0"))


def test_set_env_with_other_problems() -> None:
    """The embedding table has a row for each problem that there was: another number would read past it, or never be
    trained. N is built into the replay buffer."""
    space, family = spaces.Discrete(2), Family()
    model = dream(TrialEnv(family, [0, 1], problem_space=space))
    with pytest.raises(ValueError, match="problem_space"):
        model.set_env(TrialEnv(family, [0, 7], problem_space=spaces.Discrete(8)))
    for name in ("n_exploration_episodes", "n_execution_episodes"):
        number: dict[str, Any] = {name: 2}
        with pytest.raises(ValueError, match=f"{name} of the environment is 2, but must be 1"):
            model.set_env(TrialEnv(family, [0, 1], problem_space=space, **number))
        assert model.env is not None
        assert model.env.get_attr(name) == [1]  # whoever catches the error goes on with the one before
    assert model.env is not None
    no_trials: gym.Env = gym.Env()
    no_trials.observation_space, no_trials.action_space = model.env.observation_space, model.env.action_space
    with pytest.raises(AttributeError, match="problem_space"):
        model.set_env(no_trials)
    assert model.env.get_attr("n_execution_episodes") == [1]


def test_the_callers_dicts_are_left_alone() -> None:
    """One dict of settings for several families is common; what one model adds would be wrong for the next."""
    policy_kwargs: dict[str, Any] = {"embedding_dim": 4}
    replay_buffer_kwargs: dict[str, Any] = {}
    for n_arms in (2, 4):
        env = make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": n_arms})
        dream(env, policy_kwargs=policy_kwargs, replay_buffer_kwargs=replay_buffer_kwargs)
    assert policy_kwargs == {"embedding_dim": 4}
    assert replay_buffer_kwargs == {}


# ---- TrialReplayBuffer ---------------------------------------------------------------------------------------------------


def test_a_replay_buffer_needs_the_space_of_a_trial() -> None:
    """It reads where inner episodes begin from the observation."""
    with pytest.raises(ValueError, match="TrialReplayBuffer needs the observation space of a TrialEnv"):
        TrialReplayBuffer(
            100, spaces.Dict({"observation": spaces.Discrete(2)}), spaces.Discrete(2), problem_space=spaces.Discrete(2)
        )


@pytest.mark.parametrize("name", ["n_exploration_episodes", "n_execution_episodes"])
def test_a_replay_buffer_needs_numbers_of_episodes(name: str) -> None:
    """It says where the parts of a trial lie."""
    env = trials()
    numbers: dict[str, Any] = {name: 0}
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1, got 0"):
        TrialReplayBuffer(99, env.observation_space, env.action_space, problem_space=env.problem_space, **numbers)


def test_a_replay_buffer_needs_a_row_for_each_environment() -> None:
    """buffer_size is over all environments."""
    env = trials()
    with pytest.raises(ValueError, match="buffer_size must be at least one step for each of 8 environments, got 7"):
        TrialReplayBuffer(7, env.observation_space, env.action_space, n_envs=8, problem_space=spaces.Discrete(2))


def test_a_policy_needs_the_space_of_a_trial() -> None:
    """A policy may be made without DREAM."""
    with pytest.raises(ValueError, match="Policy needs the observation space of a TrialEnv"):
        DREAM.policy_aliases["MlpPolicy"](
            spaces.Dict({"observation": spaces.Discrete(2)}),
            spaces.Discrete(2),
            lambda _: 1e-3,
            problem_space=spaces.Discrete(2),
        )
