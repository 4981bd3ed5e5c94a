"""The charts of a sweep: the figure that ranks against what varied, and over epochs."""

import itertools
import math
import statistics
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import FuncNorm, LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fmnist_lit.config.criterion import DEFAULT, Criterion
from fmnist_lit.config.rules import title_of
from fmnist_lit.report.charts import BEST, COLOURS, MUTED, WIDTH, Chart, canvas, chart_style, to_png
from fmnist_lit.run.names import slug
from fmnist_lit.sweep.jobs import CURVES, STATUSES
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable
from fmnist_lit.sweep.values import identity, is_number, show_value

MARKERS = "osD^vP*p"
CROSS: dict[str, Any] = {"marker": "x", "markersize": 8, "mew": 2.2, "linestyle": "none"}
RING: dict[str, Any] = {
    "marker": "o",
    "markersize": 17,
    "mfc": "none",
    "mec": BEST,
    "mew": 2.2,
    "linestyle": "none",
    "zorder": 5,
    "clip_on": False,
}
ERROR_TICKS = (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 83, 86, 88, 90, 92, 94, 95, 96, 97, 98, 99, 99.5, 99.9)
FAR_APART = 25  # percentage points; accuracies that lie further apart are drawn by the logarithm of their error
FAR_TIMES = 25  # how many times the lowest the highest of other figures is, for them to be drawn by their logarithm
MOST_LINES, MOST_CELLS, MOST_BARS, LONGEST_LABEL = len(COLOURS), 14, 20, 42


def log_error(percentage: Any) -> Any:
    """Accuracies in % on an axis that is logarithmic in their error: with one failure at 10 %, those near 90 % differ
    visibly. An accuracy of 100 % counts as an error of 0.1 points.
    """
    return -np.log(np.maximum(100.1 - percentage, 1e-9))


def from_log_error(position: Any) -> Any:
    """The inverse of ``log_error``."""
    return 100.1 - np.exp(-position)


BY_ERROR = (log_error, from_log_error)


def draw_sweep(table: SweepTable) -> list[Chart]:
    """The charts that a sweep gives, the most telling first; none where nothing is ranked."""
    if not table.ranked:
        return []
    with chart_style():
        return list(charts_one_by_one(table))


def charts_one_by_one(table: SweepTable) -> Iterator[Chart]:
    """Draw a heat map for two numbers, a chart for each parameter by itself, and one over epochs."""
    for x, y in itertools.combinations(table.numbers[:3], 2):
        columns, rows = table.values(x), table.values(y)
        cells = {(identity(group.settings[x]), identity(group.settings[y])) for group in table.groups}
        if max(len(columns), len(rows)) <= MOST_CELLS and len(cells) > len(columns) * len(rows) / 2:
            yield heat_map(table, x, y)
    for key in table.numbers:
        yield against_number(table, key)
    for key in table.categories:
        yield against_category(table, key)
    if table.seeded and not table.numbers and not table.categories:
        yield over_seeds(table)
    if any(len(job.curve) > 1 for job in table.jobs):
        yield over_epochs(table)


def heat_map(table: SweepTable, x: str, y: str) -> Chart:
    """The figure that ranks by two numbers; a cell without one is hatched and says why."""
    columns, rows = table.values(x), table.values(y)
    cells: dict[tuple[Any, Any], Group] = {}
    for group in table.groups:  # the best first
        cells.setdefault((identity(group.settings[x]), identity(group.settings[y])), group)
    fig, ax = figure_and_axes(height=1.7 + 0.45 * len(rows))
    ax.grid(False)
    grid = [[cells.get((identity(column), identity(row))) for column in columns] for row in rows]
    criterion = table.criterion
    levels = np.array([[level(group) for group in row] for row in grid])
    low, high = float(np.nanmin(levels)), float(np.nanmax(levels))
    norm: Normalize | None = FuncNorm(BY_ERROR, low, high) if is_by_error(criterion, low, high) else None
    if is_by_magnitude(criterion, low, high):
        norm = LogNorm(low, high)
    cmap = "viridis" if criterion.mode == "max" else "viridis_r"  # the best is bright
    image = ax.imshow(levels, norm=norm, origin="lower", aspect="auto", cmap=cmap)
    label = "accuracy (%)" if criterion.is_share else criterion.words
    ticks = ticks_by_error(low, high) if isinstance(norm, FuncNorm) else None
    bar = fig.colorbar(image, ax=ax, label=label, ticks=ticks)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    if isinstance(norm, LogNorm):
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show_value(float(value))))
    shades = np.asarray(image.norm(levels), dtype=float)
    shades = shades if criterion.mode == "max" else 1 - shades
    for i, j in itertools.product(range(len(rows)), range(len(columns))):
        cell = grid[i][j]
        colour, box = "black", None
        if isinstance(cell, RankedGroup):
            text = short_level(cell, level(cell)) + (f"\n±{short_level(cell, level_std(cell))}" if cell.n > 1 else "")
            colour = "black" if shades[i, j] > 0.55 else "white"
        else:
            text = status_label(cell)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="#EEE", edgecolor="#999", hatch="///"))
        # in points: the width of a cell over that of the text at size 1
        size = min(11, 310 / len(columns) / (0.65 * max(map(len, text.split("\n")))))
        ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=size, bbox=box)
        if cell is table.ranked[0]:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec=BEST, lw=3.5, zorder=3, clip_on=False))
    ax.set_xticks(range(len(columns)), map(show_value, columns), rotation=45 if len(columns) > 9 else 0)
    ax.set_yticks(range(len(rows)), map(show_value, rows))
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    title = f"{heading(criterion)} by {short_key(table, x)} and {short_key(table, y)}"
    return titled_chart(fig, table, f"heatmap_{x}_{y}", title, [x, y], "the best is framed")


