"""A notebook as a page: its words, its code, and what came out when it was run."""

import json
import re
from collections.abc import Iterator
from typing import Any

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|^.*\r(?=.)", re.MULTILINE)  # colours, and what was written over


def as_markdown(notebook: str) -> str:
    """The Markdown of a notebook file; pictures are within it."""
    parts: list[str] = []
    for cell in json.loads(notebook)["cells"]:
        text = joined(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(text)
        elif cell["cell_type"] == "code" and text.strip():
            parts += [fenced(text, "python"), *(part for output in cell["outputs"] for part in of_output(output))]
    return "\n\n".join([*parts, ""])


def of_output(output: dict[str, Any]) -> Iterator[str]:
    """What a cell's output shows: its richest form that a page can have."""
    data = output.get("data", {})
    if "text" in output:
        yield fenced(CONTROL.sub("", joined(output["text"])), "text")
    elif "traceback" in output:
        yield fenced(f"{output['ename']}: {output['evalue']}", "text")
    elif "image/png" in data:
        picture = re.sub(r"\s", "", joined(data["image/png"]))
        yield f"![](data:image/png;base64,{picture})"
    elif "text/html" in data:
        yield f"<div>{joined(data['text/html'])}</div>"
    elif "text/markdown" in data:
        yield joined(data["text/markdown"])
    elif "text/plain" in data:
        yield fenced(joined(data["text/plain"]), "text")


def fenced(text: str, language: str) -> str:
    """Code, or what a program printed; nothing where it is empty."""
    return f"```{language}\n{text.rstrip()}\n```" if text.strip() else ""


def joined(lines: str | list[str]) -> str:
    """A text of a notebook, which may be kept by line."""
    return lines if isinstance(lines, str) else "".join(lines)
