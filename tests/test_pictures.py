"""Pictures of trials: moving ones for any model, and figures of what DREAM made of trials."""

import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from matplotlib.figure import Figure
from PIL import Image
from sb3_contrib import RecurrentPPO
from stable_baselines3 import DQN

from sb3_dream import DREAM, RecurrentDQN, TrialEnv, TrialExplanation, animate_trial, plot_trial, plot_z_space, record_trial
from tests.conftest import collect, keep_exploring


@pytest.fixture(scope="module")
def bandit() -> DREAM:
    """A model whose trials are short."""
    return collect("MetaBandit-v0", n_envs=2, n_steps=60)


@pytest.fixture(scope="module")
def trial(bandit: DREAM) -> TrialExplanation:
    """One of its trials: two observations explore, and two times two execute."""
    return bandit.explain(drawn("MetaBandit-v0"), seed=0)


def drawn(env_id: str, **kwargs: Any) -> gym.Env:
    """Trials that render pictures, with two execution episodes."""
    return gym.make(env_id, render_mode="rgb_array", n_execution_episodes=2, **kwargs)


def read_gif(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """Its frames and how long each stays."""
    frames, durations = [], []
    with Image.open(path) as image:
        for index in range(image.n_frames):  # type: ignore[attr-defined]
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
            durations.append(image.info["duration"])
    return frames, durations


def test_a_gif_has_the_familys_frame_and_what_dream_thought(trial: TrialExplanation, tmp_path: Path) -> None:
    """The frame must be there unspoiled, and the panel beside it must change with every step."""
    pictures = animate_trial(trial, tmp_path / "trial.gif", milliseconds=100)
    frames, durations = read_gif(tmp_path / "trial.gif")
    assert len(frames) == len(pictures) == len(trial.frames) == 6
    assert durations == [200, 400, 100, 400, 100, 400], "one cannot see what an episode came to if its end does not stay"
    width = trial.frames[0].shape[1]
    for picture, frame in zip(pictures, trial.frames, strict=True):
        np.testing.assert_array_equal(picture[:, :width], frame)
    assert len({picture[:, width:].tobytes() for picture in pictures[:4]}) == 4
    for frame, picture in zip(frames, pictures, strict=True):
        assert np.abs(frame.astype(int) - picture).max() < 50, "the palette spoils the colours"


def test_curve_and_rewards_grow_while_exploring_and_then_stay(model: DREAM, tmp_path: Path) -> None:
    """A panel that shows the whole curve at once, or forgets it, does not show when something was found out."""
    keep_exploring(model)
    trial = model.explain(drawn("MetaMap-v0"), seed=0)
    pictures = animate_trial(trial, tmp_path / "trial.gif")
    end = int(trial.exploring.sum())
    panels = [picture[:400, trial.frames[0].shape[1] :] for picture in pictures]  # without Q-values
    ink = [int((panel < 200).any(axis=-1).sum()) for panel in panels]
    assert end > 3
    assert (np.diff(ink[:end]) > 0).all()
    assert all(np.array_equal(panel, panels[end]) for panel in panels[end:])


def test_the_action_taken_is_marked(trial: TrialExplanation, tmp_path: Path) -> None:
    """The mark is what ties the Q-values to what is seen; at the end of an episode there is none."""
    pictures = animate_trial(trial, tmp_path / "trial.gif")
    panels = [picture[420:, trial.frames[0].shape[1] :] for picture in pictures]
    blue, green = (0x00, 0x72, 0xB2), (0x00, 0x73, 0x4F)
    marked = [((panel == blue).all(axis=-1).sum() > 20, (panel == green).all(axis=-1).sum() > 20) for panel in panels]
    assert marked == [(True, False), (False, False), (False, True), (False, False), (False, True), (False, False)]


def test_mp4(trial: TrialExplanation, tmp_path: Path) -> None:
    """Slides and papers take MP4: of the same size, each picture as long as in the GIF."""
    iio = pytest.importorskip("imageio.v3")
    pytest.importorskip("imageio_ffmpeg")
    pictures = animate_trial(trial, tmp_path / "trial.mp4", milliseconds=100)
    meta = iio.immeta(tmp_path / "trial.mp4", plugin="FFMPEG")
    assert meta["size"] == pictures[0].shape[1::-1] and meta["fps"] == 10
    frames = iio.imread(tmp_path / "trial.mp4", plugin="FFMPEG")
    assert len(frames) == 2 + 4 + 1 + 4 + 1 + 4
    assert np.abs(frames[-1].astype(int) - pictures[-1]).mean() < 10


def test_without_ffmpeg_the_error_says_what_to_install(
    trial: TrialExplanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not installed by default."""
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(ImportError, match=r"pip install 'sb3_dream\[video\]'"):
        animate_trial(trial, tmp_path / "trial.mp4")


def test_bad_input(bandit: DREAM, trial: TrialExplanation, tmp_path: Path) -> None:
    """Errors that name the argument, and no half-written files."""
    with pytest.raises(ValueError, match=r"path must end in \.gif or \.mp4"):
        animate_trial(trial, tmp_path / "trial.avi")
    with pytest.raises(ValueError, match="trial has no frames"):
        animate_trial(bandit.explain(gym.make("MetaBandit-v0"), seed=0), tmp_path / "trial.gif")
    with pytest.raises(ValueError, match="env must be made with render_mode='rgb_array', got None"):
        record_trial(bandit, gym.make("MetaBandit-v0"), tmp_path / "trial.gif")
    assert not list(tmp_path.iterdir())


def test_any_sb3_model_is_recorded(bandit: DREAM, tmp_path: Path) -> None:
    """DREAM's trial is worth little if its rivals' cannot be shown beside it: with Q-values if the model gives them."""
    env = drawn("MetaBandit-v0")
    widths = {}
    for model in (
        bandit,
        RecurrentDQN("MlpPolicy", env, device="cpu", buffer_size=2000),
        RecurrentPPO("MultiInputLstmPolicy", env, device="cpu"),
        DQN("MultiInputPolicy", env, device="cpu", buffer_size=200),
    ):
        path = tmp_path / f"{type(model).__name__}.gif"
        trial = record_trial(model, env, path, seed=0)
        widths[type(model).__name__] = read_gif(path)[0][0].shape[1]
        assert isinstance(trial, TrialExplanation) == isinstance(model, DREAM)
        assert trial.execution_returns.shape == (2,)
    fresh = record_trial(DREAM("MlpPolicy", env, device="cpu", buffer_size=2000), env, tmp_path / "fresh.gif")
    assert not isinstance(fresh, TrialExplanation) and fresh.q_values is not None, "nothing learned, nothing to explain"
    assert widths == {"DREAM": 920, "RecurrentDQN": 920, "RecurrentPPO": 480, "DQN": 480}


class Small(gym.Env[Any, Any]):
    """Small frames of an odd size, many actions without names, and a vector as the problem."""

    observation_space = spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = spaces.Discrete(30)
    render_mode = "rgb_array"

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        """Begin an episode of one step."""
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: int) -> Any:
        """The only step."""
        return np.ones(1, np.float32), 0.0, True, False, {}

    def render(self) -> Any:
        """One colour."""
        return np.full((31, 47, 3), 90, np.uint8)


def test_a_family_of_others(tmp_path: Path) -> None:
    """Frames of any size, any number of actions, problems that are vectors and a z of one dimension can be drawn too."""
    env = TrialEnv(Small(), [[0.0, 1.0], [1.0, 0.0]], lambda family, problem: None)
    model = DREAM("MlpPolicy", env, seed=0, device="cpu", buffer_size=2000, policy_kwargs={"embedding_dim": 1}).learn(20)
    trial = record_trial(model, env, tmp_path / "trial.gif", seed=0)
    assert isinstance(trial, TrialExplanation)
    (picture, *_), _ = read_gif(tmp_path / "trial.gif")
    assert picture.shape == (400, 12 * 47 + 440, 3), "a frame of 47 pixels is made larger"
    plot_trial(trial).savefig(tmp_path / "trial.png")
    plot_z_space([trial]).savefig(tmp_path / "z.png")


def ink(figure: Figure, path: Path) -> np.ndarray:
    """The figure's pixels."""
    figure.savefig(path)
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_figure_of_a_trial(bandit: DREAM, trial: TrialExplanation, tmp_path: Path) -> None:
    """What goes to TensorBoard and to papers: distances, rewards and Q-values of the whole trial, and its frames."""
    figure = plot_trial(trial)
    picture, distances, rewards, q_values = figure.axes[1:]
    assert picture.images[0].get_array().shape == trial.frames[-1].shape  # type: ignore[union-attr]
    np.testing.assert_allclose(np.asarray(distances.lines[1].get_ydata()), trial.distances[:2])
    heights = [bar.get_height() for bar in rewards.patches]  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights, [0.0, trial.exploration_rewards[1]])
    taken = q_values.collections[0].get_offsets()
    np.testing.assert_array_equal(taken, [(row, a) for row, a in enumerate(trial.actions) if a is not None])
    assert (
        ink(figure, tmp_path / "with.png").shape
        != ink(plot_trial(bandit.explain(gym.make("MetaBandit-v0"), seed=0)), tmp_path / "without.png").shape
    )


def test_z_space_shows_ways_to_their_problems(bandit: DREAM, tmp_path: Path) -> None:
    """The plot must keep distances where two dimensions hold them, or "approaching" would be a trick of the eye."""
    trials = [bandit.explain(gym.make("MetaBandit-v0"), seed=seed) for seed in range(3)]
    figure = plot_z_space(trials)
    axes = figure.axes[0]
    points = axes.collections[0].get_offsets()
    assert points.shape == (16, 2)  # type: ignore[union-attr]
    means = trials[0].problem_means
    _, scales, _ = np.linalg.svd(means - means.mean(axis=0))
    np.testing.assert_allclose(np.square(points).sum(), np.square(scales[:2]).sum(), rtol=1e-4)
    ways = [line for line in axes.lines if np.size(line.get_xdata()) == 2]
    assert len(ways) == 3
    texts = {text.get_text() for text in axes.texts}
    assert texts == {str(number) for number in range(16)}
    ink(figure, tmp_path / "z.png")


def test_z_space_has_a_colour_for_each_problem(bandit: DREAM) -> None:
    """Of many trials of a few problems nobody could tell which ways belong together."""
    trials = [bandit.explain(gym.make("MetaBandit-v0"), options={"problem_id": problem}) for problem in (3, 5, 3)]
    axes = plot_z_space(trials).axes[0]
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["problem 3", "problem 5"]
    first, second, third = [line.get_color() for line in axes.lines if np.size(line.get_xdata()) == 2]
    assert first == third != second


def test_z_space_of_an_unknown_problem_says_what_it_was_taken_for(bandit: DREAM) -> None:
    """A ring around a problem that is not the trial's own must not look like success."""
    trial = bandit.explain(gym.make("MetaBandit-v0"), options={"problem_id": 6}, problem_ids=[0, 1, 2])
    legend = plot_z_space([trial]).axes[0].get_legend()
    assert legend is not None
    assert legend.get_texts()[0].get_text() == f"problem 6, taken for {trial.target_id}"


def test_z_space_refuses_trials_of_different_models(trial: TrialExplanation) -> None:
    """Each model has a z-space of its own."""
    with pytest.raises(ValueError, match="trials is empty"):
        plot_z_space([])
    other = collect("MetaBandit-v0", n_envs=1, n_steps=20, policy_kwargs={"lstm_hidden_size": 8})
    with pytest.raises(ValueError, match="one model at one time"):
        plot_z_space([trial, other.explain(gym.make("MetaBandit-v0"), seed=0)])