def against_number(table: SweepTable, key: str) -> Chart:
    """The figure that ranks against a number, with a line for each combination of what else varied.

    Where these are too many, a line has the best of them.
    """
    others = [other for other in (*table.categories, *table.numbers) if other != key]
    most_values_first = sorted(others, key=lambda other: -len(table.values(other)))
    choices = [others, *([other] for other in most_values_first), []]
    by = next(keys for keys in choices if len(groups_by(table, keys)) <= MOST_LINES)
    is_line = not others or 2 * len(table.values(key)) <= len(table.groups)  # else a random search: points
    fig, ax = figure_and_axes(height=4.6)
    lines = groups_by(table, by)
    palette: Sequence[Any] = COLOURS
    if len(by) == 1 and by[0] in table.numbers:  # ordered shades for ordered values
        palette = list(
            matplotlib.colormaps["viridis"]([0.88 * index / (len(lines) - 1) for index in range(len(lines))])
        )
    diverged: dict[int, list[float]] = {}
    for index, (name, groups) in enumerate(lines.items()):
        points: dict[Any, Group] = {}
        for group in groups:  # the best first
            if is_number(group.settings[key]):
                points.setdefault(identity(group.settings[key]) if is_line else group, group)
        ranked = [group for group in points.values() if isinstance(group, RankedGroup)]
        drawn = sorted(ranked, key=lambda group: float(group.settings[key]))
        ax.errorbar(
            [group.settings[key] for group in drawn],
            [level(group) for group in drawn],
            error_bars(drawn),
            color=palette[index],
            marker=MARKERS[index],
            linestyle="-" if is_line else "none",
            capsize=3,
            label=name,
        )
        for group in points.values():
            if any(job.status == "diverged" for job in group.jobs):
                diverged.setdefault(index, []).append(group.settings[key])
    best = table.ranked[0]
    if is_number(best.settings[key]):
        unit = " %" if table.criterion.is_share else ""
        ax.plot(best.settings[key], level(best), **RING, label=f"best: {short_level(best, level(best))}{unit}")
    ax.margins(x=0.07)
    scale_levels(ax, table.criterion, free=0.05 * len(diverged))
    if diverged:  # a row of crosses for each line, below all of them
        for row, (index, values) in enumerate(diverged.items()):
            height = [0.03 + 0.045 * row] * len(values)
            ax.plot(values, height, **CROSS, color=palette[index], transform=ax.get_xaxis_transform())
        ax.plot([], [], **CROSS, color="black", label="diverged")
    scale = scale_axis(ax, table.values(key))
    ax.set_xlabel(f"{key}{scale}")
    legend_below(fig, ax)
    shown = [key, *by] if is_line else None
    kind = "accuracy" if table.criterion.is_share else "figure"
    return titled_chart(fig, table, f"{kind}_{key}", f"{heading(table.criterion)} by {short_key(table, key)}", shown)


