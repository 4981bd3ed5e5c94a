"""scripts/new_project.py: what it writes works under its own name, and nothing in it is ours."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL
from documents import FENCE, LINK, ROOT, read

NAME = "wild_flowers_of_the_alps"  # so long that imports are sorted and lines broken in other ways
SCRIPT = ROOT / "scripts" / "new_project.py"
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")

# A model as its README says to write one; what it computes when it is made is no weight, and not in checkpoints
MODEL = '''

class Petals(nn.Module):
    """Softmax regression on darker images."""

    def __init__(self, darker: float = 0.5, num_classes: int = 10) -> None:
        super().__init__()
        self.register_buffer("factor", torch.full((1,), darker), persistent=False)
        self.head = nn.Linear(784, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (N, num_classes)."""
        return self.head(self.factor * images.flatten(1))
'''

# python -m NAME, then what it trained
TRAIN_AND_LOAD = f"""
import runpy
try:
    runpy.run_module("{NAME}", run_name="__main__", alter_sys=True)
except SystemExit as end:
    assert end.code == 0
import {NAME}
print({NAME}.load_classifier("run").model.factor)
"""


def tracked() -> list[str]:
    listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, text=True, check=True)
    return listed.stdout.split("\0")[:-1]


def renamed(text: str) -> str:
    return text.replace("fmnist_lit", NAME)


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("new") / "project"
    command = [sys.executable, SCRIPT, NAME, folder]
    written = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert f"uv run python -m {NAME}\n" in written.stdout
    assert "uv run pytest\n" in written.stdout
    return folder


@pytest.fixture(scope="module")
def texts(project) -> dict[str, str]:
    """The files of the project."""
    return {file.relative_to(project).as_posix(): read(file) for file in project.rglob("*") if file.is_file()}


def in_project(project: Path, *command: str) -> str:
    """What Python said to a command in the project, which finds the package there."""
    environment = {**os.environ, "PYTHONPATH": str(project / "src"), "CUDA_VISIBLE_DEVICES": ""}
    options = {"cwd": project, "env": environment, "capture_output": True, "text": True, "timeout": 300}
    ended = subprocess.run([sys.executable, *command], **options, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_nothing_is_ours_but_what_the_licence_and_the_readme_say(texts):
    assert {name for name, text in texts.items() if re.search("fmnist.?lit", name + text, re.I)} == {
        "LICENSE",
        "README.md",
    }
    assert texts["LICENSE"] == read(ROOT / "LICENSE")
    assert {renamed(path) for path in tracked() if path.startswith("src/")} <= texts.keys()
    assert f'name = "{NAME}"' in texts["pyproject.toml"]
    assert f'{NAME.replace("_", "-")} = "{NAME}.__main__:main"' in texts["pyproject.toml"]
    assert f'"{NAME.upper()}_TRUST"' in texts[f"src/{NAME}/config/trust.py"]
    assert "FMNIST_DATA_DIR" in texts["conf/data/fashion_mnist.yaml"]


def test_none_of_our_results_remains(texts):
    """Each of our figures names the hardware; <!-- measured --> and # Measured mark what does not go along."""
    assert [name for name, text in texts.items() if "EPYC" in text] == []
    assert [name for name, text in texts.items() if name.startswith(("conf/", "docs/")) and "Measured" in text] == []
    assert "## [Unreleased]\n" in texts["CHANGELOG.md"]
    assert "- " not in texts["CHANGELOG.md"]


def test_what_was_left_out_is_not_spoken_of(texts):
    left_out = {renamed(path) for path in tracked()} - texts.keys()
    words = [f"{Path(path).parts[1]}={Path(path).stem}" for path in left_out if path.startswith("conf/")]
    assert len(left_out) > 50
    assert words
    for name, text in texts.items():
        if name == "README.md":
            text = text.replace("scripts/new_project.py", "")  # which wrote it
        assert [path for path in left_out if "/" in path and path in text] == [], name
        assert [word for word in words if re.search(rf"\b{word}\b", text)] == [], name


def test_links_of_its_documents_lead_somewhere(project, texts):
    pages = [name for name in texts if name.endswith(".md")]
    links = [(name, link.partition("#")[0]) for name in pages for link in LINK.findall(FENCE.sub("", texts[name]))]
    local = [(name, link) for name, link in links if link and "://" not in link]
    assert ("README.md", "docs/your_own.md") in local
    assert [link for name, link in local if not (project / name).parent.joinpath(link).exists()] == []
    named = re.findall(r"`((?:conf|src|tests)/[^`]*)`", texts["README.md"])
    assert [path for path in named if "NAME" not in path and not (project / path).exists()] == []


@pytest.mark.parametrize("command", [("check",), ("format", "--check")])
def test_it_is_clean_for_ruff(project, command):
    pytest.importorskip("ruff")
    in_project(project, "-m", "ruff", *command, "--no-cache", ".")


def test_a_model_of_ones_own_trains_as_its_readme_says(project, tmp_path):
    copied = shutil.copytree(project, tmp_path / "copied")
    module, trust = (copied / "src" / NAME / name for name in ("model.py", "config/trust.py"))
    module.write_text(read(module).replace("from torch import nn", "import torch\nfrom torch import nn") + MODEL)
    trust.write_text(read(trust).replace("(MLP|CNN)", "(MLP|CNN|Petals)"))
    (copied / "conf" / "model" / "petals.yaml").write_text(f"_target_: {NAME}.model.Petals\ndarker: 0.4\n")
    words = [word for word in SMALL if "hidden_sizes" not in word]
    told = in_project(copied, "-c", TRAIN_AND_LOAD, *words, "model=petals", "hydra.run.dir=run")
    assert re.search(r"test accuracy .*\n(.*\n)*tensor\(\[0.4", told)


def test_its_tests_pass(project):
    """All of them are collected; these run."""
    chosen = "test_model or test_losses or test_private_parts"
    options = ["-p", "no:xdist", "-p", "no:cacheprovider", "-o", "addopts=--import-mode=importlib", "-q", "-k", chosen]
    assert re.search(r"[5-9]\d passed|\d{3} passed", in_project(project, "-m", "pytest", *options))


@pytest.fixture
def new_project(monkeypatch, tmp_path):
    """The script's main, where there is a folder that is not empty."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    spec = importlib.util.spec_from_file_location("new_project", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("Flowers", "new"), "Flowers: must be a name for a package"),
        (("wild-flowers", "new"), "wild-flowers: must be a name"),
        (("class", "new"), "class: must be a name"),
        (("my_fmnist_lit", "new"), "my_fmnist_lit: must be another name than fmnist_lit"),
        (("statistics", "new"), "statistics: there is a package of that name; choose another, such as statistics_lit"),
        (("torch", "new"), "torch: there is a package of that name"),
        (("mine", "new"), "mine: means something else in "),
        (("optimizer", "new"), "optimizer: means something else in conf/"),
        ((NAME, "full"), "full: is there already; choose a new folder, or an empty one"),
        ((NAME, "full/file"), "file: is there already"),
        ((NAME, "full/file/new"), "file"),
        ((NAME, str(ROOT / "outputs" / "new")), "is in this checkout"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line_and_nothing_is_written(new_project, tmp_path, capsys, words, told):
    before = sorted(tmp_path.rglob("*"))
    assert new_project.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert told in error
    assert sorted(tmp_path.rglob("*")) == before
    assert not (ROOT / "outputs" / "new").exists()


def test_the_name_in_our_readme_is_free(new_project):
    name = re.search(r"new_project.py (\w+)", read(ROOT / "README.md"))[1]
    new_project.check_name(name, new_project.taken_files())


def test_a_folder_that_git_does_not_know_is_no_checkout(new_project, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(new_project, "ROOT", tmp_path / "full")
    assert new_project.main([NAME, "new"]) == 2
    assert "is not a checkout that git knows" in capsys.readouterr().err


def test_a_list_that_is_no_longer_true_is_noticed(new_project, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(new_project.EDITS, "Makefile", (("no such target", ""),))
    assert new_project.main([NAME, "new"]) == 2
    assert capsys.readouterr().err == "error: Makefile: no such target is in it 0 times, not once\n"
    assert not (tmp_path / "new").exists()
