import contextlib
import importlib
import json
import re
import runpy
import shlex
import statistics
import sys
from pathlib import Path

import pytest
from conftest import SMALL
from documents import FENCE, FORMULA, GUIDE, LINK, PAGES, ROOT, WRITTEN, anchors, read, without_code
from hydra._internal.utils import get_args_parser
from markdown_it import MarkdownIt  # which rich brings

from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.prepare import check_sources, prepare
from fmnist_lit.config import overrides
from fmnist_lit.config.trust import split_trust, trusting

SHELLS = ("", "sh", "bash", "shell", "console")
PLACEHOLDER = re.compile(r"\b(FOLDER|DIR|RUN\w*|NAME|IMAGE\w*)\b|…")
# What GitHub's Markdown takes for its own before MathJax sees it: escapes, emphasis, tags, cells
EATEN = re.compile(r"\\[\\,;:!{}_%#&*]|[^\w\s\\]_|\*|<|\|")


def commands(program: str) -> dict[str, list[str]]:
    """Each `python PROGRAM…` in a fence of the documents, by itself and as the words after `python`."""
    found = {}
    for page in PAGES:
        for language, body in FENCE.findall(read(page)):
            for line in body.replace("\\\n", " ").splitlines() if language in SHELLS else ():
                if match := re.search(rf"\bpython ({program}[^|;&>]*)", line):
                    found[match[1].strip()] = shlex.split(match[1], comments=True)
    return found


COMMANDS = commands("-m fmnist_lit")
SCRIPT_COMMANDS = commands("scripts/").values()
SCRIPTS = [file for file in sorted(ROOT.glob("scripts/**/*.py")) if "__main__" in file.read_text()]
RUNS = {text: words[2:] for text, words in COMMANDS.items() if words[1] == "fmnist_lit"}
VERBS = {text: words[1:] for text, words in COMMANDS.items() if words[1] != "fmnist_lit"}
STUDY = re.compile(r"\bstudy=(\w+)$")  # and nothing else: test_studies.py plans each
STUDIES = {file.stem for file in CONF.glob("study/*.yaml")}
TRAINED = (  # of the guide, as many as the suite has time for
    "-m fmnist_lit loss=mse optimizer=sgd_momentum optimizer.lr=1",
    "-m fmnist_lit optimizer=sgd_momentum optimizer.lr=0.3 scheduler=warmup_linear trainer.max_epochs=5",
)