def against_category(table: SweepTable, key: str) -> Chart:
    """A bar for each option, with the best of whatever else varied; the best on top."""
    bars: dict[Any, Group] = {}
    for group in table.groups:  # the best first
        bars.setdefault(identity(group.settings[key]), group)
    shown = list(bars.values())[:MOST_BARS][::-1]
    fig, ax = figure_and_axes(height=1.7 + 0.45 * len(shown))
    lowest = min(level(group) - level_std(group) for group in shown if isinstance(group, RankedGroup))
    # from 0, all bars would look alike
    start = max(0, 10 * math.floor(lowest / 10 - 0.5)) if table.criterion.is_share and lowest > 50 else 0
    ax.barh(
        range(len(shown)),
        [level(group) - start if isinstance(group, RankedGroup) else 0 for group in shown],
        left=start,
        xerr=error_bars(shown),
        color=[BEST if group is table.ranked[0] else MUTED for group in shown],
        capsize=4,
    )
    ax.set_yticks(range(len(shown)), [truncate(show_value(group.settings[key]), 28) for group in shown])
    figures = ax.secondary_yaxis("right")
    tuned = [other for other in (*table.numbers, *table.categories) if other != key]
    names = [settings_label(table, group, tuned) if isinstance(group, RankedGroup) else "" for group in shown]
    notes = [f"\n{name}" if 0 < len(name) <= 30 else "" for name in names]
    texts = [level_label(group) + note for group, note in zip(shown, notes, strict=True)]
    figures.set_yticks(range(len(shown)), texts, fontsize=10)
    for axis in (ax, figures):
        axis.tick_params(axis="y", length=0)
    figures.spines["right"].set_visible(False)
    ax.grid(False, axis="y")
    ax.set_xlabel(axis_label(table.criterion) + (f", from {start} % on" if start else ""))
    return titled_chart(fig, table, f"bars_{key}", f"{heading(table.criterion)} by {short_key(table, key)}", [key])


def over_seeds(table: SweepTable) -> Chart:
    """The figure that ranks, of each seed, with their mean and standard deviation."""
    group, criterion = table.ranked[0], table.criterion
    values = sorted(group.figures(criterion.column), key=criterion.cost, reverse=True)
    fig, ax = figure_and_axes(height=3.4)
    mean, std = level(group), level_std(group)
    spread = f"{std:.2f}" if criterion.is_share else f"{std:.4f}"
    ax.axhspan(mean - std, mean + std, color=MUTED, alpha=0.4, lw=0, label=f"± {spread} standard deviation")
    ax.axhline(mean, color=BEST, lw=2, label=f"mean {criterion.shown(group.value)}")
    points = [scale_of(criterion) * value for value in values]
    ax.plot(range(1, len(points) + 1), points, "o", color=COLOURS[0], label="a seed")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("seeds, from the worst to the best")
    ax.set_ylabel(axis_label(criterion))
    legend_below(fig, ax)
    return titled_chart(fig, table, "seeds", f"{heading(criterion)} by seed", [])


def over_epochs(table: SweepTable) -> Chart:
    """The figure that ranks, or the validation accuracy, after each epoch: the best in front, the others muted."""
    fig, ax = figure_and_axes(height=4.6)
    best = table.ranked[0]
    criterion = table.criterion if table.criterion.column in CURVES else DEFAULT
    curves = {group: mean_curve(group, scale_of(criterion)) for group in table.groups}
    others = [group for group in table.groups[::-1] if curves[group] and group is not best]
    width = max(0.5, 1.4 - len(others) / 50)
    for group in others:
        ended_early = not isinstance(group, RankedGroup)
        epochs, means, _ = zip(*curves[group], strict=True)
        dot = "." if len(epochs) == 1 or len(epochs) * len(others) < 300 else None
        ax.plot(epochs, means, "--" if ended_early else "-", color=MUTED, lw=width, marker=dot)
        if ended_early:
            ax.plot(epochs[-1], means[-1], **CROSS, color="#6B7280")
    if others:
        ax.plot([], [], color=MUTED, lw=1.3, label=f"{len(others)} other{'s' * (len(others) > 1)}")
    if not all(isinstance(group, RankedGroup) for group in others):
        ax.plot([], [], "--", color=MUTED, marker="x", mec="#6B7280", mew=2.2, label="diverged or not finished")
    if curves[best]:
        epochs, means, stds = zip(*curves[best], strict=True)
        low, high = ([mean + sign * std for mean, std in zip(means, stds, strict=True)] for sign in (-1, 1))
        ax.fill_between(epochs, low, high, color=BEST, alpha=0.2, lw=0)
        name = truncate(settings_label(table, best, table.parameters), 60)
        ax.plot(epochs, means, "o-", color=BEST, lw=2.6, ms=5 if len(epochs) < 30 else 0, label=name or "mean")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    scale_levels(ax, criterion)
    legend_below(fig, ax)
    note = "the best in front" if others else ""
    return titled_chart(fig, table, "curves", f"{heading(criterion)} over epochs", table.parameters, note)


