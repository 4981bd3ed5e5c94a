"""One version number wherever one stands, and what hosts read of the repository says what is there."""

import re

import pytest
import yaml
from documents import ROOT, read

import fmnist_lit

pytestmark = pytest.mark.skipif(not (ROOT / "CITATION.cff").exists(), reason="needs a checkout")


def targets() -> set[str]:
    return set(re.findall(r"(?m)^([a-z-]+):", read(ROOT / "Makefile")))


def test_citation_and_changelog_have_the_version():
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert citation["version"] == fmnist_lit.__version__
    released = re.findall(r"(?m)^## \[(\d\S*)\] - (\S+)$", read(ROOT / "CHANGELOG.md"))
    assert [(citation["version"], str(citation.get("date-released")))] == (released or [("0.1.0", "None")])[:1]


def test_every_target_of_make_has_its_line_of_help():
    makefile = read(ROOT / "Makefile")
    assert set(re.findall(r"(?m)^([a-z-]+):.* ## .", makefile)) == targets()
    assert set(re.search(r"(?m)^\.PHONY: (.*)$", makefile)[1].split()) == targets()


def workflows() -> dict[str, dict]:
    return {file.name: yaml.safe_load(read(file)) for file in (ROOT / ".github" / "workflows").glob("*.yml")}


def test_workflows_make_what_can_be_made():
    steps = [step for flow in workflows().values() for job in flow["jobs"].values() for step in job["steps"]]
    made = {word for step in steps for word in re.findall(r"\bmake ([a-z-]+)", step.get("run", ""))}
    assert {"lint", "coverage", "site", "dist", "try-dist"} <= made <= targets()


def test_only_the_upload_may_ask_for_an_identity():
    for name, flow in workflows().items():
        assert flow["permissions"] == {"contents": "read"}, name
        allowed = {job: settings.get("permissions") for job, settings in flow["jobs"].items()}
        rest = {job: permissions for job, permissions in allowed.items() if permissions is not None}
        assert rest == ({"publish": {"id-token": "write"}} if name == "release.yml" else {})


def test_oldest_torch_that_is_tested_is_the_oldest_that_is_allowed():
    oldest = re.search(r'"torch>=([\d.]+)"', read(ROOT / "pyproject.toml"))[1]
    visions = re.search(r'"torchvision>=([\d.]+)"', read(ROOT / "pyproject.toml"))[1]
    assert f'"torch=={oldest}.*" "torchvision=={visions}.*"' in read(ROOT / ".github" / "workflows" / "tests.yml")
    assert f'"torch>={oldest}" "torchvision>={visions}"' in read(ROOT / "Dockerfile")


def test_hooks_are_the_checks_of_the_makefile():
    hooks = yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"][0]["hooks"]
    lint = read(ROOT / "Makefile").partition("\nlint:")[2].partition("\ntrain:")[0]
    assert {" ".join(hook["entry"].split()[2:4]) for hook in hooks} == {
        "ruff check",
        "ruff format",
        "mypy",
        "lint-imports",
    }
    assert all(hook["entry"].split(" --force")[0] in lint for hook in hooks)


def test_new_version_is_cut_in_every_place(tmp_path, monkeypatch):
    import importlib.util

    spec = importlib.util.spec_from_file_location("cut", ROOT / "scripts" / "release" / "cut.py")
    cut = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(cut)
    for name in ("src/fmnist_lit/__init__.py", "CITATION.cff", "CHANGELOG.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(read(ROOT / name), encoding="utf-8")
    monkeypatch.setattr(cut, "ROOT", tmp_path)
    monkeypatch.setattr("sys.argv", ["cut.py", "12.3.4", "--date", "2030-01-02"])
    assert cut.main() == 0
    assert '\n__version__ = "12.3.4"\n' in read(tmp_path / "src/fmnist_lit/__init__.py")
    citation = yaml.safe_load(read(tmp_path / "CITATION.cff"))
    assert (citation["version"], str(citation["date-released"])) == ("12.3.4", "2030-01-02")
    changelog = read(tmp_path / "CHANGELOG.md")
    assert "\n## [Unreleased]\n\n## [12.3.4] - 2030-01-02\n\n" in changelog
    assert changelog.replace("\n\n## [12.3.4] - 2030-01-02", "") == read(ROOT / "CHANGELOG.md")
    monkeypatch.setattr("sys.argv", ["cut.py", "next"])
    assert cut.main() == 2
