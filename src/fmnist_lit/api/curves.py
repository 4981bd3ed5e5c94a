"""Accuracy and loss by epoch, as a figure that notebooks show."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fmnist_lit.report.charts import BEST, COLOURS, DOTS_PER_INCH, chart_style, to_png

SPLITS = dict(zip(("train", "val", "test"), COLOURS, strict=False))
WORDS = {"train": "training", "val": "validation", "test": "test"}
MOST_DOTS = 30  # epochs of which each is marked


class NotebookFigure(Figure):
    """A figure that a notebook shows although pyplot, which may not be imported, does not know it."""

    def _repr_png_(self) -> bytes:
        with chart_style():
            return to_png(self)


def draw_curves(metrics: Sequence[Mapping[str, Any]], title: str, best_epoch: int | None = None) -> Figure:
    """The curves of a run.

    Args:
        metrics: a row an epoch, as ``Run.metrics``.
        title: says which data they are of.
        best_epoch: the epoch whose weights are kept, to be marked.
    """
    with chart_style():
        figure = NotebookFigure(figsize=(9.6, 3.6), dpi=DOTS_PER_INCH, layout="constrained")
        FigureCanvasAgg(figure)
        accuracy, loss = figure.subplots(1, 2)
        draw_figure_by_epoch(accuracy, metrics, "accuracy", 100, best_epoch)
        draw_figure_by_epoch(loss, metrics, "loss", 1, best_epoch)
        accuracy.set_ylabel("accuracy (%)")
        loss.set_ylabel("average loss")
        if metrics:
            accuracy.legend(loc="best")
        figure.suptitle(textwrap.shorten(title, 100, placeholder=" …"), fontsize=11)
    return figure


def draw_figure_by_epoch(
    ax: Axes, metrics: Sequence[Mapping[str, Any]], kind: str, factor: float, best_epoch: int | None
) -> None:
    """Draw accuracy or loss, a line a split; the best epoch's validation figure is ringed."""
    for split, colour in SPLITS.items():
        points = {row["epoch"]: factor * value for row in metrics if (value := row.get(f"{split}_{kind}")) is not None}
        if points:
            marker = "o" if len(points) <= MOST_DOTS else None
            ax.plot(list(points), list(points.values()), color=colour, marker=marker, markersize=4, label=WORDS[split])
        if split == "val" and best_epoch is not None and best_epoch in points:
            ax.plot(best_epoch, points[best_epoch], "o", markersize=11, mfc="none", mec=BEST, mew=1.8)
    ax.set_xlabel("epoch" if metrics else "no epoch has ended yet")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