def titled_chart(
    fig: Figure, table: SweepTable, name: str, title: str, shown: Sequence[str] | None, note: str = ""
) -> Chart:
    """Put a title above the axes, and render the chart.

    Args:
        fig: the figure.
        table: the sweep.
        name: of the file, without its ending.
        title: what is drawn.
        shown: the keys that the chart tells apart; of the others it has the best value, as the subtitle says. None
            where it has every job.
        note: one more remark for the subtitle.
    """
    tuned = [key for key in (*table.numbers, *table.categories) if shown is not None and key not in shown]
    seeds = max(group.n for group in table.ranked)
    notes = [
        title_of(table.datasets[0]),
        f"each with its best {', '.join(tuned)}" if tuned else "",
        f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "",
        note,
    ]
    subtitle = "; ".join(filter(None, notes))
    lines = textwrap.wrap(subtitle, 90)
    height = fig.get_figheight()
    engine = fig.get_layout_engine()
    assert isinstance(engine, ConstrainedLayoutEngine)  # canvas() chose it
    engine.set(rect=(0, 0, 1, 1 - (0.34 + 0.17 * len(lines)) / height))
    fig.text(0.012, 1 - 0.07 / height, truncate(title, 60), va="top", fontsize=12.5, fontweight="bold")
    fig.text(0.012, 1 - 0.32 / height, "\n".join(lines), va="top", fontsize=9.5, color="#555555")
    return Chart(slug(name), f"{title} ({subtitle})", to_png(fig))


def figure_and_axes(height: float) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes."""
    fig = canvas(min(height, 9))
    return fig, fig.add_subplot()


def legend_below(fig: Figure, ax: Axes) -> None:
    """A legend below the axes, where it covers nothing."""
    handles, names = ax.get_legend_handles_labels()
    widths = [52 + 6 * len(name) for name in names]  # points
    if names:
        columns = len(names) if sum(widths) <= 72 * WIDTH else max(1, int(72 * WIDTH) // max(widths))
        fig.legend(handles, names, loc="outside lower center", ncols=columns)


def scale_axis(ax: Axes, values: Sequence[float]) -> str:
    """Choose the scale and the ticks of the x-axis for the values that were tried, sorted.

    Returns:
        What to add to the axis' label.
    """
    positive = [value for value in values if value > 0]
    ratios = [high / low for low, high in itertools.pairwise(positive)]
    wide = bool(ratios) and positive[-1] >= 10 * positive[0]
    geometric = len(ratios) > 1 and min(ratios) >= 1.5 and max(ratios) <= 1.3 * min(ratios)
    kind = "linear"
    if wide or geometric:
        kind = "log" if values[0] > 0 else "symlog" if values[0] == 0 else "linear"
    ax.set_xscale(kind, **({"linthresh": positive[0], "linscale": 0.5} if kind == "symlog" else {}))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show_value(value)))
    if len(values) <= MOST_CELLS:
        places = [float(place) for place in ax.xaxis.get_transform().transform(values)]
        kept = [0]
        for index, value in enumerate(values):
            letters = (len(show_value(value)) + len(show_value(values[kept[-1]]))) / 2
            if places[index] - places[kept[-1]] > (0.03 + 0.016 * letters) * (places[-1] - places[0]):
                kept.append(index)
        ax.set_xticks([values[index] for index in kept])
    return {"linear": "", "log": " (log scale)", "symlog": " (log scale, and 0)"}[kind]


def scale_levels(ax: Axes, criterion: Criterion, free: float = 0.0) -> None:
    """Choose the scale and the ticks of the y-axis for the figures that are drawn; shares are in %.

    Args:
        ax: the axes.
        criterion: which figure they are.
        free: the fraction of the height to leave empty below them.
    """
    low, high = ax.dataLim.intervaly if ax.has_data() else (0, 0)
    by_error = is_by_error(criterion, low, high)
    if is_by_magnitude(criterion, low, high):
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    if by_error:
        ax.set_yscale("function", functions=BY_ERROR)
        ax.yaxis.set_minor_locator(NullLocator())
    transform = ax.yaxis.get_transform()
    bottom, top = transform.transform([low, high])
    span = (top - bottom or 1.0) / (0.9 - free)
    margin = 0.05 * span
    limits = [bottom - margin - free * span, bottom - margin, top + margin]
    lowest, low, high = transform.inverted().transform(limits)
    ax.set_ylim(lowest, high)
    low, high = (max(0, low), min(100, high)) if criterion.is_share else (low, high)
    kept = ticks_by_error(low, high) if by_error else [tick for tick in ax.get_yticks() if low <= tick <= high]
    ax.yaxis.set_major_locator(FixedLocator(kept))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show_value(float(value))))
    ax.set_ylabel(axis_label(criterion) + ("\nlog scale of the error" if by_error else ""))


def is_by_error(criterion: Criterion, low: float, high: float) -> bool:
    """Whether figures between these are drawn by the logarithm of their error."""
    return criterion.is_share and high - low > FAR_APART


def is_by_magnitude(criterion: Criterion, low: float, high: float) -> bool:
    """Whether figures between these, such as losses, are drawn by their own logarithm."""
    return not criterion.is_share and 0 < low < high / FAR_TIMES


def ticks_by_error(low: float, high: float) -> list[float]:
    """Round accuracies in % for a logarithmic axis, no two closer than their labels are high."""
    room = 0.05 * (log_error(high) - log_error(low))
    kept: list[float] = []
    for tick in reversed(ERROR_TICKS):
        if low <= tick <= high and (not kept or log_error(kept[-1]) - log_error(tick) > room):
            kept.append(tick)
    return kept[::-1]


def groups_by(table: SweepTable, keys: Sequence[str]) -> dict[str, list[Group]]:
    """Groups by their values of ``keys``; sorted if that is one number."""
    found: dict[str, list[Group]] = {}
    for group in table.groups:
        found.setdefault(settings_label(table, group, keys), []).append(group)
    if len(keys) == 1 and keys[0] in table.numbers:
        return dict(sorted(found.items(), key=lambda item: identity(item[1][0].settings[keys[0]])))
    return found


def settings_label(table: SweepTable, group: Group, keys: Sequence[str]) -> str:
    """A group's values of ``keys``, short enough for a label."""
    return ", ".join(truncate(f"{short_key(table, key)}={show_value(group.settings[key])}") for key in keys)


