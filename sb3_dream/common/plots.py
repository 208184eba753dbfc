"""Figures of what DREAM made of trials. None of them is known to pyplot, so that there is nothing to close."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from sb3_dream.common.records import TrialExplanation, TrialRecord
from sb3_dream.envs.drawing import COLOURS, EXPLORING, FAINT, INK, PALE_COLOURS

GOOD, BAD = "#009e73", "#d55e00"
#: more names than these would be drawn on top of each other
_MAX_NAMES = 24


def exploration_rows(trial: TrialRecord) -> np.ndarray:
    """
    :param trial: a trial
    :return: the rows of its exploration, in order
    """
    return np.flatnonzero(trial.exploring)


def plain(axes: Axes, title: str) -> Text:
    """
    What all axes here look like.

    :param axes: to be made plain
    :param title: set at the left
    :return: the title
    """
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return axes.set_title(title, loc="left", fontsize=9, color=INK)


def _show_steps(axes: Axes, n_steps: int) -> None:
    """A step of exploration on each whole number of x."""
    axes.set_xlim(-0.6, n_steps - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def distance_title(trial: TrialExplanation) -> str:
    """
    :param trial: a trial
    :return: what its distances are to
    """
    if trial.target_is_own:
        return "distance ‖f(μ) − g(τ)‖²"
    return f"‖f − g(τ)‖² of {trial.target_id}, nearest in the end (own f unknown)"


def plot_distances(axes: Axes, trial: TrialExplanation) -> tuple[Any, Any]:
    """
    The distance after each step of exploration, and beside it that to the nearest of the other known problems.

    :param axes: where
    :param trial: a trial
    :return: the two lines
    """
    rows = exploration_rows(trial)
    steps, others = np.arange(len(rows)), trial.other_distances[rows]
    plain(axes, distance_title(trial))
    (other,) = axes.plot(steps, others, color="#9a9a9a", linewidth=1, linestyle="--", label="nearest other known problem")
    label = f"problem {trial.target_id}"
    (own,) = axes.plot(steps, trial.distances[rows], color=EXPLORING, marker="o", markersize=3, label=label)
    top = np.nanmax([trial.distances[rows].max(), *others])
    axes.set_ylim(-0.04 * top, 1.25 * top or 1.0)
    _show_steps(axes, len(rows))
    axes.legend(fontsize=7, frameon=False, loc="upper right", ncols=2)
    return own, other


def plot_exploration_rewards(axes: Axes, trial: TrialExplanation) -> Any:
    """
    The exploration reward of each step, as bars.

    :param axes: where
    :param trial: a trial
    :return: the bars
    """
    rewards = trial.exploration_rewards[exploration_rows(trial)]
    total = np.nansum(rewards)
    plain(axes, f"exploration reward: drop in distance − c   (sum {total:+.2f})")
    colours = [GOOD if reward > 0 else BAD for reward in rewards]
    bars = axes.bar(np.arange(len(rewards)), np.nan_to_num(rewards), color=colours, width=0.7)
    axes.axhline(0, color=INK, linewidth=0.8)
    _show_steps(axes, len(rewards))
    axes.set_xlabel("step of exploration", fontsize=8)
    axes.margins(y=0.15)
    return bars


def name_actions(axes: Axes, trial: TrialRecord) -> None:
    """
    The names of the actions at the left, if there is room for them; the first at the top.

    :param axes: with an action on each whole number of y
    :param trial: a trial
    """
    names = trial.action_names
    axes.set_ylim(len(names) - 0.4, -0.6)
    if len(names) <= _MAX_NAMES:
        axes.set_yticks(range(len(names)), names, fontsize=8)


def _plot_all_q_values(axes: Axes, trial: TrialRecord) -> None:
    """Q-values of the whole trial: a column for each observation, a dot on the action taken, a line between episodes."""
    assert trial.q_values is not None
    plain(axes, "Q-values (each phase on its own scale), and the action taken")
    shown = trial.q_values.copy()
    for phase in (trial.exploring, ~trial.exploring):
        low, high = np.nanmin(shown[phase]), np.nanmax(shown[phase])
        shown[phase] = (shown[phase] - low) / ((high - low) or 1.0)
    axes.imshow(shown.T, aspect="auto", cmap="Blues", vmin=0, vmax=1.3, interpolation="nearest")
    acted = np.flatnonzero(~trial.episode_end)
    axes.scatter(acted, [trial.actions[row] for row in acted], s=14, color=BAD)
    for row in np.flatnonzero(trial.episode_end):
        axes.axvline(float(row), color=INK, linewidth=1)
    name_actions(axes, trial)
    axes.set_xlabel("observation (lines: an inner episode is over)", fontsize=8)


def plot_trial(trial: TrialExplanation) -> Figure:
    """
    A whole trial in one figure: distances, exploration rewards and Q-values, and if the explanation has frames, the last of
    exploration and the last of all.

    :param trial: from ``DREAM.explain``
    :return: a figure, to save with ``figure.savefig``
    """
    figure = Figure(figsize=(10 if trial.frames else 6, 7.5), layout="constrained")
    graphs: Any = figure
    if trial.frames:
        pictures, graphs = np.asarray(figure.subfigures(1, 2, width_ratios=(2, 3)))
        for axes, row in zip(pictures.subplots(2, 1), (exploration_rows(trial)[-1], -1), strict=True):
            axes.imshow(trial.frames[row])
            axes.axis("off")
    top, middle, bottom = graphs.subplots(3, 1, height_ratios=(1, 1, 1.3))
    plot_distances(top, trial)
    plot_exploration_rewards(middle, trial)
    _plot_all_q_values(bottom, trial)
    returns = ", ".join(f"{value:.2f}" for value in trial.execution_returns)
    figure.suptitle(f"problem {trial.problem_id}: execution return {returns}", fontsize=10)
    return figure


def plot_z_space(trials: Sequence[TrialExplanation]) -> Figure:
    """
    z-space from above: the first two principal components of f(μ) of the known problems, and through them the way of each
    trial's guesses, from the empty trajectory (a cross) to the whole exploration (a dot).

    Trials of one problem share a colour, and the problem has a ring of it; if f does not know it, the ring is around the one
    that the last guess is nearest to, and dashed.

    :param trials: from one model at one time
    :return: a figure, to save with ``figure.savefig``
    :raises ValueError: if there is no trial, or the trials do not share one f
    """
    if not trials:
        raise ValueError("trials is empty: there is nothing to draw")
    means = trials[0].problem_means
    if not all(np.array_equal(trial.problem_means, means) for trial in trials):
        raise ValueError("trials must be explained by one model at one time, with the same problem_ids")
    centre = means.mean(axis=0)
    _, scales, directions = np.linalg.svd(means - centre)
    shares = np.zeros(2)
    shares[: len(scales[:2])] = scales[:2] ** 2 / (np.square(scales).sum() or 1.0)

    def project(z: np.ndarray) -> np.ndarray:
        """(n, embedding_dim) → (n, 2)."""
        components = (z - centre) @ directions[:2].T
        return np.pad(components, ((0, 0), (0, 2 - components.shape[1])))

    figure = Figure(figsize=(6.5, 6), layout="constrained")
    axes = figure.subplots()
    plain(axes, f"z-space: f(μ) of {len(means)} known problems (grey), and guesses g(τ) approaching them")
    x, y = project(means).T
    axes.scatter(x, y, s=40, color=FAINT, edgecolors="#9a9a9a")
    if len(means) <= 5 * _MAX_NAMES:
        for problem_id, point in zip(trials[0].problem_ids, project(means), strict=True):
            axes.annotate(str(problem_id), point, (4, 4), textcoords="offset points", fontsize=7, color="#6a6a6a")
    colours = [*COLOURS, *PALE_COLOURS]
    colour_of: dict[str, str] = {}
    for trial in trials:
        known = "" if trial.target_is_own else f", taken for {trial.target_id}"
        name = f"problem {trial.problem_id}{known}"
        label = None if name in colour_of else name  # once in the legend
        colour = colour_of.setdefault(name, colours[len(colour_of) % len(colours)])
        x, y = project(trial.z[exploration_rows(trial)]).T
        axes.plot(x, y, color=colour, linewidth=1.2, marker=".", markersize=4, label=label)
        axes.scatter(x[:1], y[:1], color=colour, marker="x", zorder=3)
        axes.scatter(x[-1:], y[-1:], color=colour, s=45, zorder=3)
        style = "solid" if trial.target_is_own else "dashed"
        x, y = project(trial.target_mean[None]).T
        axes.scatter(x, y, s=150, facecolors="none", edgecolors=colour, linestyles=style, linewidths=1.5)
    axes.set_xlabel(f"first component ({shares[0]:.0%} of the spread of f)", fontsize=8)
    axes.set_ylabel(f"second component ({shares[1]:.0%})", fontsize=8)
    axes.set_aspect("equal", adjustable="datalim")
    axes.legend(fontsize=7, frameon=False)
    return figure
