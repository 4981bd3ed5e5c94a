"""scripts/site: where each document is on the site and where its links lead; what is made of conf/ and of formulas."""

import importlib
import json
import re
from pathlib import Path

import pytest
from conftest import options
from documents import FORMULA, GUIDE, LINK, PAGES, ROOT, anchors, read, without_code

LANGUAGES = ("en", "zh-CN")


@pytest.fixture(autouse=True)
def scripts(monkeypatch):
    """Their folder on the path, as MkDocs puts it there."""
    monkeypatch.syspath_prepend(ROOT / "scripts" / "site")


@pytest.fixture
def pages():
    return importlib.import_module("pages")


@pytest.fixture
def groups():
    return importlib.import_module("groups")


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_document_is_a_page_and_every_page_is_in_the_menu_once(pages, language):
    made = pages.all_pages(language)
    home, *others = pages.navigation(language)
    listed = [*home.values(), *(path for section in others for paths in section.values() for path in paths)]
    assert sorted(listed) == sorted(made)
    documents = {page for page in PAGES if not page.name.endswith(".zh-CN.md")}
    assert documents | {ROOT / name for name in pages.AT_THE_TOP} == {
        file.with_name(file.name.replace(".zh-CN.md", ".md"))
        for file in pages.documents(language).values()
        if file.suffix == ".md"
    }
    assert all(paths for section in others for paths in section.values())


def test_a_page_is_in_the_language_of_the_site_where_there_is_one(pages):
    assert pages.all_pages("en")["guide/losses.md"].startswith("# Losses\n")
    chinese = pages.all_pages("zh-CN")
    assert chinese["guide/losses.md"].startswith("# 损失函数\n")
    assert chinese["sweeps.md"].startswith("# Sweeps\n")
    assert chinese["configuration/optimizer.md"].startswith("# 优化器\n")
    assert not any(re.search(r"\[(English|简体中文)\]\(", text) for text in chinese.values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_link_and_picture_of_every_page_leads_to_a_page_or_a_picture(pages, language, tmp_path):
    made = pages.all_pages(language)
    for path, text in made.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
    dead = []
    for path, text in made.items():
        for link in LINK.findall(without_code(text)):
            target, _, anchor = link.partition("#")
            file = (tmp_path / path).parent / target if target else tmp_path / path
            picture = Path("docs", path).parent / target
            if re.match(r"\w+:", link) or target.endswith("schema.json") or anchor.startswith("fmnist_lit."):
                continue
            if file.is_file() and (not anchor or anchor in anchors(file)):
                continue
            if not (target.endswith(".png") and (ROOT / picture).is_file()):
                dead.append((path, link))
    assert dead == []


@pytest.mark.parametrize(
    ("page", "written", "shown"),
    [
        ("README.md", "[guide](docs/guide/README.md#how-to-read-it)", "[guide](guide/index.md#how-to-read-it)"),
        ("README.zh-CN.md", "[指南](docs/guide/README.zh-CN.md)", "[指南](guide/index.md)"),
        ("README.md", "![curves](docs/images/tensorboard.png)", "![curves](images/tensorboard.png)"),
        ("README.md", "[![x](docs/images/demo.png)](docs/sweeps.md)", "[![x](images/demo.png)](sweeps.md)"),
        ("README.md", "[![b](https://x/b.svg)](docs/sweeps.md)", "[![b](https://x/b.svg)](sweeps.md)"),
        ("README.md", "[![x](docs/images/demo.png)](https://x)", "[![x](images/demo.png)](https://x)"),
        ("README.md", '<img src="docs/images/demo.png">', '<img src="images/demo.png">'),
        ("README.md", '<a href="docs/sweeps.md#studies">', '<a href="sweeps.html#studies">'),
        ("README.md", '<a href="https://x/y.md">', '<a href="https://x/y.md">'),
        ("docs/sweeps.md", "[results](../RESULTS.md)", "[results](results.md)"),
        ("docs/sweeps.md", "[here](#studies)", "[here](#studies)"),
        ("docs/sweeps.md", "[it](../conf/study/sgd_lr.yaml)", "[it](configuration/study.md#sgd_lr)"),
        ("docs/guide/losses.md", "[all](../../conf)", "[all](../configuration/index.md)"),
        ("docs/guide/losses.md", "[m](../../src/fmnist_lit/model.py)", "[m](../reference/parts.md#fmnist_lit.model)"),
        ("RESULTS.md", "[files](docs/results)", "files"),
        ("README.md", "[licence](LICENSE)", "licence"),
        ("README.md", "[PyTorch](https://pytorch.org/x.md)", "[PyTorch](https://pytorch.org/x.md)"),
        (
            "docs/sweeps.md",
            "[dead](nothing.md) ![too](images/nothing.png)",
            "[dead](nothing.md) ![too](images/nothing.png)",
        ),
        ("README.md", "```\n[a](LICENSE)\n```", "```\n[a](LICENSE)\n```"),
        ("README.md", "# Title\n\n[简体中文](README.zh-CN.md)\n\nText", "# Title\n\nText"),
    ],
)
def test_links_lead_to_the_same_place_on_the_site(pages, page, written, shown):
    assert pages.rewritten(written, page) == shown


def test_what_the_site_does_not_have_is_in_the_repository_if_that_has_an_address(pages):
    assert (
        pages.rewritten("[l](../LICENSE)", "docs/sweeps.md", "https://host/us")
        == "[l](https://host/us/blob/main/LICENSE)"
    )


def test_chinese_lines_are_joined_without_a_gap(pages):
    code = "```\n甲\n乙\n```\n\n<pre>甲\n乙</pre>\n"
    shown = pages.without_line_breaks(f"- 批量，\n  每次\n[甲](a)，\n64 张\n\n{code}")
    assert shown == f"- 批量，每次[甲](a)，\n64 张\n\n{code}"


def test_notebook_is_a_page_with_what_came_out():
    notebooks = importlib.import_module("notebooks")
    outputs = [
        {"output_type": "stream", "text": ["step 1\rstep 2\n"]},
        {"output_type": "stream", "text": "\x1b[31ma < b\x1b[0m\n"},
        {"output_type": "display_data", "data": {"image/png": "AA\nBB", "text/plain": "<Figure>"}},
        {"output_type": "execute_result", "data": {"text/html": ["<b>", "x</b>"], "text/plain": "x"}},
        {"output_type": "execute_result", "data": {"text/plain": "3", "application/x": {}}},
        {"output_type": "error", "ename": "ValueError", "evalue": "no", "traceback": ["…"]},
    ]
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "words"]},
        {"cell_type": "code", "source": "1 + 2", "outputs": outputs},
        {"cell_type": "code", "source": "", "outputs": []},
    ]
    assert notebooks.as_markdown(json.dumps({"cells": cells})).split("\n\n") == [
        "# Title\nwords",
        "```python\n1 + 2\n```",
        '<div class="output"><pre>step 2\na &lt; b</pre></div>',
        "![](data:image/png;base64,AABB)",
        '<div class="output"><b>x</b></div>',
        '<div class="output"><pre>3</pre></div>',
        '<div class="output"><pre>ValueError: no</pre></div>',
        "",
    ]