def short_key(table: SweepTable, key: str) -> str:
    """The last part of a key, unless another varied key has the same."""
    last = [other.rpartition(".")[2] for other in table.varied]
    name = key.rpartition(".")[2]
    return name if last.count(name) == 1 else key


def mean_curve(group: Group, scale: float) -> list[tuple[int, float, float]]:
    """Epoch, mean and sample standard deviation of the curves times ``scale``, over the counted seeds or else all."""
    curves = [job.curve for job in group.counted or group.jobs if job.curve]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    by_epoch = [(epoch, [scale * curve[epoch] for curve in curves]) for epoch in epochs]
    return [
        (epoch, statistics.fmean(shares), statistics.stdev(shares) if len(shares) > 1 else 0.0)
        for epoch, shares in by_epoch
    ]


def scale_of(criterion: Criterion) -> float:
    """What a figure is multiplied by before it is drawn: shares are drawn in %."""
    return 100.0 if criterion.is_share else 1.0


def heading(criterion: Criterion) -> str:
    """A figure as the beginning of a title; a callback's as it is logged."""
    return criterion.words if "/" in criterion.words else criterion.words.capitalize()


def axis_label(criterion: Criterion) -> str:
    """A figure as the label of an axis."""
    return criterion.words + (" (%)" if criterion.is_share else "")


def level(group: Group | None) -> float:
    """The mean of the figure that ranks, shares in %; NaN where there is none."""
    return scale_of(group.criterion) * group.value if isinstance(group, RankedGroup) else math.nan


def level_std(group: Group) -> float:
    """Its sample standard deviation over seeds; 0 where it is unknown."""
    return scale_of(group.criterion) * (group.value_std or 0.0) if isinstance(group, RankedGroup) else 0.0


def short_level(group: RankedGroup, value: float) -> str:
    """A figure of a group, or its spread, for a place with little room."""
    return f"{value:.1f}" if group.criterion.is_share else f"{value:.3g}"


def error_bars(groups: Sequence[Group]) -> list[float] | None:
    """The standard deviations for matplotlib, NaN where there is none; None where all are 0, or it draws their caps."""
    return [level_std(group) or math.nan for group in groups] if any(map(level_std, groups)) else None


def level_label(group: Group) -> str:
    """A group's figure as text, or why it has none."""
    if not isinstance(group, RankedGroup):
        return status_label(group)
    return group.criterion.shown(group.value, group.value_std)


def status_label(group: Group | None) -> str:
    """Why a group has no accuracy, in a word or two."""
    status = min((job.status for job in group.jobs), key=STATUSES.index) if group else "not started"
    return {"not started": "not run", "interrupted": "stopped"}.get(status, status)


def truncate(text: str, longest: int = LONGEST_LABEL) -> str:
    """Text that fits into a chart."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
