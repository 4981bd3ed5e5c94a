"""docs/python.md and the README's Python, run as they stand, on less data."""

import pytest
from conftest import QUIET, SMALL
from documents import FENCE, PAGES, ROOT, read

import fmnist_lit
from fmnist_lit.api import starting
from fmnist_lit.config.overrides import key_of

QUICK = (*SMALL, *QUIET, "trainer.max_epochs=1")  # under the words of the pages
EXAMPLES = {
    str(page.relative_to(ROOT)): [body for language, body in FENCE.findall(read(page)) if language == "python"]
    for page in PAGES
    if "fmnist_lit.train(" in read(page) and not page.name.endswith(".zh-CN.md")  # which has the same
}


def over(words: list[str]) -> list[str]:
    """The words of a page over ``QUICK``, each key once, as a sweep wants it; a run that goes on has its own."""
    given = {key_of(word) for word in words}
    return words if "ckpt_path" in given else [*(word for word in QUICK if key_of(word) not in given), *words]


def test_examples_are_found():
    assert len(EXAMPLES["docs/python.md"]) == 5


@pytest.mark.parametrize("page", [page for page, examples in EXAMPLES.items() if examples])
def test_examples_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    understand = starting.understand
    monkeypatch.setattr(starting, "understand", lambda words, locks: understand(over(words), locks))
    known: dict[str, object] = {}
    for example in EXAMPLES[page]:
        exec(example, known)
    run, sweep = known["run"], known["sweep"]
    assert isinstance(run, fmnist_lit.Run)
    assert len(run.metrics) == 3
    assert {row["status"] for row in sweep.rows} == {"completed"}
    assert len(sweep.rows) == 4
    if page == "docs/python.md":
        assert "did you mean adam?" in capsys.readouterr().out
