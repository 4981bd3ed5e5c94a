"""Tables in Markdown, and text escaped for Markdown and HTML."""

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, and the number that it stands for, if it does."""

    text: str
    number: float | None = None


Rows = list[dict[str, Cell]]


def markdown_table(rows: Rows) -> str:
    """A table whose columns also line up as plain text, numbers to the right."""
    if not rows:
        return "No job is known yet."
    columns = []
    for name in rows[0]:
        texts = [name, *(escape_markdown(row[name].text) for row in rows)]
        is_numeric = any(row[name].number is not None for row in rows)
        width = max(3, *map(len, texts))
        texts.insert(1, "-" * (width - 1) + (":" if is_numeric else "-"))
        columns.append([text.rjust(width) if is_numeric else text.ljust(width) for text in texts])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def escape_html(text: str) -> str:
    """Text for HTML, in an element or in a quoted attribute."""
    return html.escape(text, quote=True)


def escape_markdown(text: str) -> str:
    """Text for Markdown, in one line, in a table or outside."""
    text = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for special in ("|", "*", "`", "]("):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
