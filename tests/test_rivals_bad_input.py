"""Bad input to IMPORT and VariBAD gets a clear error, at once, that names what is wrong."""

from typing import Any

import gymnasium as gym
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from sb3_dream import IMPORT, VariBAD
from sb3_dream.import_ import IMPORTPolicy
from sb3_dream.varibad import VariBADPolicy

RIVALS = pytest.mark.parametrize("cls", [IMPORT, VariBAD])


def made(cls: Any, env: Any = "MetaMap-v0", policy: str = "MlpPolicy", **kwargs: Any) -> Any:
    """A model that is never trained."""
    return cls(policy, env, device="cpu", **kwargs)


@RIVALS
def test_an_environment_without_trials(cls: Any) -> None:
    """It says what to wrap, and which algorithm it was."""
    with pytest.raises(ValueError, match=rf"(?s){cls.__name__} learns on trials.*'exploring'.*sb3_dream.TrialEnv"):
        made(cls, "CartPole-v1")


def test_import_needs_the_problem_id() -> None:
    """Trials of the test split do not show it."""
    with pytest.raises(ValueError, match="info has no 'problem_id': IMPORT learns on trials with training=True"):
        made(IMPORT, gym.make("MetaMap-v0", split="test")).learn(10)


@RIVALS
@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be a whole number of at least 1, got 0"),
        ("buffer_size", 100, "buffer_size of 100 steps is smaller than one batch of 64 trials"),
        ("gamma", 1.1, "gamma must be between 0 and 1, got 1.1"),
    ],
)
def test_arguments_of_both_out_of_range(cls: Any, argument: str, value: Any, message: str) -> None:
    """They would fail deep inside numpy, or run and learn nothing."""
    with pytest.raises(ValueError, match=message):
        made(cls, **{argument: value})


@pytest.mark.parametrize(
    ("cls", "argument", "value", "message"),
    [
        (IMPORT, "belief_weight", -0.1, "belief_weight must be finite and at least 0, got -0.1"),
        (IMPORT, "belief_weight", float("inf"), "belief_weight must be finite"),
        (IMPORT, "problem_id_probability", 1.5, "problem_id_probability must be between 0 and 1, got 1.5"),
        (VariBAD, "kl_weight", -1.0, "kl_weight must be finite and at least 0, got -1.0"),
        (VariBAD, "kl_weight", float("nan"), "kl_weight must be finite"),
        (VariBAD, "n_prefixes", 0, "n_prefixes must be a whole number of at least 1, got 0"),
        (VariBAD, "n_prefixes", 1.5, "n_prefixes must be a whole number of at least 1, got 1.5"),
    ],
)
def test_arguments_of_one_out_of_range(cls: Any, argument: str, value: Any, message: str) -> None:
    """A weight below zero would turn a loss round."""
    with pytest.raises(ValueError, match=message):
        made(cls, **{argument: value})


@pytest.mark.parametrize(
    ("cls", "policy_kwargs", "error", "message"),
    [
        (IMPORT, {"embedding_dim": 0}, ValueError, "embedding_dim must be made of whole numbers of at least 1, got 0"),
        (IMPORT, {"problem_hidden_dim": -1}, ValueError, "problem_hidden_dim must be"),
        (VariBAD, {"latent_dim": 0}, ValueError, "latent_dim must be made of whole numbers of at least 1, got 0"),
        (VariBAD, {"latent_dim": "8"}, ValueError, "latent_dim must be"),
        (VariBAD, {"problem_hidden_dim": 8}, TypeError, "problem_hidden_dim"),
        (IMPORT, {"lstm_hidden_size": 0}, ValueError, "lstm_hidden_size must be"),
    ],
)
def test_wrong_policy_kwargs(cls: Any, policy_kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    """The error names the argument, not a line deep inside torch."""
    with pytest.raises(error, match=message):
        made(cls, policy_kwargs=policy_kwargs)


@pytest.mark.parametrize("policy", [IMPORTPolicy, VariBADPolicy])
def test_a_policy_by_itself_needs_trials_too(policy: Any) -> None:
    """Built without its algorithm, it would fail at the first key that is not there."""
    with pytest.raises(ValueError, match=f"{policy.__name__} needs the observation space of a TrialEnv"):
        policy(
            spaces.Dict({"a": spaces.Discrete(2)}),
            spaces.Discrete(2),
            lambda _: 1e-3,
            **({"problem_space": spaces.Discrete(2)} if policy is IMPORTPolicy else {}),
        )


def test_set_env_with_other_problems() -> None:
    """f has a row for each problem."""
    model = made(IMPORT, make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": 4}))
    with pytest.raises(ValueError, match="spaces do not match"):
        model.set_env(make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": 5}))
    with pytest.raises(ValueError, match="n_execution_episodes of the environment is 2, but must be 1"):
        model.set_env(make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": 4, "n_execution_episodes": 2}))


def test_varibad_goes_on_with_longer_trials() -> None:
    """Neither its networks nor its buffer know how many execution episodes there are."""
    model = made(VariBAD, make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": 4}))
    model.set_env(make_vec_env("MetaBandit-v0", env_kwargs={"n_arms": 4, "n_execution_episodes": 2}))
    model.learn(60)


def test_varibad_needs_room_for_whole_trials() -> None:
    """What is left of a trial that is too long would be learned from as if the trial began there."""
    with pytest.raises(
        ValueError, match=r"A trial of 8 steps or more does not fit: buffer_size is enough for trials of at most 7 steps"
    ):
        made(VariBAD, make_vec_env("MetaMap-v0", n_envs=8), buffer_size=64, batch_size=8, learning_starts=0).learn(1000)
    bandit: dict[str, Any] = {"batch_size": 1, "learning_starts": 0}  # trials of three steps
    with pytest.raises(
        ValueError, match=r"A trial of 3 steps or more does not fit: buffer_size is enough for trials of at most 2 steps"
    ):
        made(VariBAD, "MetaBandit-v0", buffer_size=3, **bandit).learn(12)
    made(VariBAD, "MetaBandit-v0", buffer_size=4, **bandit).learn(12)
