"""The house itself: names mean one thing, a plain run needs no sweep, few frames lie before a step."""

import ast
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import SMALL

import fmnist_lit

SOURCE = Path(fmnist_lit.__file__).parent


def test_top_level_name_means_one_thing():
    places: dict[str, list[str]] = defaultdict(list)
    for file in SOURCE.rglob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                places[node.name].append(str(file.relative_to(SOURCE)))
    several = {name: files for name, files in places.items() if len(files) > 1 and name != "main"}
    wrappers = {"FashionMNISTDataModule", "OneCycleLR", "TensorBoardLogger", "train"}
    assert {name: files for name, files in several.items() if name not in wrappers} == {}


def test_learner_reads_the_main_files_to_the_end():
    lengths = {
        name: len((SOURCE / name).read_text(encoding="utf-8").splitlines()) for name in ("classifier.py", "train.py")
    }
    assert lengths["classifier.py"] <= 180
    assert lengths["train.py"] <= 130


WATCH = """
import json, sys, traceback
from pathlib import Path
import fmnist_lit.__main__
from fmnist_lit.command_line import job

def watched(name):
    import torch
    step = torch.optim.SGD.step
    def counted(self, *args, **kwargs):
        files = [frame.filename for frame in traceback.extract_stack()]
        ours = [file for file in files if Path(file).is_relative_to(Path(fmnist_lit.__file__).parent)]
        modules = sorted(name for name in sys.modules if name.startswith("fmnist_lit"))
        Path("seen.json").write_text(json.dumps({"frames": ours, "modules": modules}))
        return step(self, *args, **kwargs)
    torch.optim.SGD.step = counted
    return found(name)

found = job.ranks.find_function
job.ranks.find_function = watched
sys.argv = ["fmnist-lit", *sys.argv[1:]]
fmnist_lit.__main__.main()
"""


@pytest.fixture(scope="module", params=["auto", "1"])
def seen(request, tmp_path_factory) -> dict[str, list[str]]:
    """Our own frames on the stack at an optimiser step, and our own modules that a plain run has imported."""
    folder = tmp_path_factory.mktemp("plain_run")
    words = [*SMALL, "trainer.max_epochs=1", f"trainer.steps_per_batch={request.param}"]
    command = [sys.executable, "-c", WATCH, *words]
    subprocess.run(command, cwd=folder, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""}, check=True, capture_output=True)
    return json.loads((folder / "seen.json").read_text(encoding="utf-8"))


def test_at_most_five_frames_of_ours_lie_between_the_command_line_and_a_step(seen):
    assert len(seen["frames"]) <= 5, seen["frames"]


def test_plain_run_imports_nothing_of_sweep(seen):
    # the package itself, which is empty, is there to be called from Python
    assert [name for name in seen["modules"] if name.startswith("fmnist_lit.sweep.")] == []
