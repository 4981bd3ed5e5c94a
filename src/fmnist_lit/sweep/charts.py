"""The pictures of a sweep: validation accuracy against what varied, and over epochs."""

import io
import itertools
import math
import statistics
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import FuncNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from fmnist_lit.config.rules import DATASETS
from fmnist_lit.run.names import slug
from fmnist_lit.sweep.jobs import STATUSES
from fmnist_lit.sweep.table import Group, Table
from fmnist_lit.sweep.values import identity, is_number, show

WIDTH = 6.4  # inches; with 160 dots each, 700 pixels still show a letter of 11 points 16 pixels high
STYLE = {
    "font.size": 11,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "grid.alpha": 0.35,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "text.parse_math": False,  # a $ in a value is a $
}
# Okabe and Ito's colours, which colour-blind people tell apart; the first is kept for the best
BEST, *COLOURS = "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F", "#8C4A2F"
MARKERS = "osD^vP*p"
MUTED = "#B4BAC2"
CROSS = {"marker": "x", "markersize": 8, "mew": 2.2, "linestyle": "none"}
# Accuracies in % by the logarithm of their error: what fails must not press what works into a line. 0.1 for 100 %.
BY_ERROR = (lambda share: -np.log(np.maximum(100.1 - share, 1e-9)), lambda place: 100.1 - np.exp(-place))
ERROR_TICKS = (0, 10, 20, 30, 40, 50, 60, 70, 75, 80, 83, 86, 88, 90, 92, 94, 95, 96, 97, 98, 99, 99.5, 99.9)
FAR_APART = 25  # points of accuracy
MOST_LINES, MOST_CELLS, MOST_BARS, LONGEST_LABEL = len(COLOURS), 14, 20, 42


@dataclass(frozen=True)
class Picture:
    """A picture of the summary: the name of its file, a caption that says what is seen, and the PNG."""

    name: str
    caption: str
    png: bytes


def draw(table: Table) -> list[Picture]:
    """The pictures that a sweep gives, the most telling first; none where nothing is ranked."""
    if not table.ranked:
        return []
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as a letter that the font lacks
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        return list(pictures(table))


def pictures(table: Table) -> Iterator[Picture]:
    """Draw them one after another."""
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
    if any(job.curve for job in table.jobs):
        yield over_epochs(table)


def heat_map(table: Table, x: str, y: str) -> Picture:
    """Validation accuracy by two numbers; a cell without one is hatched and says why."""
    columns, rows = table.values(x), table.values(y)
    cells: dict[tuple[Any, Any], Group] = {}
    for group in table.groups:  # the best first
        cells.setdefault((identity(group.settings[x]), identity(group.settings[y])), group)
    fig, ax = canvas(height=1.7 + 0.45 * len(rows))
    ax.grid(False)
    grid = [[cells.get((identity(column), identity(row))) for column in columns] for row in rows]
    shares = np.array([[accuracy(group) for group in row] for row in grid])
    low, high = np.nanmin(shares), np.nanmax(shares)
    norm = FuncNorm(BY_ERROR, low, high) if high - low > FAR_APART else None
    image = ax.imshow(shares, norm=norm, origin="lower", aspect="auto", cmap="viridis")
    bar = fig.colorbar(image, ax=ax, label="accuracy (%)", ticks=ticks_by_error(low, high) if norm else None)
    bar.ax.yaxis.set_minor_locator(NullLocator())
    for (i, row), j in itertools.product(enumerate(grid), range(len(columns))):
        if row[j] and row[j].rank:
            text = f"{accuracy(row[j]):.1f}" + (f"\n±{spread(row[j]):.1f}" if row[j].n > 1 else "")
            colour, box = "black" if image.norm(accuracy(row[j])) > 0.55 else "white", None
        else:
            text = ending(row[j])
            colour, box = "black", {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, facecolor="#EEE", edgecolor="#999", hatch="///"))
        # points: the width of a cell, by that of a letter
        size = min(11, 310 / len(columns) / (0.65 * max(map(len, text.split("\n")))))
        ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=size, bbox=box)
        if row[j] and row[j].rank == 1:
            ax.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, ec=BEST, lw=3.5, zorder=3, clip_on=False))
    ax.set_xticks(range(len(columns)), map(show, columns), rotation=45 if len(columns) > 9 else 0)
    ax.set_yticks(range(len(rows)), map(show, rows))
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    title = f"Validation accuracy by {short(table, x)} and {short(table, y)}"
    return finish(fig, table, f"heatmap_{x}_{y}", title, [x, y], "the best is framed")


