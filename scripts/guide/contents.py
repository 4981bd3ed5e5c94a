"""What the guide shows: each picture and each measured text by its name, registered by the chapter that makes it."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure


class Bilingual(NamedTuple):
    """The same words, with the same figures in the same order, in each language of the guide."""

    english: str
    chinese: str


class MeasuredText(NamedTuple):
    """What is measured in runs, as plain values, and what is written of it: the second needs no run."""

    measure: Callable[[], Any]
    write: Callable[[Any], Bilingual]


FIGURES: dict[str, Callable[[], Figure]] = {}
TEXTS: dict[str, MeasuredText] = {}
VALIDATION, TEST = Bilingual("validation", "验证"), Bilingual("test", "测试")  # heads of many tables


def figure(draw: Callable[[], Figure]) -> Callable[[], Figure]:
    """Register a function that draws the picture of its name."""
    FIGURES[draw.__name__] = draw
    return draw


def text(measure: Callable[[], Any]) -> Callable[[Callable[[Any], Bilingual]], Callable[[Any], Bilingual]]:
    """Register a function that writes, in Markdown, the text of its name from what ``measure`` measures."""

    def register(write: Callable[[Any], Bilingual]) -> Callable[[Any], Bilingual]:
        TEXTS[write.__name__] = MeasuredText(measure, write)
        return write

    return register


def markdown_table(header: Sequence[str | Bilingual], rows: Sequence[Sequence[str | Bilingual]]) -> Bilingual:
    """A Markdown table in each language, all columns but the first to the right; a plain string is for both."""
    ruler = ["---", *["---:"] * (len(header) - 1)]

    def table(language: str) -> str:
        lines = [[getattr(cell, language, cell) for cell in line] for line in (header, ruler, *rows)]
        return "\n".join("| " + " | ".join(line) + " |" for line in lines)

    return Bilingual(table("english"), table("chinese"))
