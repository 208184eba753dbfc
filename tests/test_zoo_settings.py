"""Settings are read the same way by the zoo and by the benchmarks; and what the zoo makes of them."""

from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_dream import TrialEnv
from sb3_dream.common.settings import HYPERPARAMS, load_settings, parse_settings
from sb3_dream.common.torch_layers import StandardizedCNN
from tests.counting_env import Counting

FAMILIES = ["MetaBandit-v0", "MetaDistractingBus-v0", "MetaMap-v0", "MetaCooking-v0"]


def test_schedules() -> None:
    """``lin_x`` falls from x to 0, ``ramp_x_y_b`` waits until b and then goes from x to y; the remaining progress counts."""
    parsed = parse_settings({"learning_rate": "lin_0.004", "exploration_cost": "ramp_0.01_0.1_0.7", "gamma": 0.9})
    assert [parsed["learning_rate"](progress) for progress in (1.0, 0.5, 0.0)] == pytest.approx([0.004, 0.002, 0.0])
    cost = [parsed["exploration_cost"](progress) for progress in (1.0, 0.3, 0.15, 0.0)]
    assert cost == pytest.approx([0.01, 0.01, 0.055, 0.1])
    assert parsed["gamma"] == 0.9


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"learning_rate": "lin_"}, "learning_rate must be like lin_0.001 or ramp_0_0.01_0.5, got 'lin_'"),
        ({"learning_rate": "lin_0.1_0.2"}, "learning_rate must be like lin_0.001"),
        ({"exploration_cost": "ramp_0.01"}, "exploration_cost must be like lin_0.001 or ramp_0_0.01_0.5, got 'ramp_0.01'"),
        ({"exploration_cost": "ramp_0_1_1"}, "exploration_cost: a ramp begins at a share from 0 to 1 of the run, got 1.0"),
        ({"learning_rate": "1e-3"}, r"learning_rate must be a number \(in YAML: 0.001 or !!float 1e-3\)"),
    ],
)
def test_schedules_that_cannot_be_read(settings: dict[str, Any], message: str) -> None:
    """YAML takes 1e-3 for a word; an error from the depths of SB3 would not say so."""
    with pytest.raises(ValueError, match=message):
        parse_settings(settings)


def test_policy_kwargs() -> None:
    """Python in a string, as in rl_zoo3's files, with our names; one of them may stand by itself; and the file's stay."""
    written = {
        "policy_kwargs": "dict(features_extractor_class=StandardizedCNN, activation_fn=nn.ReLU, embedding_dim=4)",
        "policy_kwargs.embedding_dim": 8,
    }
    before = dict(written)
    parsed = parse_settings(written)
    assert parsed == {
        "policy_kwargs": {"features_extractor_class": StandardizedCNN, "activation_fn": nn.ReLU, "embedding_dim": 8}
    }
    assert written == before
    assert parse_settings({"policy_kwargs.net_arch": [8]}) == {"policy_kwargs": {"net_arch": [8]}}
    assert parse_settings(parsed) == parsed


@pytest.mark.parametrize("algo", ["dqn", "ppo_lstm"])
@pytest.mark.parametrize("env_id", FAMILIES)
def test_rivals_have_settings(algo: str, env_id: str, zoo: ModuleType) -> None:
    """The rivals get as many steps as DREAM (RecurrentPPO more on the map, where the control asks what it gets to), are
    evaluated on the test split, and a typing error shows here."""
    settings = load_settings(env_id, algo)
    more = {("ppo_lstm", "MetaMap-v0"): 1.5e6}
    assert settings["n_timesteps"] == more.get((algo, env_id), load_settings(env_id)["n_timesteps"])
    assert settings["eval_env_kwargs"] == {"split": "test"}
    without = ("n_envs", "n_timesteps", "eval_env_kwargs")
    arguments = parse_settings({key: value for key, value in settings.items() if key not in without})
    zoo.ALGOS[algo](env=gym.make(env_id), device="cpu", **arguments)


def make_manager(zoo: ModuleType, algo: str, env_id: str, folder: Path, **kwargs: Any) -> Any:
    """As ``train`` makes it."""
    zoo.register()
    return zoo.TrialExperimentManager(None, algo, env_id, str(folder), **kwargs)


def test_evaluation_is_on_the_test_split(zoo: ModuleType, tmp_path: Path) -> None:
    """A result on training problems would be none. What the environment is made with in training counts there too, and the
    command line has the last word."""
    manager = make_manager(zoo, "dream", "MetaDistractingBus-v0", tmp_path, env_kwargs={"n_execution_episodes": 2})
    manager.read_hyperparameters()
    assert manager.eval_env_kwargs == {"split": "test", "n_execution_episodes": 2}
    env = manager.create_envs(1, eval_env=True)
    assert len(env.get_attr("problem_ids")[0]) == 523
    assert env.get_attr("n_execution_episodes") == [2]
    manager = make_manager(zoo, "dream", "MetaMap-v0", tmp_path, eval_env_kwargs={"split": "train"})
    _, saved = manager.read_hyperparameters()
    assert manager.eval_env_kwargs == saved["eval_env_kwargs"] == {"split": "train"}


def test_a_search_does_not_see_the_test_problems(zoo: ModuleType, tmp_path: Path) -> None:
    """Settings that were chosen on the test problems make them training problems."""
    manager = make_manager(zoo, "dream", "MetaDistractingBus-v0", tmp_path, optimize_hyperparameters=True)
    manager.read_hyperparameters()
    assert len(manager.create_envs(1, eval_env=True).get_attr("problem_ids")[0]) == 53