def against_number(table: Table, key: str) -> Picture:
    """Validation accuracy against a number, with lines by what else varied, or the best of it where that is much."""
    others = [other for other in (*table.categories, *table.numbers) if other != key]
    many_first = sorted(others, key=lambda other: -len(table.values(other)))
    choices = [others, *([other] for other in many_first), []]
    by = next(keys for keys in choices if len(alike(table, keys)) <= MOST_LINES)
    is_line = not others or 2 * len(table.values(key)) <= len(table.groups)  # otherwise a random search: points
    fig, ax = canvas(height=4.6)
    lines = alike(table, by)
    palette = COLOURS
    if len(by) == 1 and by[0] in table.numbers:  # shades that have an order, as the numbers have
        palette = matplotlib.colormaps["viridis"]([0.88 * index / (len(lines) - 1) for index in range(len(lines))])
    diverged: dict[int, list[float]] = {}
    for index, (name, groups) in enumerate(lines.items()):
        points: dict[Any, Group] = {}
        for group in groups:  # the best first
            if is_number(group.settings[key]):
                points.setdefault(identity(group.settings[key]) if is_line else group, group)
        drawn = sorted((group for group in points.values() if group.rank), key=lambda group: group.settings[key])
        ax.errorbar(
            [group.settings[key] for group in drawn],
            [accuracy(group) for group in drawn],
            spreads(drawn),
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
    ring = {
        "marker": "o",
        "markersize": 17,
        "mfc": "none",
        "mec": BEST,
        "mew": 2.2,
        "linestyle": "none",
        "zorder": 5,
        "clip_on": False,
    }
    if is_number(best.settings[key]):
        ax.plot(best.settings[key], accuracy(best), **ring, label=f"best: {accuracy(best):.1f} %")
    ax.margins(x=0.07)
    scale_accuracies(ax, free=0.05 * len(diverged))
    if diverged:  # in rows of their own below the lines
        for row, (index, values) in enumerate(diverged.items()):
            height = [0.03 + 0.045 * row] * len(values)
            ax.plot(values, height, **CROSS, color=palette[index], transform=ax.get_xaxis_transform())
        ax.plot([], [], **CROSS, color="black", label="diverged")
    scale = scale_axis(ax, table.values(key))
    ax.set_xlabel(f"{key}{scale}")
    legend(fig, ax)
    told = [key, *by] if is_line else None
    return finish(fig, table, f"accuracy_{key}", f"Validation accuracy by {short(table, key)}", told)


def against_category(table: Table, key: str) -> Picture:
    """A bar for each option, with the best of whatever else varied; the best on top."""
    bars: dict[Any, Group] = {}
    for group in table.groups:  # the best first
        bars.setdefault(identity(group.settings[key]), group)
    shown = list(bars.values())[:MOST_BARS][::-1]
    fig, ax = canvas(height=1.7 + 0.45 * len(shown))
    lowest = min(accuracy(group) - spread(group) for group in shown if group.rank)
    start = max(0, 10 * math.floor(lowest / 10 - 0.5)) if lowest > 50 else 0  # from 0, high bars look all the same
    ax.barh(
        range(len(shown)),
        [accuracy(group) - start if group.rank else 0 for group in shown],
        left=start,
        xerr=spreads(shown),
        color=[BEST if group.rank == 1 else MUTED for group in shown],
        capsize=4,
    )
    ax.set_yticks(range(len(shown)), [clip(show(group.settings[key]), 28) for group in shown])
    figures = ax.secondary_yaxis("right")
    tuned = [other for other in (*table.numbers, *table.categories) if other != key]
    names = [name_of(table, group, tuned) if group.rank else "" for group in shown]
    texts = [figure_of(group) + f"\n{name}" * (0 < len(name) <= 30) for group, name in zip(shown, names, strict=True)]
    figures.set_yticks(range(len(shown)), texts, fontsize=10)
    for axis in (ax, figures):
        axis.tick_params(axis="y", length=0)
    figures.spines["right"].set_visible(False)
    ax.grid(False, axis="y")
    ax.set_xlabel("validation accuracy (%)" + (f", from {start} % on" if start else ""))
    return finish(fig, table, f"bars_{key}", f"Validation accuracy by {short(table, key)}", [key])


def over_seeds(table: Table) -> Picture:
    """The validation accuracy of each seed, with their mean and standard deviation."""
    group = table.ranked[0]
    values = sorted(100 * value for value in group.figures("val_accuracy"))
    fig, ax = canvas(height=3.4)
    mean, std = accuracy(group), spread(group)
    ax.axhspan(mean - std, mean + std, color=MUTED, alpha=0.4, lw=0, label=f"± {std:.2f} standard deviation")
    ax.axhline(mean, color=BEST, lw=2, label=f"mean {mean:.2f} %")
    ax.plot(range(1, len(values) + 1), values, "o", color=COLOURS[0], label="a seed")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("seeds, from the worst to the best")
    ax.set_ylabel("validation accuracy (%)")
    legend(fig, ax)
    return finish(fig, table, "seeds", "Validation accuracy by seed", [])


def over_epochs(table: Table) -> Picture:
    """Validation accuracy after each epoch: the best in front, the others muted."""
    fig, ax = canvas(height=4.6)
    curves = {group: mean_curve(group) for group in table.groups}
    others = [group for group in table.groups[::-1] if curves[group] and group.rank != 1]
    width = max(0.5, 1.4 - len(others) / 50)
    for group in others:
        ended = group.rank is None
        epochs, means, _ = zip(*curves[group], strict=True)
        dot = "." if len(epochs) == 1 or len(epochs) * len(others) < 300 else None
        ax.plot(epochs, means, "--" if ended else "-", color=MUTED, lw=width, marker=dot)
        if ended:
            ax.plot(epochs[-1], means[-1], **CROSS, color="#6B7280")
    if others:
        ax.plot([], [], color=MUTED, lw=1.3, label=f"{len(others)} other{'s' * (len(others) > 1)}")
    if any(group.rank is None for group in others):
        ax.plot([], [], "--", color=MUTED, marker="x", mec="#6B7280", mew=2.2, label="diverged or not finished")
    best = table.ranked[0]
    if curves[best]:
        epochs, means, stds = zip(*curves[best], strict=True)
        low, high = ([mean + sign * std for mean, std in zip(means, stds, strict=True)] for sign in (-1, 1))
        ax.fill_between(epochs, low, high, color=BEST, alpha=0.2, lw=0)
        name = clip(name_of(table, best, table.parameters), 60)
        ax.plot(epochs, means, "o-", color=BEST, lw=2.6, ms=5 if len(epochs) < 30 else 0, label=name or "mean")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("epoch")
    scale_accuracies(ax)
    legend(fig, ax)
    note = "the best in front" if others else ""
    return finish(fig, table, "curves", "Validation accuracy over epochs", table.parameters, note)


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure and its axes, apart from any that pyplot knows."""
    fig = Figure(figsize=(WIDTH, min(height, 9)), dpi=160, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.add_subplot()


def finish(fig: Figure, table: Table, name: str, title: str, told: Sequence[str] | None, note: str = "") -> Picture:
    """Put a title above, with the data set and what was done to keys that are not ``told``, and render it."""
    tuned = [key for key in (*table.numbers, *table.categories) if told is not None and key not in told]
    seeds = max(group.n for group in table.ranked)
    notes = [
        DATASETS.get(table.datasets[0], table.datasets[0]),
        f"each with its best {', '.join(tuned)}" if tuned else "",
        f"mean ± standard deviation of {seeds} seeds" if seeds > 1 else "",
        note,
    ]
    subtitle = "; ".join(filter(None, notes))
    lines = textwrap.wrap(subtitle, 90)
    height = fig.get_figheight()
    fig.get_layout_engine().set(rect=(0, 0, 1, 1 - (0.34 + 0.17 * len(lines)) / height))
    fig.text(0.012, 1 - 0.07 / height, clip(title, 60), va="top", fontsize=12.5, fontweight="bold")
    fig.text(0.012, 1 - 0.32 / height, "\n".join(lines), va="top", fontsize=9.5, color="#555555")
    content = io.BytesIO()
    fig.savefig(content, format="png", metadata={"Software": None})
    return Picture(slug(name), f"{title} ({subtitle})", content.getvalue())


def legend(fig: Figure, ax: Axes) -> None:
    """A legend below the axes, where it covers nothing."""
    handles, names = ax.get_legend_handles_labels()
    widths = [52 + 6 * len(name) for name in names]  # points
    if names:
        columns = len(names) if sum(widths) <= 72 * WIDTH else max(1, int(72 * WIDTH) // max(widths))
        fig.legend(handles, names, loc="outside lower center", ncols=columns)


def scale_axis(ax: Axes, values: Sequence[float]) -> str:
    """Choose the x-axis' scale and ticks for numbers as tried, sorted; returns what to add to its label."""
    positive = [value for value in values if value > 0]
    ratios = [high / low for low, high in itertools.pairwise(positive)]
    wide = bool(ratios) and positive[-1] >= 10 * positive[0]
    geometric = len(ratios) > 1 and min(ratios) >= 1.5 and max(ratios) <= 1.3 * min(ratios)
    kind = "linear"
    if wide or geometric:
        kind = "log" if values[0] > 0 else "symlog" if values[0] == 0 else "linear"
    ax.set_xscale(kind, **({"linthresh": positive[0], "linscale": 0.5} if kind == "symlog" else {}))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    if len(values) <= MOST_CELLS:
        places = [float(place) for place in ax.xaxis.get_transform().transform(values)]
        kept = [0]
        for index, value in enumerate(values):
            letters = (len(show(value)) + len(show(values[kept[-1]]))) / 2
            if places[index] - places[kept[-1]] > (0.03 + 0.016 * letters) * (places[-1] - places[0]):
                kept.append(index)
        ax.set_xticks([values[index] for index in kept])
    return {"linear": "", "log": " (log scale)", "symlog": " (log scale, and 0)"}[kind]


def scale_accuracies(ax: Axes, free: float = 0.0) -> None:
    """Choose the y-axis' scale and ticks for what is drawn, accuracies in %; ``free`` is the share below it."""
    low, high = ax.dataLim.intervaly if ax.has_data() else (0, 0)
    by_error = high - low > FAR_APART
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
    low, high = max(0, low), min(100, high)
    kept = ticks_by_error(low, high) if by_error else [tick for tick in ax.get_yticks() if low <= tick <= high]
    ax.yaxis.set_major_locator(FixedLocator(kept))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: show(float(value))))
    ax.set_ylabel("validation accuracy (%)" + ("\nlog scale of the error" if by_error else ""))