def test_menu_of_languages_leads_to_the_same_page_in_the_other():
    languages = importlib.import_module("languages")
    menu = '<a href="#language-en"></a><a href="#language-zh-CN"></a>'
    shown = '<a href="../guide/losses.html"></a><a href="../zh-CN/guide/losses.html"></a>'
    assert languages.with_switch(menu, "../", "guide/losses.html") == shown


def test_every_option_has_its_place_with_the_command_that_chooses_it(groups):
    made = groups.pages("en")
    for group in groups.TITLES:
        headings = re.findall(r"^## (.+)$", made[f"configuration/{group}.md"], re.MULTILINE)
        assert set(options(group)) <= set(headings)
        for name in headings:
            page = made[f"configuration/{group}.md"]
            assert f"{group}={name}" in page or f"{group}=[default,{name}]" in page
            assert f"[`{name}`]({group}.md#{groups.anchor(name)})" in made["configuration/index.md"]


def test_page_of_a_group_says_value_range_and_comment_of_each_key(groups):
    made = groups.pages("en")
    assert (
        "- `data.val_size` = `5000`<br>carved from the 60,000 training images, always the same ones"
        "<br>*a whole number >= 0 or a finite number > 0 and &lt; 1, a share of the training images*\n"
    ) in made["configuration/data.md"]
    assert "- `callbacks.ema` = `fmnist_lit.averaging.WeightEMA`\n" in made["configuration/callbacks.md"]
    assert "- `optimizer._target_` = `torch.optim.Adam`\n" in made["configuration/optimizer.md"]
    assert "Builds on [fashion_mnist](#fashion_mnist), and changes:" in made["configuration/data.md"]
    assert r"times the sum of \|weight\|" in made["configuration/index.md"]
    assert "python -m fmnist_lit 'logger=[default,wandb]'" in made["configuration/logger.md"]
    assert "python -m fmnist_lit logger=csv\n" in made["configuration/logger.md"]
    assert "[docs/trackers.md](../trackers.md)" in made["configuration/logger.md"]
    assert "\n\nMeasured, validation / test accuracy:" in made["configuration/study.md"]
    assert "## best_mlp_without/ema\n" in made["configuration/experiment.md"]
    chinese = groups.pages("zh-CN")
    assert "以 [fashion_mnist](#fashion_mnist) 为基础，修改：" in chinese["configuration/data.md"]
    assert "carved from the 60,000 training images" in chinese["configuration/data.md"]


def test_every_formula_of_the_guide_becomes_mathml():
    pytest.importorskip("latex2mathml", reason="uv run --group site pytest")
    formulas = importlib.import_module("formulas")
    written = [formula for page in GUIDE for formula in FORMULA.findall(without_code(read(page)))]
    assert len(written) > 100
    for formula in written:
        made = formulas.mathml(formula.strip("$ "), is_block=formula.startswith("$$"))
        assert "\\" not in made, formula
        # every character is in the font that comes along
        assert {ord(character) for character in re.sub(r"<[^>]*>|\s|&#x[0-9A-F]+;", "", made)} <= {*formulas.CHARACTERS}
        assert {int(code, 16) for code in re.findall(r"&#x([0-9A-F]+);", made)} <= {*formulas.CHARACTERS}
    page = r'<p>so <span class="arithmatex">\(a &lt; \log b\)</span></p>'
    assert re.search(r"<p>so <math .*<mo>&#x0003C;</mo>.*</math></p>", formulas.with_mathml(page))


def test_reference_shows_the_functions_that_modules_have_the_names_of():
    griffe = pytest.importorskip("griffe", reason="uv run --group site pytest")
    functions = importlib.import_module("functions")
    package = griffe.load(
        "fmnist_lit", search_paths=[ROOT / "src"], extensions=griffe.Extensions(functions.Functions())
    )
    assert package["train"].is_function
    assert [parameter.name for parameter in package["sweep"].parameters] == ["overrides", "trust"]
    shown = [name for _, contents in importlib.import_module("reference").CONTENTS.values() for name in contents]
    assert all(package[name.partition(".")[2]].has_docstring for name in shown)
