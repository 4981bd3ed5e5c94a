"""What the guide shows: each picture and each measured text by its name, registered by the chapter that makes it."""

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

FIGURES: dict[str, Callable[[], Figure]] = {}
TEXTS: dict[str, Callable[[], str]] = {}


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function that draws the picture of its name."""
    FIGURES[draw.__name__] = draw
    return draw


def text(write: Callable[[], str]) -> Callable[[], str]:
    """Register a function that writes the measured text of its name, in Markdown."""
    TEXTS[write.__name__] = write
    return write


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, all columns but the first to the right."""
    ruler = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, ruler, *rows))