def ticks_by_error(low: float, high: float) -> list[float]:
    """Round accuracies in % in a range, from the highest on, no two closer than a letter is high."""
    place, _ = BY_ERROR
    kept: list[float] = []
    for tick in reversed(ERROR_TICKS):
        if low <= tick <= high and (not kept or place(kept[-1]) - place(tick) > 0.05 * (place(high) - place(low))):
            kept.append(tick)
    return kept[::-1]


def alike(table: Table, keys: Sequence[str]) -> dict[str, list[Group]]:
    """Groups that agree in ``keys``, by what they agree in; sorted if that is a number."""
    found: dict[str, list[Group]] = {}
    for group in table.groups:
        found.setdefault(name_of(table, group, keys), []).append(group)
    if len(keys) == 1 and keys[0] in table.numbers:
        return dict(sorted(found.items(), key=lambda item: identity(item[1][0].settings[keys[0]])))
    return found


def name_of(table: Table, group: Group, keys: Sequence[str]) -> str:
    """Settings in few words."""
    return ", ".join(clip(f"{short(table, key)}={show(group.settings[key])}") for key in keys)


def short(table: Table, key: str) -> str:
    """The last part of a key, where it is not that of another one too."""
    last = [other.rpartition(".")[2] for other in table.varied]
    name = key.rpartition(".")[2]
    return name if last.count(name) == 1 else key


