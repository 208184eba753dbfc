"""CnnPolicy: images of every kind."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecTransposeImage, is_vecenv_wrapped

from tests.sb3_compat.common import Algorithm, actions_on, assert_same, images, parameters, random_trials, shake

SMALL_CNN = {"features_extractor_kwargs": {"features_dim": 8}}


@pytest.mark.parametrize("shape", [(40, 36, 3), (3, 40, 36), (40, 36, 1), (1, 40, 36)])
@pytest.mark.parametrize("share", [True, False])
def test_images(algorithm: Algorithm, tmp_path: Path, shape: tuple[int, ...], share: bool) -> None:
    """SB3's test_cnn and test_channel_first_env: channels last are transposed by themselves, channels first are left; a
    raw observation of either kind is understood; and all of it comes back from a file."""
    space = images(*shape)
    env = random_trials(space)
    model = algorithm.make(env, "CnnPolicy", {**SMALL_CNN, "share_features_extractor": share}).learn(60)
    assert model._n_updates > 2
    assert model.observation_space["observation"].shape == (min(shape), 40, 36)  # type: ignore[index]
    assert model.get_env() is not None
    assert is_vecenv_wrapped(model.get_env(), VecTransposeImage) == (shape[0] == 40)  # type: ignore[arg-type]

    shake(model).save(tmp_path / "model")
    loaded = algorithm.load(tmp_path / "model")
    assert_same(parameters(model), parameters(loaded))
    first, second = random_trials(space, n_envs=2), random_trials(space, n_envs=2)
    np.testing.assert_array_equal(actions_on(model, first, 20), actions_on(loaded, second, 20))


def convolutions(model: Any, target: bool) -> dict[str, th.Tensor]:
    """The parameters of the features extractors, of the targets or of the networks that learn."""
    return {
        name: parameter
        for name, parameter in model.policy.named_parameters(remove_duplicate=False)
        if "cnn" in name and ("_target." in name) == target
    }


@pytest.mark.parametrize("share", [True, False])
def test_features_extractors_of_targets(algorithm: Algorithm, share: bool) -> None:
    """SB3's test_features_extractor_target_net: a target has a features extractor of its own, which learns nothing by
    itself. With share_features_extractor exploration policy and decoder share one, and so do their targets."""
    env = random_trials(images(3, 36, 36))
    model = algorithm.make(
        env, "CnnPolicy", {**SMALL_CNN, "share_features_extractor": share}, tau=0.0, target_update_interval=1
    )
    online, targets = convolutions(model, target=False), convolutions(model, target=True)
    assert not {id(p) for p in online.values()} & {id(p) for p in targets.values()}
    n_layers = 2 * 3  # weights and biases of NatureCNN's convolutions
    for parameters_of in (online, targets):
        n_extractors = len({name.split(".")[0] for name in parameters_of if not name.startswith("features_extractor")})
        n_extractors -= share and algorithm.can_share
        assert len({id(p) for p in parameters_of.values()}) == n_layers * n_extractors
    before = {name: value.clone() for name, value in targets.items()}
    learned = {name: value.clone() for name, value in online.items()}
    for name, value in targets.items():
        assert not value.requires_grad
        assert th.equal(value, online[name.replace("_target.", ".")]), "targets start where the networks do"
    model.learn(60)
    assert model._n_updates > 2
    assert_same(before, targets)
    assert all(not th.equal(learned[name], value) for name, value in online.items())


def test_targets_follow(algorithm: Algorithm) -> None:
    """With tau = 1 the target's shared features extractor is the online one's copy after each update."""
    env = random_trials(images(3, 36, 36))
    model = algorithm.make(
        env, "CnnPolicy", {**SMALL_CNN, "share_features_extractor": True}, tau=1.0, target_update_interval=1
    )
    model.learn(61)
    model._on_step()
    for name, value in convolutions(model, target=True).items():
        assert th.equal(value, convolutions(model, target=False)[name.replace("_target.", ".")])


def largest_input(model: Any, kind: type[th.nn.Module], n_steps: int = 60) -> float:
    """The largest number that any features extractor of this kind is given while the model acts and learns."""
    largest = [0.0]
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: largest.append(inputs[0].max().item()))
        for module in model.policy.modules()
        if isinstance(module, kind)
    ]
    model.learn(n_steps)
    assert model._n_updates > 2
    assert len(largest) > n_steps
    for hook in hooks:
        hook.remove()
    return max(largest)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_images_that_are_not_to_be_normalised(algorithm: Algorithm, dtype: Any) -> None:
    """SB3's test_image_like_input: with normalize_images=False, images of bytes reach the network undivided, and floats
    (channels first) are taken for images too."""
    high = 255 if dtype == np.uint8 else 1.0
    env = random_trials(spaces.Box(0, high, (3, 36, 36), dtype))
    arguments = {**SMALL_CNN, "normalize_images": False}
    model = algorithm.make(env, "CnnPolicy", arguments)
    assert model.policy.features_extractor_kwargs["normalized_image"] is True
    assert arguments["features_extractor_kwargs"] == {"features_dim": 8}, "the caller's dict is the caller's"
    assert largest_input(model, NatureCNN) == pytest.approx(high, rel=0.01)
    if dtype == np.uint8:
        assert largest_input(algorithm.make(env, "CnnPolicy", SMALL_CNN), NatureCNN) == pytest.approx(1.0, rel=0.01)


def test_mlp_policy_on_an_image(algorithm: Algorithm) -> None:
    """SB3's MlpPolicy flattens images, of any size, and divides them by 255."""
    model = algorithm.make(random_trials(images(5, 4, 1)), "MlpPolicy")
    assert not convolutions(model, target=False)
    assert largest_input(model, FlattenExtractor) == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize(
    ("space", "hint"),
    [
        (spaces.Box(-1.0, 1.0, (3,), np.float32), "only with images"),
        (spaces.Box(0.0, 1.0, (3, 36, 36), np.float32), "normalize_images=False"),
        (images(3, 8, 8), "Kernel size can't be greater than actual input size"),
    ],
    ids=["vector", "floats", "tiny"],
)
def test_what_is_no_image_for_a_cnn(algorithm: Algorithm, space: spaces.Space, hint: str) -> None:
    """SB3's hints, in an error that says which observation and which features extractor."""
    with pytest.raises(ValueError, match=r"NatureCNN.*does not suit the family's observation Box(?s:.*)" + hint):
        algorithm.make(random_trials(space), "CnnPolicy")
