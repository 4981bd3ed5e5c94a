"""The tutorial notebooks: two languages of one source, outputs of the real data; they run where only the wheel is."""

import ast
import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from importlib.metadata import requires
from pathlib import Path

import pytest
from conftest import HAS_REAL_DATA, REAL_DATA
from documents import FORMULA, LINK, ROOT, anchors, without_code
from hydra._internal.utils import get_args_parser
from markdown_it import MarkdownIt
from packaging.requirements import Requirement

from fmnist_lit.command_line.prepare import prepare

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

SMALL = {"SOURCE": "synthetic", "TRAIN_SIZE": 500, "EPOCHS": 1}  # in place of the cell that is tagged parameters
BOLD = MarkdownIt().enable("table")


def load_script():
    """scripts/notebooks/make.py; scripts/guide has a module of that name, too."""
    spec = importlib.util.spec_from_file_location("make_notebooks", ROOT / "scripts" / "notebooks" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = load_script()
SOURCE = make.SOURCE.read_text(encoding="utf-8")
LANGUAGES = list(make.PUBLISHED)


def published(language: str):
    return nbformat.read(make.PUBLISHED[language], as_version=4)


def words(notebook) -> str:
    """The Markdown of a notebook."""
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def outline(notebook) -> list[str]:
    """What comes after what: code and headings, each of its level; a cell of words without a heading is nothing."""
    found = []
    for cell in notebook.cells:
        code = cell.cell_type == "code"
        found += [cell.source] if code else re.findall(r"^(#+) ", cell.source, re.MULTILINE)
    return found


def quoted(notebook) -> list[str]:
    """What is in code, in any order, since sentences are built differently."""
    return sorted(set(re.findall(r"`[^`\n]+`", words(notebook))))


def links(notebook) -> list[str]:
    return [link.replace(".zh-CN", "") for link in LINK.findall(words(notebook))]


def test_both_languages_have_the_same_code_headings_formulas_and_links():
    english, chinese = map(published, LANGUAGES)
    assert outline(english) == outline(chinese)
    assert FORMULA.findall(without_code(words(english))) == FORMULA.findall(without_code(words(chinese)))
    assert links(english)[1:] == links(chinese)[1:]  # the first leads to the other language
    assert quoted(english) == quoted(chinese)
    assert len(FORMULA.findall(words(english))) > 20


def test_both_languages_show_the_same():
    english, chinese = ([cell.outputs for cell in make.code_cells(published(language))] for language in LANGUAGES)
    assert english == chinese
    assert any(english)


@pytest.mark.parametrize("language", LANGUAGES)
def test_published_notebook_is_that_of_the_source(language):
    made, known = make.notebook(SOURCE, language), published(language)
    nbformat.validate(known)
    assert [(cell.id, cell.source, cell.metadata) for cell in known.cells] == [
        (cell.id, cell.source, cell.metadata) for cell in made.cells
    ]
    assert known.metadata == made.metadata
    assert make.PUBLISHED[language].stat().st_size < 1_000_000


@pytest.mark.parametrize("language", LANGUAGES)
def test_outputs_are_of_the_real_data_without_errors_or_paths_of_a_machine(language):
    known = published(language)
    text = nbformat.writes(known)
    assert make.objections(known, Path("/tmp/tmp")) == []
    assert "fashion_mnist: 55000 training" in text
    assert "Fashion-MNIST: 55000 training" in text
    assert text.count("largest difference of any weight: 0.0") == 2
    assert re.findall(r"/(?:home|root|Users|tmp|work)/", text) == []
    assert [cell.execution_count for cell in make.code_cells(known)] == list(range(1, len(make.code_cells(known)) + 1))


@pytest.mark.parametrize("language", LANGUAGES)
def test_links_lead_somewhere(language):
    dead = []
    for link in LINK.findall(words(published(language))):
        path, _, anchor = link.partition("#")
        target = make.PUBLISHED[language].parent / path
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert dead == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_read_as_they_are_meant(language):
    text = words(published(language))
    prose = FORMULA.sub("\0", without_code(text))
    assert prose.count("$") == 0
    assert re.findall(r".*\S\0.*|.*\0\w.*", re.sub(r"\| \0|\*\*", "", prose)) == []
    inline = [token for token in BOLD.parse(FORMULA.sub("", text)) if token.type == "inline"]
    assert [
        part.content for token in inline for part in token.children if part.type == "text" and "**" in part.content
    ] == []


def words_to_try() -> list[str]:
    """What a reader is told to type: a word of a command line for a single run."""
    return sorted({word for word in re.findall(r"`([a-z_.]+=[^`,]+)`", words(published("en"))) if word != "key=value"})


@pytest.mark.parametrize("word", words_to_try())
def test_words_to_try_would_run(word, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with contextlib.ExitStack() as locks:
        prepare(get_args_parser().parse_intermixed_args([word]), locks)


def test_there_are_words_to_try():
    assert {"optimizer=muon", "model.hidden_sizes=[64]"} <= set(words_to_try())


def test_cells_need_nothing_that_the_package_does_not_bring():
    imported = {
        name.split(".")[0]
        for cell in make.code_cells(published("en"))
        for node in ast.walk(ast.parse(re.sub(r"^( *)%.*", r"\1pass", cell.source, flags=re.MULTILINE)))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    brought = {Requirement(line).name for line in requires("fmnist_lit") if "extra" not in line}
    assert imported <= brought | sys.stdlib_module_names | {"fmnist_lit"}


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """The Python of an environment in which there is the wheel, what it asks for, and a kernel."""
    folder = tmp_path_factory.mktemp("environment")
    versions = subprocess.run(
        ["uv", "pip", "freeze", "--python", sys.executable], capture_output=True, text=True, check=True
    )
    pins = folder / "pins.txt"  # those that are here, which uv need not download again
    pins.write_text("".join(f"{line}\n" for line in versions.stdout.splitlines() if "==" in line))
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder / "venv"], check=True)
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    mode = "copy" if os.name == "nt" else "symlink"  # torch with its libraries has gigabytes
    options = ["--quiet", "--link-mode", mode, "--python", python, "--constraint", pins]
    command = ["uv", "pip", "install", *options, wheel, "ipykernel"]
    subprocess.run(command, check=True, timeout=600)
    return python


def test_notebook_runs_from_top_to_bottom_where_only_the_wheel_is_installed(environment, tmp_path, monkeypatch):
    from jupyter_client.manager import KernelManager
    from nbclient import NotebookClient

    notebook = make.notebook(SOURCE, "en")  # whose code is that of the other language
    (parameters,) = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    settings = {**SMALL, "SOURCE": "fashion_mnist" if HAS_REAL_DATA else "synthetic"}
    assert re.findall(r"^\w+", parameters.source, re.MULTILINE) == list(settings)
    parameters.source = "\n".join(f"{name} = {value!r}" for name, value in settings.items())
    where = "import sys; print(fmnist_lit.__file__.startswith(sys.prefix), run.folder.parent.parent)"
    notebook.cells.append(nbformat.v4.new_code_cell(where))
    if HAS_REAL_DATA:
        monkeypatch.setenv("FMNIST_DATA_DIR", str(Path(REAL_DATA).absolute()))
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    manager = KernelManager()
    manager.kernel_spec.argv[0] = str(environment)
    client = NotebookClient(notebook, km=manager, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(cleanup_kc=True)
    shown = [output for cell in make.code_cells(notebook) for output in cell.outputs]
    text = "".join(output.text for output in shown if output.output_type == "stream" and output.name == "stdout")
    assert [output.text for output in shown if output.get("name") == "stderr"] == []
    assert text.count("largest difference of any weight: 0.0\n") == 2
    assert text.endswith(f"True {tmp_path / 'outputs'}\n")
    assert sum("image/png" in output.get("data", {}) for output in shown) >= 10
    assert len([output for output in shown if "<table>" in output.get("data", {}).get("text/html", "")]) == 3
