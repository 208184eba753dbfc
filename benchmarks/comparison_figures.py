"""The figures of the comparison. An algorithm has the same colour in all of them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.comparison import ALL, Comparison, Estimate, band
from benchmarks.families import NAMES, Family

#: told apart by the colour-blind too (Okabe and Ito's, without yellow)
COLOURS = dict(zip(NAMES, ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"), strict=True))
#: of the width of a page
_WIDTH, _DPI = 9.0, 130


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, dpi=_DPI, bbox_inches="tight", pad_inches=0.08)


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
    figure = Figure(figsize=(_WIDTH, 3.6))
    axes = figure.subplots(1, 2, sharey=True)
    longest = max(run["n_timesteps"] for runs in family.runs.values() for run in runs)
    scale, unit = (1e6, "millions") if longest >= 1e6 else (1e3, "thousands")
    ends = [family.optimum, family.unexplored]
    for axis, (x_key, label, divisor) in zip(
        axes,
        (("timesteps", f"environment steps ({unit})", scale), ("cpu_seconds", "seconds of one core", 1.0)),
        strict=True,
    ):
        for algo, runs in reversed(family.runs.items()):  # DREAM is drawn last
            curve = band(runs, x_key, f"{family.split}/return")
            x, colour = curve.x / divisor, COLOURS[algo]
            seeds = f"{len(runs)} seed{'s' if len(runs) > 1 else ''}"
            axis.plot(x, curve.value, color=colour, linewidth=1.6, label=f"{NAMES[algo]}, {seeds}")
            axis.fill_between(x, curve.low, curve.high, color=colour, alpha=0.18, linewidth=0)
            ends.append(float(curve.low[-1]))
        axis.axhline(family.optimum, color="black", linestyle=(0, (6, 3)), linewidth=1.1, label="best, problem known")
        axis.axhline(family.unexplored, color="black", linestyle=(0, (1.5, 2)), linewidth=1.3, label="best without exploring")
        axis.set_xlabel(label, fontsize=9)
        axis.set_xlim(left=0)
        _plain(axis)
    # what is far below, at the beginning, would press all else together
    gain = max(family.optimum - family.unexplored, 0.5 * abs(family.optimum))
    lowest = min(*ends, family.unexplored - gain)
    axes[0].set_ylim(lowest - 0.05 * (family.optimum - lowest), family.optimum + 0.06 * (family.optimum - lowest))
    axes[0].set_ylabel(f"{family.split} return", fontsize=9)
    figure.suptitle(family.title, fontsize=11, x=0.07, ha="left")
    figure.tight_layout()
    handles, labels = axes[0].get_legend_handles_labels()
    n_limits = 2
    order = [*reversed(range(len(handles) - n_limits)), *range(len(handles) - n_limits, len(handles))]
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=4,
        fontsize=9,
        frameon=False,
    )
    _save(figure, path)


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
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.36 * len(rows)))
    panels: Any = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    low, high = limits
    for panel, column in zip(panels, columns, strict=True):
        for place, (algo, estimates) in enumerate(rows.items()):
            if column not in estimates:
                panel.text((low + high) / 2, place, "no results", ha="center", va="center", fontsize=8, color="gray")
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
    figure.tight_layout(w_pad=0.6)
    _save(figure, path)


def plot_shares(comparison: Comparison, path: Path) -> None:
    """
    :param comparison: with at least one family
    :param path: of the picture
    """
    _plot_intervals(
        [ALL, *(family.title for family in comparison.averaged)],
        comparison.shares,
        (-1.0, 1.0),
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
