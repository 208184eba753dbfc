"""Moving pictures of trials."""

from importlib import import_module
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator
from PIL import Image
from stable_baselines3.common.type_aliases import PolicyPredictor

from sb3_dream.common.plots import exploration_rows, name_actions, plain, plot_distances, plot_exploration_rewards
from sb3_dream.common.records import TrialExplanation, TrialRecord, play_trial
from sb3_dream.envs.drawing import EXECUTING, EXPLORING, FAINT, INK

#: smallest height of a panel, and its width, in pixels
_MIN_HEIGHT, _WIDTH, _DPI = 400, 440, 100


def record_trial(
    model: PolicyPredictor,
    env: gym.Env,
    path: str | Path,
    seed: int | None = None,
    options: dict[str, Any] | None = None,
    milliseconds: int = 350,
) -> TrialRecord:
    """
    Run one greedy trial of any SB3 model, and write it as a moving picture, as ``animate_trial`` does: of a DREAM that has
    learned with what ``explain`` says, of others what ``play_trial`` sees.

    :param model: any SB3 model
    :param env: trials whose ``render_mode`` is ``"rgb_array"``
    :param path: where to write, e.g. ``"trial.gif"`` or ``"trial.mp4"``
    :param seed: of the trial
    :param options: ``problem_id`` and ``instructions``, as in ``TrialEnv.reset``
    :param milliseconds: how long a frame stays
    :return: the trial, from DREAM a ``TrialExplanation``
    :raises ValueError: if the environment is not made of trials or does not render pictures, or for another suffix
    """
    if env.render_mode != "rgb_array":
        raise ValueError(f"env must be made with render_mode='rgb_array', got {env.render_mode!r}")
    has_learned = len(getattr(model, "trained_problem_ids", ())) > 0
    trial = model.explain(env, seed, options) if has_learned else play_trial(model, env, seed, options)  # type: ignore[attr-defined]
    animate_trial(trial, path, milliseconds)
    return trial


