"""The figures of the comparison. An algorithm has the same colour in all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.comparison import ALL, OURS, Comparison, Estimate, band
from benchmarks.families import NAMES, Family

#: told apart by the colour-blind too (Okabe and Ito's, without yellow)
COLOURS = dict(zip(NAMES, ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), strict=True))
#: of the width of a page
_WIDTH, _DPI = 9.0, 130
_CENTRED: dict[str, Any] = {
    "ha": "center",
    "va": "center",
    "fontsize": 8,
    "color": "dimgray",
    "bbox": {"color": "white", "pad": 1.5},
}


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.tick_params(labelsize=9)


def plot_family(family: Family, path: Path) -> None:
    """
    Return against steps and against seconds: interquartile mean over seeds with its 95 % interval.

    :param family: one that several algorithms have runs of
    :param path: of the picture
    """
    figure = Figure(figsize=(_WIDTH, 4.1), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    longest = max(run["n_timesteps"] for runs in family.runs.values() for run in runs)
    scale, unit = (1e6, "millions") if longest >= 1e6 else (1e3, "thousands")
    limits = [("best, problem known", family.optimum, (6, 3)), ("best without exploring", family.unexplored, (1.5, 2))]
    if not family.rewards_exploring:
        limits = [("best, problem known or not", family.optimum, (6, 3))]
    for axis, (x_key, label, divisor) in zip(
        axes,
        (("timesteps", f"environment steps ({unit})", scale), ("cpu_seconds", "seconds of one core", 1.0)),
        strict=True,
    ):
        for algo, runs in family.runs.items():
            curve = band(runs, x_key, f"{family.split}/return")
            x, colour = curve.x / divisor, COLOURS[algo]
            seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
            on_top = 2.5 if algo == OURS else 2.0
            axis.plot(x, curve.value, color=colour, linewidth=1.6, zorder=on_top, label=f"{family.label(algo)}, {seeds}")
            axis.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
        if len(family.runs) % 2:
            axis.plot([], [], alpha=0.0, label=" ")  # the limits have a column of the legend for themselves
        for name, value, dashes in limits:
            axis.axhline(value, color="black", linestyle=(0, dashes), linewidth=1.2, label=f"{name}: {value:.2f}")
        axis.set_xlabel(label, fontsize=9)
        axis.set_xlim(left=0)
        _plain(axis)
    # what is far below, at the beginning, would press all else together
    gain = max(family.optimum - family.unexplored, 0.5 * abs(family.optimum))
    worst = min(min(family.returns(algo)) for algo in family.runs)
    lowest = min(worst - 0.15 * gain, family.unexplored - gain)
    axes[0].set_ylim(lowest, family.optimum + 0.06 * (family.optimum - lowest))
    axes[0].set_ylabel(f"{family.split} return", fontsize=9)
    figure.suptitle(family.title, fontsize=11)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=(len(labels) + 1) // 2, fontsize=9, frameon=False)
    figure.savefig(path, dpi=_DPI)


def _plot_intervals(
    columns: Sequence[str],
    rows: dict[str, dict[str, Estimate]],
    limits: tuple[float, float],
    lines: Sequence[float],
    title: str,
    path: Path,
) -> None:
    """
    A panel for each column and a bar for each row: an interval with its middle. What is off the panel is marked at its edge.
    """
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.36 * len(rows)), layout="constrained")
    panels: Any = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    low, high = limits
    for panel, column in zip(panels, columns, strict=True):
        for place, (algo, estimates) in enumerate(rows.items()):
            if column not in estimates:
                panel.text((low + high) / 2, place, "no results", **_CENTRED)
                continue
            value, left, right = (min(max(figure_, low), high) for figure_ in estimates[column])
            panel.barh(place, right - left, left=left, height=0.62, color=COLOURS[algo], alpha=0.55)
            if estimates[column].value < low:
                panel.plot(low, place, marker="<", color=COLOURS[algo], markersize=8, clip_on=False)
                panel.text(low + 0.06 * (high - low), place, f"{estimates[column].value:.1f}", va="center", fontsize=8)
            else:
                panel.vlines(value, place - 0.31, place + 0.31, color="black", linewidth=1.6)
        for line in lines:
            panel.axvline(line, color="black", linestyle=(0, (4, 3)), linewidth=0.9)
        panel.set_title(column, fontsize=9, fontweight="bold" if column == ALL else "normal")
        panel.set_xlim(low - 0.03 * (high - low), high + 0.03 * (high - low))
        panel.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        panel.tick_params(axis="y", length=0)
        _plain(panel)
        panel.grid(axis="y", visible=False)
    panels[0].set_yticks(range(len(rows)), [NAMES[algo] for algo in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    figure.supxlabel(title, fontsize=9)
    figure.savefig(path, dpi=_DPI)


def plot_shares(comparison: Comparison, path: Path) -> None:
    """
    :param comparison: with at least one family
    :param path: of the picture
    """
    lowest = min(estimate.low for estimates in comparison.shares.values() for estimate in estimates.values())
    _plot_intervals(
        [ALL, *(family.title for family in comparison.averaged)],
        comparison.shares,
        (-1.0 if lowest < -0.5 else -0.5, 1.0),
        (0.0, 1.0),
        "share of what exploring can bring: 0 the best without exploring, 1 the best with the problem known",
        path,
    )


def plot_improvements(comparison: Comparison, path: Path) -> None:
    """
    :param comparison: with at least one family
    :param path: of the picture
    """
    titles = {title for estimates in comparison.improvements.values() for title in estimates}
    _plot_intervals(
        [ALL, *(family.title for family in comparison.averaged if family.title in titles)],
        comparison.improvements,
        (0.0, 1.0),
        (0.5,),
        "how likely a run of DREAM is better than one of the rival's",
        path,
    )
