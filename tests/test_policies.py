"""DREAM's policies: what their networks are made of, and clear errors for what they cannot be made of."""

from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor
from torch import nn

from sb3_dream import DREAM, IMPORT, RecurrentDQN, TrialEnv, VariBAD
from sb3_dream.common.encoders import LSTMEncoder
from tests.random_families import RandomFamily
from tests.test_bad_input import Family

IMAGE = spaces.Box(0, 255, (1, 36, 36), np.uint8)
SMALL = {"features_extractor_kwargs": {"features_dim": 8}}


def made(policy: str = "MlpPolicy", space: spaces.Space | None = None, **policy_kwargs: Any) -> DREAM:
    """A model on random trials, that learns after a few of them."""
    family = RandomFamily(space or spaces.Discrete(3), 3, spaces.Discrete(2), 4, seed=0)
    arguments: dict[str, Any] = {"learning_starts": 20, "train_freq": 8, "batch_size": 4, "seed": 0, "device": "cpu"}
    return DREAM(policy, TrialEnv(family, [0, 1]), policy_kwargs=policy_kwargs, **arguments)


@pytest.mark.parametrize(
    ("policy_kwargs", "error", "message"),
    [
        ({"net_arhc": [8]}, TypeError, "net_arhc"),
        ({"net_arch": {"pi": [8], "qf": [8]}}, TypeError, "net_arch must be a list of whole numbers, got {'pi'"),
        ({"net_arch": 64}, TypeError, "net_arch must be a list of whole numbers, got 64"),
        ({"net_arch": "[64]"}, TypeError, r"net_arch must be a list of whole numbers, got '\[64\]'"),
        ({"net_arch": [64, 0]}, ValueError, r"net_arch must be made of whole numbers of at least 1, got \[64, 0\]"),
        ({"net_arch": [64, 32.0]}, ValueError, "net_arch must be made of whole numbers"),
        ({"embedding_dim": 0}, ValueError, "embedding_dim must be made of whole numbers of at least 1, got 0"),
        ({"lstm_hidden_size": 0}, ValueError, "lstm_hidden_size must be"),
        ({"lstm_hidden_size": 2.5}, ValueError, "lstm_hidden_size must be"),
        ({"n_lstm_layers": -1}, ValueError, "n_lstm_layers must be"),
        ({"problem_hidden_dim": True}, ValueError, "problem_hidden_dim must be"),
        ({"activation_fn": "relu"}, TypeError, r"activation_fn must be a class, such as torch\.nn\.ReLU, got 'relu'"),
        ({"activation_fn": nn.ReLU()}, TypeError, "activation_fn must be a class"),
        ({"optimizer_class": "Adam"}, TypeError, "optimizer_class must be a class"),
        ({"optimizer_kwargs": {"epsilon": 1e-5}}, TypeError, "epsilon"),
        ({"features_extractor_class": "cnn"}, TypeError, "features_extractor_class must be a class"),
        ({"features_extractor_kwargs": {"features_dmi": 8}}, ValueError, "(?s)FlattenExtractor.*does not suit.*features_dmi"),
        ({"features_extractor_class": CombinedExtractor}, ValueError, r"(?s)CombinedExtractor.*does not suit.*Discrete\(3\)"),
    ],
)
def test_wrong_policy_kwargs(policy_kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    """They come from configuration files and from other algorithms' settings: the error names the argument, not a line deep
    inside torch."""
    with pytest.raises(error, match=message):
        made(**policy_kwargs)


def test_a_family_that_observes_nothing_but_its_instruction() -> None:
    """There is nothing that a features extractor could be made for."""
    family = Family(spaces.Dict({"instruction": spaces.Box(0.0, 1.0, (2,), np.float32)}))
    with pytest.raises(ValueError, match="something in it that the family observes"):
        DREAM("MultiInputPolicy", TrialEnv(family, [0, 1]))


@pytest.mark.parametrize("algorithm", [DREAM, IMPORT, VariBAD, RecurrentDQN])
@pytest.mark.parametrize(
    "instruction",
    [
        spaces.Box(0.0, 1.0, (2,), np.float64),
        spaces.Box(0.0, 1.0, (2, 2), np.float32),
        spaces.Box(0.0, 1.0, (), np.float32),
        spaces.Box(0, 3, (2,), np.int64),
    ],
    ids=str,
)
def test_an_instruction_of_any_shape_and_type(algorithm: Any, instruction: spaces.Box) -> None:
    """TrialEnv takes any Box, and so do DQN and RecurrentPPO: float64 is what np.array makes of a list of numbers."""
    space = spaces.Dict({"observation": spaces.Box(-1.0, 1.0, (2,), np.float64), "instruction": instruction})
    env = TrialEnv(RandomFamily(space, 3, spaces.Discrete(2), 4, seed=0), [0, 1])
    model = algorithm("MlpPolicy", env, learning_starts=8, train_freq=8, batch_size=2, device="cpu")
    model.learn(40)
    assert model._n_updates > 0


@pytest.mark.parametrize(
    ("space", "width"),
    [
        (spaces.Box(-1.0, 1.0, (2, 3), np.float32), 6),
        (spaces.Discrete(5), 5),
        (spaces.MultiDiscrete([3, 4]), 7),
        (spaces.MultiBinary(4), 4),
        (spaces.Dict({"position": spaces.MultiDiscrete([2, 2]), "instruction": spaces.Box(0.0, 1.0, (2,), np.float32)}), 4),
    ],
    ids=str,
)
def test_mlp_policy_sees_the_familys_observation_and_the_feedback(space: spaces.Space, width: int) -> None:
    """What a step looks like to every network: the family's observation (one-hot where it is discrete), whatever its key is
    called, then the previous action and reward. Flags and instruction are no part of it."""
    model = made(space=space).learn(40)
    assert model.replay_buffer is not None
    episodes = model.replay_buffer.sample(3).execution
    steps = model.policy.steps(episodes.observations, episodes.action_mask)
    encoder = model.policy.explorer.encoder
    assert isinstance(encoder.features_extractor, FlattenExtractor)
    features = encoder.features_extractor(steps.observations)
    assert features.shape == (int(episodes.lengths.sum()), width)
    assert steps.feedback.shape == (len(features), 3 + 1)
    assert isinstance(encoder, LSTMEncoder)
    assert encoder.lstm.input_size == width + 4
    inside = episodes.action_mask.bool()
    th.testing.assert_close(steps.feedback[:, :3], episodes.observations["previous_action"][inside])
    th.testing.assert_close(steps.feedback[:, 3:], episodes.observations["previous_reward"][inside])


def test_each_network_has_its_own_features_extractor_unless_shared() -> None:
    """By default the two policies and the decoder each have one. Shared, exploration policy and decoder have one, which the
    losses of both move. The execution policy's own is moved by its losses alone: in MetaSign-v0, where exploration's are a
    hundred times larger, it learned to see nothing while all three shared one."""
    for share in (False, True):
        # untrained and not too narrow: a dead ReLU has no gradient
        model = made("CnnPolicy", IMAGE, share_features_extractor=share, features_extractor_kwargs={"features_dim": 64})
        model.gradient_steps = 0
        model.learn(40)
        policy = model.policy
        assert model.replay_buffer is not None
        networks: dict[str, Any] = {
            "explorer": policy.explorer,
            "executor": policy.executor,
            "decoder": policy.trajectory_decoder,
        }
        exploring = {"explorer", "decoder"}
        extractors = {name: network.encoder.features_extractor for name, network in networks.items()}
        assert len(set(extractors.values())) == (2 if share else 3)
        losses = model._losses(model.replay_buffer.sample(4, rng=np.random.default_rng(0)))
        for loss, moved in {
            "exploration_td": {"explorer"},
            "execution_td_trajectory": {"executor", "decoder"},
            "execution_td_problem": {"executor"},
            "decoder": {"decoder"},
            "bottleneck": set(),
        }.items():
            policy.optimizer.zero_grad()
            getattr(losses, loss).backward(retain_graph=True)
            weights = {name: extractor.cnn[0].weight.grad for name, extractor in extractors.items()}
            pulled = {name for name, grad in weights.items() if grad is not None and grad.abs().max() > 0}
            assert pulled == moved | (exploring if share and moved & exploring else set()), loss


def test_weight_decay_of_each_group() -> None:
    """f and g have weight decays of their own; the Q-networks have what the user's optimizer_kwargs say and none by default,
    also where the optimizer's own default is another (AdamW's); and a shared features extractor has none."""

    def decays(**policy_kwargs: Any) -> list[float]:
        policy = made("CnnPolicy", IMAGE, **SMALL, **policy_kwargs).policy
        learning = [parameter for parameter in policy.parameters() if parameter.requires_grad]
        grouped = [parameter for group in policy.optimizer.param_groups for parameter in group["params"]]
        assert len(grouped) == len(learning)
        assert {id(parameter) for parameter in grouped} == {id(parameter) for parameter in learning}
        return [group["weight_decay"] for group in policy.optimizer.param_groups]

    assert decays() == [0.0, 0.05, 0.1]
    assert decays(optimizer_kwargs={"eps": 1e-5}) == [0.0, 0.05, 0.1]
    assert decays(optimizer_kwargs={"weight_decay": 0.3}, decoder_weight_decay=0.2) == [0.3, 0.05, 0.2]
    shared = made("CnnPolicy", IMAGE, share_features_extractor=True, **SMALL).policy
    extractor = {id(parameter) for parameter in shared.features_extractor.parameters()}
    *_, last = shared.optimizer.param_groups
    assert {id(parameter) for parameter in last["params"]} == extractor
    assert decays(share_features_extractor=True, optimizer_kwargs={"weight_decay": 0.3}) == [0.3, 0.05, 0.1, 0.0]
