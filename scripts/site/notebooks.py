"""A notebook as a page: its words, its code, and what came out when it was run."""

import html
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|^.*\r(?=.)", re.MULTILINE)  # colours, and what was written over
FORMS = ("image/png", "text/html", "text/markdown", "text/plain")


def as_markdown(notebook: str) -> str:
    """The Markdown of a notebook file; pictures are within it."""
    parts: list[str] = []
    for cell in json.loads(notebook)["cells"]:
        text = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text.strip():
            parts += [f"```python\n{text.rstrip()}\n```", *outputs_of(cell)]
    return "\n\n".join([*parts, ""])


def outputs_of(cell: dict[str, Any]) -> Iterator[str]:
    """What came out of a cell; what was printed in several pieces is one."""
    for is_printed, outputs in itertools.groupby(cell["outputs"], lambda output: "text" in output):
        if is_printed:
            yield shown(text="".join(joined(output["text"]) for output in outputs))
        else:
            yield from map(richest, outputs)


def richest(output: dict[str, Any]) -> str:
    """An output in the richest form that a page can show."""
    data = {form: joined(content) for form, content in output.get("data", {}).items() if form in FORMS}
    if "image/png" in data:
        picture = re.sub(r"\s", "", data["image/png"])
        return f"![](data:image/png;base64,{picture})"
    if "text/html" in data:
        return f'<div class="output">{data["text/html"]}</div>'
    if "text/markdown" in data:
        return data["text/markdown"]
    return shown(data.get("text/plain") or f"{output.get('ename')}: {output.get('evalue')}")


def shown(text: str) -> str:
    """What a program printed, as a terminal would leave it."""
    return f'<div class="output"><pre>{html.escape(CONTROL.sub("", text).rstrip())}</pre></div>'


def joined(lines: str | list[str]) -> str:
    """A text of a notebook, which may be kept by line."""
    return lines if isinstance(lines, str) else "".join(lines)
