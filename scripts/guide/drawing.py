"""How the pictures of docs/guide look: sizes, colours, titles that state a finding, lines named where they end."""

import itertools
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from fmnist_lit.sweep.values import show_value

# Okabe and Ito's colours, which colour-blind people tell apart
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILLION, PURPLE, GREY = (
    *("#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7", "#8A8F98"),
)
FORMULA = "computed from the formula; no training"  # small print
STYLE = {
    "font.size": 11,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 11,
    "grid.alpha": 0.3,
    "lines.linewidth": 2,
    "lines.markersize": 5,
}


def canvas(height: float = 4.0, columns: int = 1, rows: int = 1, **options: object) -> tuple[Figure, np.ndarray]:
    """A figure 7 inches wide, 1,120 pixels, and its axes as an array (rows, columns)."""
    fig = Figure(figsize=(7, height), dpi=160, layout="constrained")
    FigureCanvasAgg(fig)
    return fig, fig.subplots(rows, columns, squeeze=False, **options)


def finish(fig: Figure, title: str, *small_print: str) -> Figure:
    """What was found, above; what it was found on, below."""
    lines, below = title.split("\n"), textwrap.wrap("; ".join(small_print), 108)
    height = fig.get_figheight()
    above, below_share = (0.16 + 0.235 * len(lines)) / height, (0.12 + 0.15 * len(below)) / height
    fig.get_layout_engine().set(rect=(0, below_share, 1, 1 - above - below_share), w_pad=0.06, h_pad=0.06)
    fig.text(0.012, 1 - 0.07 / height, title, va="top", fontsize=13, fontweight="bold", linespacing=1.25)
    fig.text(0.012, 0.06 / height, "\n".join(below), va="bottom", fontsize=8.5, color="#666666")
    return fig


def label_ends(ax: Axes, ends: Sequence[tuple[float, str, str]], gap: float = 0.075) -> None:
    """Name lines to the right of the axes, at their last heights (data), moved apart where they would touch."""
    to_axes = ax.transData + ax.transAxes.inverted()
    middle = ax.get_xlim()[0]
    placed = sorted((to_axes.transform((middle, y))[1], name, colour) for y, name, colour in ends)
    heights = [height for height, _, _ in placed]
    for _ in range(200):  # push neighbours apart until none touch
        for low, high in itertools.pairwise(range(len(heights))):
            if (overlap := gap - (heights[high] - heights[low])) > 1e-4:
                heights[low] -= overlap / 2
                heights[high] += overlap / 2
    for height, (_, name, colour) in zip(heights, placed, strict=True):
        ax.text(1.015, height, name, color=colour, transform=ax.transAxes, va="center", fontsize=10.5)


def log_ticks(ax: Axes, values: Sequence[float]) -> None:
    """A logarithmic x-axis with a tick at each value that was tried."""
    ax.set_xscale("log")
    ax.set_xticks(values, [show_value(value) for value in values])
    ax.xaxis.set_minor_locator(NullLocator())


def ring(ax: Axes, x: float, y: float, colour: str) -> None:
    """Mark the best point of a line."""
    ax.plot(x, y, "o", ms=11, mfc="none", mec=colour, mew=2)


def note(ax: Axes, x: float, y: float, words: str, colour: str = BLACK, **options: object) -> None:
    """Words in the picture at a point in data coordinates."""
    ax.text(x, y, words, color=colour, fontsize=10, **{"va": "center", **options})


def cells(ax: Axes, grid: np.ndarray, columns: Sequence[str], rows: Sequence[str], floor: float) -> None:
    """A heat map of accuracies in % with a figure in each cell; colours begin at ``floor``, NaN is hatched."""
    ax.grid(False)
    image = ax.imshow(grid, origin="lower", aspect="auto", cmap="viridis", vmin=floor, vmax=np.nanmax(grid))
    for (row, column), value in np.ndenumerate(grid):
        if np.isnan(value):
            ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor="#EEE", edgecolor="#999", hatch="///"))
        words = "diverged" if np.isnan(value) else f"{value:.1f}"
        colour = "black" if np.isnan(value) or image.norm(value) > 0.55 else "white"
        ax.text(column, row, words, ha="center", va="center", color=colour, fontsize=8 if np.isnan(value) else 10.5)
    ax.set_xticks(range(len(columns)), columns)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)


def frame(ax: Axes, column: int, row: int) -> None:
    """Frame a cell of a heat map."""
    ax.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, ec=VERMILLION, lw=3, zorder=3, clip_on=False))