def animate_trial(trial: TrialRecord, path: str | Path, milliseconds: int = 350) -> list[np.ndarray]:
    """
    Write a trial as a moving picture. Beside the family's own frame stand the Q-values, with the action that is taken next,
    and of an explanation the distance ‖f − g‖² and the exploration reward of each step so far.

    :param trial: from ``DREAM.explain`` or ``play_trial``, with frames
    :param path: where to write: ``.gif``, or ``.mp4`` with the extra ``video``
    :param milliseconds: how long a frame stays; the first twice as long, and the last of each inner episode four times
    :return: the pictures, each (height, width, 3), uint8
    :raises ValueError: if the trial has no frames, or for another suffix
    :raises ImportError: if what writes MP4 is not installed
    """
    path = Path(path)
    if path.suffix not in (".gif", ".mp4"):
        raise ValueError(f"path must end in .gif or .mp4, got {str(path)!r}")
    if not trial.frames:
        raise ValueError("trial has no frames: make its environment (the family in TrialEnv) with render_mode='rgb_array'")
    pictures = list(trial.frames)
    if trial.q_values is not None:
        panel = _Panel(trial)
        pictures = [_beside(frame, panel.draw(row)) for row, frame in enumerate(trial.frames)]
    repeats = np.where(trial.episode_end, 4, 1)
    repeats[0] = 2
    if path.suffix == ".gif":
        # one palette for all, from the first and the last of each episode, makes a third of the bytes
        keys = np.concatenate([pictures[row] for row in np.flatnonzero(repeats > 1)])
        palette = Image.fromarray(keys).quantize(256, Image.Quantize.FASTOCTREE)  # keeps rare colours too
        images = [Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
        durations = (repeats * milliseconds).tolist()
        images[0].save(path, save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True)
    else:
        _write_mp4(path, [pictures[row] for row in np.repeat(np.arange(len(pictures)), repeats)], 1000 / milliseconds)
    return pictures


def _write_mp4(path: Path, pictures: list[np.ndarray], fps: float) -> None:
    try:
        import_module("imageio_ffmpeg")  # which imageio would miss only when writing
        imwrite = import_module("imageio.v3").imwrite
    except ImportError as error:
        raise ImportError("To write MP4: pip install 'sb3_dream[video]' (or 'imageio[ffmpeg]'). GIF needs nothing") from error
    imwrite(path, pictures, fps=fps, macro_block_size=2)


def _beside(frame: np.ndarray, panel: np.ndarray) -> np.ndarray:
    """The frame, larger by a whole number if it is small, in the middle of the height that both have, and the panel."""
    frame = frame.repeat(_scale(frame), axis=0).repeat(_scale(frame), axis=1)
    space = len(panel) - len(frame)
    frame = np.pad(frame, ((space // 2, space - space // 2), (0, 0), (0, 0)), constant_values=255)
    return np.concatenate([frame, panel], axis=1)


def _scale(frame: np.ndarray) -> int:
    return max(1, _MIN_HEIGHT // len(frame))


class _Panel:
    """
    What stands beside the frames. It is laid out once, for the whole trial; for each picture only what changes is drawn, on a
    background of each phase, which takes a fifth of the time.

    :param trial: with Q-values
    """

    def __init__(self, trial: TrialRecord):
        assert trial.q_values is not None
        self.trial, self.q_values = trial, trial.q_values
        height = max(_MIN_HEIGHT, len(trial.frames[0]) * _scale(trial.frames[0]))
        layout = ConstrainedLayoutEngine(rect=(0.0, 0.0, 0.98, 1.0))  # room at the right
        self.figure = Figure(figsize=(_WIDTH / _DPI, height / _DPI), dpi=_DPI, layout=layout)
        self.canvas = FigureCanvasAgg(self.figure)
        *above, self.axes = self.figure.subplots(3 if isinstance(trial, TrialExplanation) else 1, 1, squeeze=False)[:, 0]
        self.lines: list[tuple[Any, np.ndarray, np.ndarray]] = []
        self.rewards: list[tuple[Any, float]] = []
        if isinstance(trial, TrialExplanation):
            self.lines = [(line, *line.get_data()) for line in plot_distances(above[0], trial)]
            self.rewards = [(bar, bar.get_height()) for bar in plot_exploration_rewards(above[1], trial)]
        self.bars = self.axes.barh(range(len(trial.action_names)), np.zeros(len(trial.action_names)), height=0.7)
        self.axes.axvline(0, color=INK, linewidth=0.8)
        self.axes.xaxis.set_major_locator(MaxNLocator(6))
        name_actions(self.axes, trial)
        self.title = plain(self.axes, "Q-values")
        self.moving = [*(line for line, *_ in self.lines), *(bar for bar, _ in self.rewards), *self.bars, self.title]
        self.canvas.draw()
        self.figure.set_layout_engine("none")  # where it is, it stays
        for artist in self.moving:
            artist.set_animated(True)  # not part of the background
        self.backgrounds = {exploring: self._draw_background(exploring) for exploring in (True, False)}

    def _draw_background(self, exploring: bool) -> Any:
        self._scale_q_values(exploring)
        self.canvas.draw()
        return self.canvas.copy_from_bbox(self.figure.bbox)

    def _scale_q_values(self, exploring: bool) -> None:
        """Each phase has a scale of its own, the same for all of its steps."""
        values = self.q_values[self.trial.exploring == exploring]
        low, high = min(0.0, float(np.nanmin(values))), max(0.0, float(np.nanmax(values)))
        margin = 0.05 * (high - low) or 1.0
        self.axes.set_xlim(low - margin, high + margin)

    def draw(self, row: int) -> np.ndarray:
        """
        :param row: of the trial
        :return: the panel as it stands then, (height, width, 3), uint8
        """
        trial, exploring, action = self.trial, bool(self.trial.exploring[row]), self.trial.actions[row]
        n_seen = int((exploration_rows(trial) <= row).sum())
        for line, steps, values in self.lines:
            line.set_data(steps[:n_seen], values[:n_seen])
        for step, (bar, height) in enumerate(self.rewards):
            bar.set_height(height if step < n_seen else 0.0)
        colour = EXPLORING if exploring else EXECUTING
        for index, (bar, value) in enumerate(zip(self.bars, np.nan_to_num(self.q_values[row]), strict=True)):
            bar.set_width(value)
            bar.set_color(colour if index == action else FAINT)
        of = "Q-values, exploring" if exploring else "Q-values, executing"
        does = "the episode is over" if action is None else f"next: {trial.action_names[int(action)]}"
        self.title.set_text(f"{of}   ({does})")

        self._scale_q_values(exploring)
        self.canvas.restore_region(self.backgrounds[exploring])
        for artist in self.moving:
            artist.axes.draw_artist(artist)
        return np.asarray(self.canvas.buffer_rgba())[..., :3].copy()
