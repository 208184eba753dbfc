"""Images that are sampled moved by a few pixels: a network that sees no frame twice learns what it means, from few of them."""

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from hypothesis import given, settings
from hypothesis import strategies as st
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_dream import DREAM, IMPORT, EpisodeBatch, RecurrentDQN, TrialEnv, VariBAD
from sb3_dream.common.batches import shift_images
from tests.counting_env import Counting

SIDE = 36


class Squares(gym.ObservationWrapper):
    """What ``Counting`` counts, as a square of that brightness, four pixels from two edges."""

    def __init__(self, index: int = 0) -> None:
        super().__init__(Counting(index=index))
        self.observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """Each step of an episode has another."""
        image = np.zeros((SIDE, SIDE, 3), np.uint8)
        image[4:8, 4:8] = 1 + observation[2]
        return image


def place(images: th.Tensor) -> np.ndarray:
    """Of the square in each image (..., 3, height, width): rows down and columns to the right of where it was drawn."""
    places = [(image > 0).nonzero()[0] - 4 for image in images.view(-1, 3, SIDE, SIDE)[:, 0]]
    return np.array([each.tolist() for each in places])


def make(algorithm: type[Any], **kwargs: Any) -> Any:
    """With a replay buffer, and something in it."""

    def make_env(index: int) -> gym.Env:
        return Squares(index) if algorithm is RecurrentDQN else TrialEnv(Squares(index), [0, 1], lambda *_: None)

    env = DummyVecEnv([lambda index=index: make_env(index) for index in range(2)])  # type: ignore[misc]
    model = algorithm("CnnPolicy", env, replay_buffer_kwargs=kwargs, buffer_size=400, learning_starts=10**9, device="cpu")
    return model.learn(200)


@pytest.mark.parametrize("algorithm", [DREAM, IMPORT, RecurrentDQN, VariBAD])
def test_all_of_a_batch_is_moved_alike(algorithm: type[Any]) -> None:
    """What moves from frame to frame would look like a step of the agent. Each batch is moved in its own way."""
    buffer = make(algorithm, random_shift=2).replay_buffer
    samples: dict[type[Any], Callable[[], list[EpisodeBatch]]] = {
        DREAM: lambda: [(batch := buffer.sample(4)).exploration, batch.execution],
        IMPORT: lambda: [buffer.sample_whole(4)[0]],
        RecurrentDQN: lambda: [buffer.sample(4, sequence_length=6)],
        VariBAD: lambda: [buffer.sample(4, sequence_length=200)],
    }
    seen = set()
    for _ in range(60):
        for episodes in samples[algorithm]():
            (where,) = {tuple(each) for each in place(episodes.observations["observation"])}
            seen.add(where)
    assert len(seen) > 12
    assert set(np.array(list(seen)).ravel()) == {-2, -1, 0, 1, 2}


@settings(max_examples=60, deadline=None)
@given(down=st.integers(-5, 5), right=st.integers(-6, 6), n=st.integers(1, 3), seed=st.integers(0, 99))
def test_edges_are_repeated(down: int, right: int, n: int, seed: int) -> None:
    """As if the picture went on beyond its edges. Black borders would tell where it was moved."""
    images = th.randint(256, (n, 2, 6, 7), generator=th.Generator().manual_seed(seed), dtype=th.uint8)
    rows, columns = (np.arange(6) - down).clip(0, 5), (np.arange(7) - right).clip(0, 6)
    np.testing.assert_array_equal(shift_images(images, down, right), images.numpy()[..., rows[:, None], columns])


def test_without_it_frames_are_as_they_were_stored() -> None:
    """And what is drawn is what was drawn before there was such an option: seeds keep their curves."""
    buffer = make(DREAM).replay_buffer
    batch = buffer.sample(4, rng=np.random.default_rng(0))
    assert not place(batch.exploration.observations["observation"]).any()
    buffer.random_shift = 1
    moved = buffer.sample(4, rng=np.random.default_rng(0))
    assert place(moved.exploration.observations["observation"]).any()
    assert th.equal(moved.execution.actions, batch.execution.actions)


@pytest.mark.parametrize(
    ("env", "random_shift", "message"),
    [
        (Squares, -1, "random_shift must be a whole number of at least 0, got -1"),
        (Squares, 36, r"random_shift must be less than the sides of the images in .*, got 36"),
        (Counting, 4, r"random_shift must be less than the sides of the images in .*, got 4"),
    ],
)
def test_what_cannot_be_moved(env: type[gym.Env], random_shift: int, message: str) -> None:
    """Said when the model is made, and not in the first update."""
    with pytest.raises(ValueError, match=message):
        RecurrentDQN(
            "CnnPolicy" if env is Squares else "MlpPolicy",
            DummyVecEnv([env]),
            replay_buffer_kwargs={"random_shift": random_shift},
            device="cpu",
        )
