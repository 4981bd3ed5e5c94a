"""Charts as PNG: one style for all of them, and no state that pyplot or another part of the program could see."""

import contextlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH = 6.4  # inches
DOTS_PER_INCH = 160  # with WIDTH, letters of 11 points are legible where a page shows the chart 700 pixels wide
STYLE: dict[Any, Any] = {  # matplotlib's own type lists all keys
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
MUTED = "#B4BAC2"


@dataclass(frozen=True)
class Chart:
    """A chart that has been drawn: the name of its file, a caption that says what it shows, and the PNG."""

    name: str
    caption: str
    png: bytes


@contextlib.contextmanager
def chart_style() -> Iterator[None]:
    """Draw in STYLE, whatever a matplotlibrc says; warnings, such as of a letter that the font lacks, are dropped."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def canvas(height: float, width: float = WIDTH, dots_per_inch: int = DOTS_PER_INCH) -> Figure:
    """An empty figure, in inches, that pyplot does not know."""
    figure = Figure(figsize=(width, height), dpi=dots_per_inch, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: Figure) -> bytes:
    """A figure as PNG, without matplotlib's version in it."""
    content = io.BytesIO()
    figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()
