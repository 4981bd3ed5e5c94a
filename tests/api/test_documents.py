"""docs/python.md and the README's Python, run as they stand, on less data."""

import pytest
from conftest import SMALL
from documents import FENCE, ROOT, read

import fmnist_lit
from fmnist_lit.api import starting

QUICK = (*SMALL[:-2], "num_threads=1")


@pytest.mark.parametrize(("page", "least"), [("docs/python.md", 5), ("README.md", 1)])
def test_examples_run(page, least, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    understand = starting.understand
    monkeypatch.setattr(starting, "understand", lambda words, locks: understand([*QUICK, *words], locks))
    examples = [body for language, body in FENCE.findall(read(ROOT / page)) if language == "python"]
    assert len(examples) >= least
    known: dict[str, object] = {}
    for example in examples:
        exec(example, known)
    run, sweep = known["run"], known["sweep"]
    assert isinstance(run, fmnist_lit.Run)
    assert len(run.metrics) == 3
    assert {row["status"] for row in sweep.rows} == {"completed"}
    assert len(sweep.rows) == 4
    if page == "docs/python.md":
        assert "did you mean adam?" in capsys.readouterr().out