def mean_curve(group: Group) -> list[tuple[int, float, float]]:
    """Epoch, mean and sample standard deviation of the validation accuracy in %, over the seeds that count, or all."""
    curves = [job.curve for job in group.counted or group.jobs if job.curve]
    epochs = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    by_epoch = [(epoch, [100 * curve[epoch] for curve in curves]) for epoch in epochs]
    return [
        (epoch, statistics.fmean(shares), statistics.stdev(shares) if len(shares) > 1 else 0.0)
        for epoch, shares in by_epoch
    ]


def accuracy(group: Group | None) -> float:
    """Mean validation accuracy in %; NaN where there is none."""
    return 100 * group.mean("val_accuracy") if group and group.rank else math.nan


def spread(group: Group) -> float:
    """Sample standard deviation of the validation accuracy over seeds in %; 0 where it is unknown."""
    return 100 * (group.std("val_accuracy") or 0.0)


def spreads(groups: Sequence[Group]) -> list[float] | None:
    """Error bars: NaN draws none, and where there are none at all not even their ends."""
    return [spread(group) or math.nan for group in groups] if any(map(spread, groups)) else None


def figure_of(group: Group) -> str:
    """A group's validation accuracy in words, or why it has none."""
    if not group.rank:
        return ending(group)
    return f"{accuracy(group):.2f} %" if group.n < 2 else f"{accuracy(group):.2f} ± {spread(group):.2f} %"


def ending(group: Group | None) -> str:
    """Why a group has no figure, in a short word or two."""
    status = min((job.status for job in group.jobs), key=STATUSES.index) if group else "not started"
    return {"not started": "not run", "interrupted": "stopped"}.get(status, status)


def clip(text: str, longest: int = LONGEST_LABEL) -> str:
    """Text that fits into a picture."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
