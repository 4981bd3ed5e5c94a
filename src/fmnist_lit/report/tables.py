"""Tables in Markdown and HTML, and figures as people read them."""

import html
from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What people read, and what it is sorted by if that is a number."""

    text: str
    number: float | None = None


Rows = list[dict[str, Cell]]


def markdown_table(rows: Rows) -> str:
    """A table whose columns line up as plain text too, numbers to the right."""
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


def html_table(caption: str, rows: Rows) -> str:
    """A table that sorts by a click on a header."""
    if not rows:
        return "<p>No job is known yet.</p>"
    names = [name for name in rows[0] if name != "reason"]  # it goes with the status, where there is room
    head = "".join(html_header(name, any(row[name].number is not None for row in rows)) for name in names)
    body = "\n".join(f"<tr>{''.join(html_cell(name, row) for name in names)}</tr>" for row in rows)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(caption)}">\n'
        f"<table><caption>{escape(caption)}</caption>\n"
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>"
    )


def html_header(name: str, is_numeric: bool) -> str:
    """A header to click on, or to reach with the tab key; long keys may break after a dot."""
    text = escape(name).replace(".", ".<wbr>")
    kind = ' class="number"' if is_numeric else ""
    sort = ' aria-sort="ascending"' if name == "rank" else ""  # as the rows come
    return f'<th scope="col"{kind}{sort}><button type="button">{text}</button></th>'


def html_cell(name: str, row: dict[str, Cell]) -> str:
    """A cell with what the page's script sorts by."""
    text = escape(row[name].text)
    if row[name].number is not None:
        return f'<td class="number" data-number="{row[name].number!r}">{text}</td>'
    if name == "status":
        reason = f"<small>{escape(row['reason'].text)}</small>" if "reason" in row else ""
        return f'<td class="status {text.replace(" ", "-")}"><span>{text}</span>{reason}</td>'
    return f"<td>{text}</td>"


def escape(text: str) -> str:
    """Text for HTML, in an element or in a quoted attribute."""
    return html.escape(text, quote=True)


def escape_markdown(text: str) -> str:
    """Text in one line that Markdown shows as it is, in a table too."""
    text = text.replace("\\", "\\\\").replace("&", "&amp;").replace("<", "&lt;")
    for special in ("|", "*", "`", "]("):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
