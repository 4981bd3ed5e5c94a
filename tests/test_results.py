import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
RESULTS = (ROOT / "RESULTS.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def make_results() -> ModuleType:
    """The script that writes RESULTS.md."""
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "scripts" / "make_results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_results_are_what_the_script_makes_of_the_results_files(make_results):
    assert make_results.render() == RESULTS


@pytest.mark.parametrize("page", ["README.md", "README.zh-CN.md"])
def test_readme_quotes_the_results(page):
    quoted = re.findall(r"`experiment=(\w+)` \| (\d.*?) %", (ROOT / page).read_text(encoding="utf-8"))
    assert {name for name, _ in quoted} == {"fastest_88", "fastest_90", "best_mlp"}
    for name, accuracy in quoted:
        assert f"| `{name}` | {accuracy} |" in RESULTS
        assert f"Measured: {accuracy} % test accuracy" in (ROOT / "conf" / "experiment" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("file", sorted(ROOT.glob("conf/study/*.yaml")), ids=lambda file: file.stem)
def test_every_study_says_what_came_out(file):
    assert re.search(r"^# Measured\b", file.read_text(encoding="utf-8"), re.MULTILINE)


def test_figures_are_means_and_sample_standard_deviations(make_results, tmp_path):
    made = {"python": "3", "torch": "2", "lightning": "2", "processor": "cpu", "commit": "abc"}
    runs = [
        {
            "seed": seed,
            "dataset": "fashion_mnist",
            "test_accuracy": accuracy,
            "fit_cpu_seconds": 2.0 + seed,
            "epochs": 3,
            "num_threads": 1,
            "provenance": made,
        }
        for seed, accuracy in enumerate((0.90, 0.91, 0.95))
    ]
    result = {"command": "python -m fmnist_lit -m seed=0,1,2", "is_study": False, "jobs": 3, "seconds": 9, "best": ""}
    (tmp_path / "three.json").write_text(json.dumps({**result, "runs": runs}))
    text = make_results.render(tmp_path)
    assert "| `three` | 92.00 ± 2.65 |  | 3 | 3 | 3.0 |" in text
    assert "`python -m fmnist_lit -m seed=0,1,2`" in text
    assert "commit abc" in text


def test_sweep_is_taken_up_from_its_folder(make_results, launch_here, tmp_path):
    small = ("data=synthetic", "data.train_size=200", "data.test_size=100", "data.val_size=50", "num_threads=1")
    sweep = ("-m", "seed=0,1", *small, "model.hidden_sizes=[8]", "trainer.max_epochs=1", "hydra.sweep.dir=seeds")
    assert launch_here(*sweep) == 0
    taken = make_results.take_up(tmp_path / "seeds")
    assert not taken["is_study"]
    assert [run["seed"] for run in taken["runs"]] == [0, 1]
    for run in taken["runs"]:
        written = json.loads((tmp_path / "seeds" / f"seed={run['seed']}" / "results.json").read_text())
        assert {key: written[key] for key in run} == run