@pytest.fixture
def script(monkeypatch):
    """scripts/guide/make.py as a module."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "guide")
    return importlib.import_module("make")


@pytest.fixture
def configurations(tmp_path):
    """A folder with the YAML files that the documents say to write, beside other files that they do."""
    for page in PAGES:
        for name, content in WRITTEN.findall(read(page)):
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return tmp_path / "conf"


def test_the_documents_have_commands():
    assert len(RUNS) > 20
    assert VERBS


@pytest.mark.parametrize("command", [text for text in RUNS if not STUDY.search(text)])
def test_every_command_would_run(command, configurations, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])  # which a trusted package is looked for in
    monkeypatch.setattr(overrides, "CHECK_ALL", 1)  # each value of each key once, not each combination
    words = [overrides.path_as_typed(word) for word in RUNS[command] if not PLACEHOLDER.search(word)]
    packages, words = split_trust(words)
    args = get_args_parser().parse_intermixed_args([f"--config-dir={configurations}", *words])  # the last one counts
    check_sources(args)
    with trusting(packages), contextlib.ExitStack() as locks:
        prepare(args, locks)


def test_every_study_that_is_named_exists():
    named = {match[1] for page in PAGES for match in re.finditer(r"\bstudy=([a-z]\w*)", read(page))}
    assert named
    assert named <= STUDIES


@pytest.mark.parametrize("command", VERBS)
def test_every_verb_exists_with_its_options(command, monkeypatch, capsys):
    module, *words = VERBS[command]
    monkeypatch.setattr(sys, "argv", [module, "--help"])
    for name in (module, f"{module}.__main__"):  # other tests have imported it
        if name in sys.modules and not hasattr(sys.modules[name], "__path__"):
            monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module(module, run_name="__main__")
    told = capsys.readouterr().out
    assert [word for word in words if word.startswith("--") and word.split("=")[0] not in told] == []


def test_every_script_that_is_named_exists():
    assert SCRIPT_COMMANDS
    assert {ROOT / script for script, *_ in SCRIPT_COMMANDS} <= set(SCRIPTS)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_script_tells_the_options_that_the_documents_use(script, monkeypatch, capsys):
    used = {word for file, *words in SCRIPT_COMMANDS if ROOT / file == script for word in words if word[:2] == "--"}
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    monkeypatch.syspath_prepend(script.parent)
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(script), run_name="__main__")
    told = capsys.readouterr().out
    assert {option for option in used if option not in told} == set()


@pytest.mark.parametrize("command", TRAINED)
def test_runs_of_the_guide_train(command, launch_here, capsys):
    assert launch_here(*RUNS[command], *SMALL) == 0
    assert "test accuracy" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_lead_somewhere(page):
    dead = []
    for link in LINK.findall(FENCE.sub("", read(page))):
        if not re.match(r"https?://", link):
            path, _, anchor = link.partition("#")
            target = page.parent / path if path else page
            if not target.exists() or (anchor and anchor not in anchors(target)):
                dead.append(link)
    assert dead == []


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_formulas_survive_githubs_markdown(page):
    text = without_code(read(page))
    assert [formula for formula in FORMULA.findall(text) if EATEN.search(formula)] == []
    assert FORMULA.sub("", text).count("$") == 0
    # a formula begins only after white space, and ends before no letter, of whatever script
    assert re.findall(r".*\S\0.*|.*\0\w.*", FORMULA.sub("\0", text)) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_asterisk_of_bold_print_is_left(page):
    # beside Chinese letters and punctuation, which have no spaces, asterisks may stand for themselves
    inline = [token for token in MarkdownIt().enable("table").parse(read(page)) if token.type == "inline"]
    texts = [part.content for token in inline for part in token.children if part.type == "text"]
    assert [text for text in texts if "**" in text] == []


def test_the_script_makes_each_picture_and_figure_of_the_guide_and_no_other(script):
    text = "".join(read(page) for page in GUIDE)
    shown = {Path(link).stem for link in LINK.findall(text) if link.startswith("images/")}
    assert shown == set(script.FIGURES) == {image.stem for image in (ROOT / "docs/guide/images").glob("*.png")}
    measured = script.MARKERS.findall(text)
    assert {name for _, name, _, _ in measured} == set(script.TEXTS)
    assert [name for _, name, content, _ in measured if not content.strip()] == []
    assert set(script.STUDIES) <= STUDIES


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_no_measured_text_within_a_line_begins_the_line(page):
    # a comment there begins a block of HTML, in which Markdown is not read
    assert re.findall(r"^\s*<!-- measured: \w+ -->.+", read(page), re.MULTILINE) == []


def test_a_measured_text_is_replaced_where_it_stands(script):
    texts = {"inline": "3 %", "block": "| a |"}
    page = "It is <!-- measured: inline -->old<!-- end -->.\n\n<!-- measured: block -->\n<!-- end -->\n"
    page = script.fill(page, texts)
    assert (
        page == "It is <!-- measured: inline -->3 %<!-- end -->.\n\n<!-- measured: block -->\n\n| a |\n\n<!-- end -->\n"
    )
    assert script.fill(page, texts) == page


def test_a_measured_text_is_written_in_the_language_of_each_page(script, monkeypatch, tmp_path):
    contents = importlib.import_module("contents")
    monkeypatch.setattr(script, "TEXTS", {})
    monkeypatch.setattr(contents, "TEXTS", script.TEXTS)
    monkeypatch.setattr(script, "GUIDE", tmp_path)
    monkeypatch.setattr(script, "MEASURED", tmp_path / "measured.json")
    contents.text(lambda: {"mse": 3})(best_of_three)
    script.MEASURED.write_text('{"another": 1}')
    for name in ("page.md", "page.zh-CN.md"):
        (tmp_path / name).write_text("<!-- measured: best_of_three -->\n<!-- end -->\n", encoding="utf-8")
    script.write("best_of_three")
    pages = [(tmp_path / name).read_text(encoding="utf-8") for name in ("page.md", "page.zh-CN.md")]
    assert pages == [
        f"<!-- measured: best_of_three -->\n\n| `loss` | {head} |\n| --- | ---: |\n| mse | 3 % |\n\n<!-- end -->\n"
        for head in ("test", "测试")
    ]
    assert json.loads(script.MEASURED.read_text()) == {"another": 1, "best_of_three": {"mse": 3}}


def best_of_three(measured):
    contents = importlib.import_module("contents")
    return contents.markdown_table(["`loss`", contents.TEST], [["mse", f"{measured['mse']} %"]])


@pytest.mark.parametrize("page", GUIDE, ids=lambda page: page.stem)
def test_every_measured_text_is_what_was_measured(script, page):
    stale = [
        name
        for _, name, words, _ in script.MARKERS.findall(read(page))
        if words.strip() != script.words_of(name, page).strip()
    ]
    assert stale == []


BEST_OF = {  # texts of which the best row is the best configuration of a study
    **{f"{name}_best": name for name in ("losses", "optimizers", "momentum", "schedulers")},
    "batch_size_best": "lr_batch_size",
    "sgd_lr_best": "sgd_lr",
    "l1_penalty_table": "l1_penalty",
    "weight_decay_table": "weight_decay",
    "overfitting_table": "overfitting",
}


@pytest.mark.parametrize("text", [*BEST_OF, "seeds_spread"])
def test_what_was_measured_is_in_the_results_file_of_its_study(script, text):
    measured = json.loads(script.MEASURED.read_text(encoding="utf-8"))[text]
    runs = json.loads(read(ROOT / "docs" / "results" / f"{BEST_OF.get(text, 'seeds')}.json"))["runs"]
    if text == "seeds_spread":
        spreads = [statistics.stdev(run[f"{split}_accuracy"] for run in runs) for split in ("val", "test")]
        assert [measured["val"], measured["test"], measured["seeds"]] == pytest.approx([*spreads, len(runs)])
        return
    (run,) = runs
    if text == "weight_decay_table":  # of the last epoch, which need not be the best
        assert max(val for *_, val in measured) <= 100 * run["val_accuracy"]
    elif text == "overfitting_table":  # of the epoch of the lowest loss, and of the last
        assert max(val for row in measured for val in row["val_accuracy"]) <= run["val_accuracy"]
    else:
        best = max(measured, key=lambda row: row["val"])
        assert best["val"] == pytest.approx(run["val_accuracy"])
        assert best.get("test", run["test_accuracy"]) == pytest.approx(run["test_accuracy"])


def test_a_study_that_has_not_been_run_gives_no_picture(script, monkeypatch, tmp_path):
    monkeypatch.setattr("runs.RUNS", tmp_path)
    with pytest.raises(script.NotRunError, match="study=losses has not been run"):
        script.FIGURES["losses_epochs"]()


def test_a_picture_of_a_formula_needs_no_runs(script, monkeypatch, tmp_path):
    monkeypatch.setattr("runs.RUNS", tmp_path)
    monkeypatch.setattr(script, "GUIDE", tmp_path)
    script.draw("losses_shapes")
    assert (tmp_path / "images" / "losses_shapes.png").read_bytes().startswith(b"\x89PNG")
