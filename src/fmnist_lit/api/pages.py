"""What a notebook shows of a run and of a sweep: HTML that needs no other file, no network and no script."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fmnist_lit.report.tables import Rows, escape_html

if TYPE_CHECKING:  # matplotlib is imported only to draw
    from matplotlib.figure import Figure


def page_of_run(told: str, figure: "Figure | None") -> str:
    """What is told of a run, and its curves where it has any."""
    from fmnist_lit.report.charts import to_png

    shown = "" if figure is None else picture(to_png(figure), "Accuracy and loss by epoch")
    return f"<div><pre>{escape_html(told)}</pre>{shown}</div>"


def page_of_sweep(title: str, verdict: str, rows: Rows, pictures: Sequence[Path]) -> str:
    """A sweep's verdict, table and pictures."""
    shown = "".join(picture(file.read_bytes(), file.stem) for file in pictures)
    head = f"<p><strong>{escape_html(title)}</strong></p><pre style='white-space:pre-wrap'>{escape_html(verdict)}</pre>"
    return f"<div>{head}{plain_table(rows)}{shown}</div>"


def picture(png: bytes, words: str) -> str:
    """A picture within the page."""
    source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f'<img src="{source}" alt="{escape_html(words)}" style="width:100%;max-width:48em">'


def plain_table(rows: Rows) -> str:
    """A table; a notebook has a style of its own for it."""
    if not rows:
        return "<p>No job is known yet.</p>"
    head = "".join(f"<th>{escape_html(name)}</th>" for name in rows[0])
    body = "".join(f"<tr>{''.join(f'<td>{escape_html(cell.text)}</td>' for cell in row.values())}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
