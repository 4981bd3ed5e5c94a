"""The tutorial notebooks: made of one source with code once and words in two languages, and run once for both.

    FMNIST_DATA_DIR=… uv run python scripts/notebooks/make.py [--no-run]

Writes notebooks/tutorial.ipynb and notebooks/tutorial.zh-CN.ipynb with outputs of the real Fashion-MNIST.
"""

import argparse
import base64
import hashlib
import io
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode, v4
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).with_name("tutorial.py")
PUBLISHED = {"en": ROOT / "notebooks" / "tutorial.ipynb", "zh-CN": ROOT / "notebooks" / "tutorial.zh-CN.ipynb"}
HEAD = re.compile(r'^# %%( \[markdown\] lang="(?P<language>[\w-]+)")?( tags=\["(?P<tag>\w+)"\])?$', re.MULTILINE)
MAGIC = re.compile(r"^( *)# %(?=\w)", re.MULTILINE)  # a comment in the source, which is Python
PNG = re.compile(r"(?<=data:image/png;base64,)[\w+/=]+")
FIRST_LINES, LAST_LINES = 7, 2  # what is published of a long text
HAN = r"[\u2014\u2018-\u201d\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"
LINE_BREAK = re.compile(rf"(?<={HAN})\n(?={HAN})")  # where a page would show a space, which Chinese has none of
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


class Cell(NamedTuple):
    """A cell of the source: Python if it is of no language, else Markdown."""

    language: str | None
    tag: str | None
    text: str


def cells_of(source: str) -> list[Cell]:
    """The cells of a script in the percent format."""
    heads = list(HEAD.finditer(source))
    ends = [*(head.start() for head in heads[1:]), len(source)]
    found = []
    for head, end in zip(heads, ends, strict=True):
        language, text = head["language"], source[head.end() : end].strip()
        words = LINE_BREAK.sub("", re.sub(r"^# ?", "", text, flags=re.MULTILINE))
        text = words if language else MAGIC.sub(r"\1%", text)
        found.append(Cell(language, head["tag"], text))
    return found


def notebook(source: str, language: str) -> NotebookNode:
    """The notebook in a language, without outputs."""
    made = v4.new_notebook(metadata=METADATA)
    for cell in cells_of(source):
        if cell.language not in (None, language):
            continue
        new = v4.new_markdown_cell if cell.language else v4.new_code_cell
        name = hashlib.sha256(cell.text.encode()).hexdigest()[:12]  # the same as long as the cell is
        made.cells.append(new(cell.text, id=name, metadata={"tags": [cell.tag]} if cell.tag else {}))
    return made


def code_cells(made: NotebookNode) -> list[NotebookNode]:
    """The cells of a notebook that run; they are the same in each language."""
    return [cell for cell in made.cells if cell.cell_type == "code"]


def run(made: NotebookNode, folder: Path) -> None:
    """Run a notebook in a folder, and keep of what its cells show what is the same for every reader."""
    NotebookClient(made, timeout=900, resources={"metadata": {"path": str(folder)}}, record_timing=False).execute()
    for cell in code_cells(made):
        cell.outputs = tidy(cell.outputs)


def tidy(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Texts in one piece each, pictures in few colours, and no progress bar that has come to its end."""
    kept: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and kept and kept[-1].get("name") == output.name:
            kept[-1].text += output.text
        elif output.get("data", {}).get("text/html") != "":
            kept.append(output)
    for output in kept:
        if output.output_type == "stream":
            output.text = shortened(output.text)
        data = output.get("data", {})
        if "image/png" in data:
            data["image/png"] = in_few_colours(data["image/png"])
        if "text/html" in data:
            data["text/html"] = PNG.sub(lambda found: in_few_colours(found[0]), data["text/html"])
    return kept


def shortened(text: str) -> str:
    """A text that is not much longer than a screen, with a word on what is left out."""
    lines = text.splitlines(keepends=True)
    left_out = len(lines) - FIRST_LINES - LAST_LINES
    if left_out < FIRST_LINES:
        return text
    return "".join([*lines[:FIRST_LINES], f"[… {left_out} lines …]\n", *lines[-LAST_LINES:]])


def in_few_colours(png: str) -> str:
    """A picture (base64) in as many colours as a chart needs, which takes a third of the space."""
    content = io.BytesIO()
    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        picture.convert("RGB").quantize(64, dither=Image.Dither.NONE).save(content, format="png", optimize=True)
    return base64.b64encode(content.getvalue()).decode()


def copy_outputs(made: NotebookNode, known: NotebookNode) -> None:
    """Give each code cell what the one with the same code showed."""
    shown = {cell.source: cell for cell in code_cells(known)}
    for cell in code_cells(made):
        if cell.source in shown:
            cell.outputs, cell.execution_count = shown[cell.source].outputs, shown[cell.source].execution_count


def objections(made: NotebookNode, folder: Path) -> list[str]:
    """Why a notebook is not to be published."""
    text = nbformat.writes(made)
    places = [str(folder), str(ROOT), sys.prefix, str(Path.home())]
    return [
        *(f"a path of this machine: {place}" for place in places if len(place) > 1 and place in text),
        *(f"shows {word}" for word in ("SYNTHETIC", '"stderr"', '"output_type": "error"') if word in text),
        *(f"has no outputs of this cell:\n{cell.source}" for cell in code_cells(made) if not cell.execution_count),
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--no-run", action="store_true", help="only the words have changed: keep the outputs")
    args = parser.parse_args()
    source = SOURCE.read_text(encoding="utf-8")
    made = {language: notebook(source, language) for language in PUBLISHED}
    os.environ["FMNIST_DATA_DIR"] = str(Path(os.environ.get("FMNIST_DATA_DIR", "data")).absolute())
    with tempfile.TemporaryDirectory() as folder:
        if args.no_run:
            known = nbformat.read(PUBLISHED["en"], as_version=4)
        else:
            known = notebook(source, "en")
            run(known, Path(folder))
        for language, file in PUBLISHED.items():
            copy_outputs(made[language], known)
            if objected := objections(made[language], Path(folder)):
                print(f"{file.name}: {'; '.join(objected)}", file=sys.stderr)
                return 1
        for language, file in PUBLISHED.items():
            nbformat.write(made[language], file)
            print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
