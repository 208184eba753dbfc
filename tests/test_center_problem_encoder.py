"""f with its mean over the problems taken out: nothing is left in it that tells no problem from another."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_dream import DREAM, TrialEnv
from sb3_dream.common.networks import ProblemEncoder
from tests.conftest import collect
from tests.random_families import RandomFamily


def all_ids(space: spaces.Discrete | spaces.MultiDiscrete) -> th.Tensor:
    """Every problem ID of a space."""
    if isinstance(space, spaces.Discrete):
        return th.arange(int(space.n))
    return th.cartesian_prod(*(th.arange(int(n)) for n in space.nvec)).view(-1, len(space.nvec))


@pytest.mark.parametrize("space", [spaces.Discrete(3), spaces.Discrete(40), spaces.MultiDiscrete([2, 5, 3])], ids=str)
def test_the_mean_of_f_is_zero(space: Any) -> None:
    """Without it the decoder's first guess is off by that mean, and it learns nothing else before it has learned this."""
    means = []
    for centered in (False, True):
        encoder = ProblemEncoder(space, 8, 16, nn.ReLU, centered)
        f = encoder(all_ids(space))
        assert f.std(dim=0).max() > 0.1, "problems differ"
        means.append(f.mean(dim=0).abs().max().item())
    assert means[0] > 0.1
    assert means[1] < 1e-5


def test_problems_are_as_far_from_each_other_as_without_it() -> None:
    """Only what they share is taken out."""
    ids = th.arange(6)
    plain, centered = (ProblemEncoder(spaces.Discrete(6), 8, 16, nn.ReLU, each) for each in (False, True))
    centered.load_state_dict({key: value for key, value in plain.state_dict().items() if not key.endswith("bias")})
    th.testing.assert_close(th.pdist(centered(ids)), th.pdist(plain(ids)))


def test_it_stays_so_while_it_learns_and_after_loading(tmp_path: Path) -> None:
    """The losses would bring the mean back."""
    model = collect(policy_kwargs={"center_problem_encoder": True}, batch_size=8)
    ids = th.arange(24)
    before = model.policy.problem_encoder(ids)
    model.train(gradient_steps=3, batch_size=8)
    model.save(tmp_path / "model")
    loaded = DREAM.load(tmp_path / "model", device="cpu")
    for networks in (model.policy, loaded.policy):
        f = networks.problem_encoder(ids)
        assert not th.equal(f, before), "it has learned"
        assert f.mean(dim=0).abs().max() < 1e-5
    assert th.equal(loaded.policy.problem_encoder(ids), model.policy.problem_encoder(ids))


def test_problems_that_cannot_be_counted() -> None:
    """Nobody knows the mean over a Box."""
    space = spaces.Box(0.0, 1.0, (2,))
    family = RandomFamily(spaces.Box(0.0, 1.0, (3,)), 2, space, 4, 0)
    env = DummyVecEnv([lambda: TrialEnv(family, [space.sample()], problem_space=space)])
    with pytest.raises(ValueError, match=re.escape("center_problem_encoder needs problems that can be counted")):
        DREAM("MlpPolicy", env, policy_kwargs={"center_problem_encoder": True}, device="cpu")