def test_other_algorithms_and_environments_have_rl_zoo3s_settings(zoo: ModuleType, tmp_path: Path) -> None:
    """The zoo is rl_zoo3 with more in it, and not less: PPO, and DQN on an environment that is not ours."""
    for algo in ("ppo", "dqn"):
        manager = make_manager(zoo, algo, "CartPole-v1", tmp_path)
        assert "rl_zoo3" in manager.config
        settings, saved = manager.read_hyperparameters()
        arguments, *_ = manager._preprocess_hyperparams(settings)
        assert callable(arguments["learning_rate"]) or arguments["learning_rate"] > 0
        assert saved["policy"] == "MlpPolicy"


class FixedTrial:
    """An Optuna trial that takes the last choice, or the upper end."""

    def __init__(self) -> None:
        self.params: dict[str, Any] = {}

    def suggest_float(self, name: str, low: float, high: float, log: bool) -> float:
        """The upper end."""
        assert 0 < low < high and log
        self.params[name] = high
        return high

    def suggest_categorical(self, name: str, choices: list[Any]) -> Any:
        """The last."""
        self.params[name] = choices[-1]
        return choices[-1]


@pytest.mark.parametrize("algo", ["dream", "recurrent_dqn", "import", "varibad", "ppo_lstm", "dqn"])
def test_search_spaces_name_arguments(algo: str, zoo: ModuleType, tmp_path: Path) -> None:
    """A name that the algorithm does not have would end each trial of a search in the first second. What a trial was made of
    can be loaded from the study and trained."""
    manager = make_manager(zoo, algo, "MetaMap-v0", tmp_path, optimize_hyperparameters=True)
    trial = FixedTrial()
    sampled = zoo.HYPERPARAMS_SAMPLER[algo](trial, 0, 1, {})
    assert set(trial.params) == set(zoo.SPACES[algo])
    assert zoo.HYPERPARAMS_CONVERTER[algo](trial.params) == sampled
    assert yaml.safe_load(yaml.safe_dump(sampled)) == sampled
    settings = manager.read_hyperparameters()[0]
    env = make_vec_env("MetaMap-v0", n_envs=2)
    model = zoo.ALGOS[algo](settings["policy"], env, device="cpu", **parse_settings(sampled))
    assert model.policy.optimizer.param_groups[0]["lr"] == pytest.approx(1e-2)
    if algo == "ppo_lstm":
        assert model.policy.lstm_actor.hidden_size == 128
    elif algo != "dqn":  # which has no memory
        assert model.policy.lstm_hidden_size == 128


def test_rl_zoo3s_search_spaces_stay(zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DQN on an environment of somebody else's is searched as rl_zoo3 does."""
    theirs = object()
    monkeypatch.setitem(zoo.HYPERPARAMS_SAMPLER, "dqn", theirs)
    make_manager(zoo, "dqn", "CartPole-v1", tmp_path, optimize_hyperparameters=True)
    assert zoo.HYPERPARAMS_SAMPLER["dqn"] is theirs


def test_a_search_keeps_the_rest_of_the_policy(zoo: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """rl_zoo3 lets what is sampled replace policy_kwargs: MetaSign would be searched with another network than it has."""
    manager = make_manager(zoo, "dream", "MetaSign-v0", tmp_path, optimize_hyperparameters=True, n_evaluations=1)
    arguments, *_ = manager._preprocess_hyperparams(manager.read_hyperparameters()[0])
    manager._hyperparams = arguments
    sampler, drawn = zoo.HYPERPARAMS_SAMPLER["dream"], {}

    def search(_: Any) -> None:
        drawn.update(zoo.HYPERPARAMS_SAMPLER["dream"](FixedTrial(), 0, 1, {}))

    monkeypatch.setattr(zoo.ExperimentManager, "hyperparameters_optimization", search)
    manager.hyperparameters_optimization()
    assert drawn["policy_kwargs"]["features_extractor_class"] is StandardizedCNN
    assert drawn["policy_kwargs"]["embedding_dim"] == 64
    assert drawn["learning_rate"](1.0) == pytest.approx(1e-2)
    assert zoo.HYPERPARAMS_SAMPLER["dream"] is sampler


def test_the_files_are_installed() -> None:
    """``pip install`` takes them along: setup.py maps the folder into the package."""
    assert HYPERPARAMS.is_dir()
    setup = (Path(__file__).parents[1] / "setup.py").read_text(encoding="utf8")
    assert '"sb3_dream.hyperparams": "benchmarks/hyperparams"' in setup
    assert {path.stem for path in HYPERPARAMS.glob("*.yml")} >= {"dream", "recurrent_dqn", "ppo_lstm", "dqn"}


def test_rl_zoo3s_time_limit_does_not_change_trials(zoo: ModuleType) -> None:
    """rl_zoo3 replaces Gymnasium's TimeLimit in the whole process, and writes into info what SB3 reads: a family with a time
    limit must give the same trials, which end by termination and never by truncation."""
    from rl_zoo3.gym_patches import PatchedTimeLimit  # noqa: PLC0415

    def play(limit: Any) -> list[Any]:
        env = DummyVecEnv(
            [lambda: TrialEnv(limit(Counting(max_length=5), 3), [0, 1], lambda *_: None, n_execution_episodes=2)]
        )
        env.seed(0)
        seen: list[Any] = [env.reset()]
        for _ in range(30):
            observations, rewards, dones, infos = env.step(np.zeros(1, dtype=int))
            seen.append((observations, rewards, dones, infos[0]["TimeLimit.truncated"]))
        return seen

    ours, theirs = play(gym.wrappers.TimeLimit), play(PatchedTimeLimit)
    assert gym.wrappers.TimeLimit is not PatchedTimeLimit
    np.testing.assert_equal(theirs, ours)
    assert sum(bool(step[2][0]) for step in ours[1:]) >= 2
    assert not any(step[3] for step in ours[1:])
