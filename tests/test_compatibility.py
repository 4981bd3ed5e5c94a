"""Run folders, checkpoints and sweeps that 0.1 and 0.2 left (tests/made_by_*) are of use to today's code.

scripts/release/make_old_folders.py makes those of a version when it is released.
"""

import csv
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from documents import read
from omegaconf import OmegaConf

import fmnist_lit
import fmnist_lit.command_line.launch
from fmnist_lit.build import build
from fmnist_lit.command_line import sweeps
from fmnist_lit.config.check import check_configuration
from fmnist_lit.evaluate.__main__ import main as evaluate
from fmnist_lit.loggers.progress_bar import ProgressBar
from fmnist_lit.run.checkpoint import RunCheckpoint, load_checkpoint
from fmnist_lit.run.files import read_json, write_json
from fmnist_lit.sweep.plan import read_plan
from fmnist_lit.sweep.summary import summarize

HERE = Path(__file__).parent
VERSIONS = [folder.name for folder in sorted(HERE.glob("made_by_*"))]
RUNS = [folder.parent.relative_to(HERE).as_posix() for folder in sorted(HERE.glob("made_by_*/*/checkpoints"))]
SWEEPS = [file.parent.relative_to(HERE).as_posix() for file in sorted(HERE.glob("made_by_*/*/sweep.json"))]


@pytest.fixture
def old(tmp_path, monkeypatch) -> Path:
    """A copy of all of them, which is the working folder."""
    for version in VERSIONS:
        shutil.copytree(HERE / version, tmp_path / version)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def given(folder: Path) -> list[str]:
    """The words of the command line that made a run."""
    return [line[2:] for line in read(folder / ".hydra" / "overrides.yaml").splitlines()]


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "summary.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_there_is_something_of_each_kind_and_no_path_of_a_machine():
    assert len(RUNS) >= 6
    assert len(SWEEPS) >= 4
    files = [file for version in VERSIONS for file in (HERE / version).rglob("*") if file.is_file()]
    machine = re.compile(rb"/(?:root|Users)/|/tmp/(?!project/)|[A-Z]:\\\\")
    assert [file for file in files if machine.search(file.read_bytes())] == []


@pytest.mark.parametrize("run", RUNS)
def test_classifier_is_loaded(run):
    classifier = fmnist_lit.load_classifier(HERE / run)
    predictions = classifier.predict(torch.zeros(2, 28, 28, dtype=torch.uint8))
    assert predictions.probabilities.shape == (2, 10)
    assert classifier.dataset == "synthetic"


@pytest.mark.parametrize("run", [run for run in RUNS if run.endswith(("completed", "cnn"))])
def test_evaluation_gives_the_figures_that_were_written(old, capsys, run):
    assert evaluate([run]) == 0
    assert ", as in results.json" in capsys.readouterr().out


@pytest.mark.parametrize("run", ["made_by_0_1/part", "made_by_0_2/interrupted"])
def test_run_goes_on_to_the_bits_of_an_uninterrupted_one(old, launch_here, run):
    """They were stopped after 17 steps, 12 an epoch, in the middle of the second: one by max_steps, one by a signal."""
    assert load_checkpoint(Path(run, "checkpoints", "last.ckpt"))["position"]["batches"] == 5
    assert launch_here(f"ckpt_path='{run}'", "trainer.max_steps=-1", "data.source=synthetic") == 0
    words = [word for word in given(HERE / run) if "max_steps" not in word]
    assert launch_here(*words, "hydra.run.dir=whole") == 0
    a, b = (load_checkpoint(Path(folder, "checkpoints", "last.ckpt"))["state_dict"] for folder in (run, "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    figures = ("test_accuracy", "test_loss", "val_accuracy", "best_epoch", "steps")
    gone_on, whole = (read_json(Path(folder, "results.json")) for folder in (run, "whole"))
    assert [gone_on[key] for key in figures] == [whole[key] for key in figures]


@pytest.mark.parametrize("version", VERSIONS)
def test_plateau_that_had_been_stepped_is_not_stepped_again(old, launch_here, version):
    assert launch_here(f"ckpt_path='{version}/completed'", "trainer.max_epochs=3") == 0
    then, now = (read_json(folder / version / "completed" / "results.json") for folder in (HERE, old))
    assert now["epochs"] == 3
    assert (now["tags"], now["note"]) == (then.get("tags", []), then.get("note"))
    assert now["select"]["metric"] == then.get("select", {"metric": "accuracy/val"})["metric"]


@pytest.mark.parametrize("sweep", SWEEPS)
def test_sweep_is_summarised_as_it_was(old, sweep):
    version, _ = sweep.split("/")
    text = summarize([old / sweep], charts=False).text
    assert f"{len(read_plan(HERE / sweep).jobs)} jobs" in text
    then, now = (folder / sweep for folder in (HERE, old))
    if version == "made_by_0_1":  # whose table had fewer columns
        assert [{**row, **past} for row, past in zip(rows(now), rows(then), strict=True)] == rows(now)
    else:
        assert read(now / "summary.csv") == read(then / "summary.csv")
        pages = [read(folder / "summary.md").partition("## Charts")[0] for folder in (now, then)]
        board = r"Curves and hyper-parameters:\n\n    tensorboard .*\n\n"  # which has the folder's place
        assert len({re.sub(board, "", page) for page in pages}) == 1


@pytest.fixture
def ran(monkeypatch) -> list[str]:
    """The folders of jobs, which only write that they are completed."""
    names = []

    def run(cfg):
        names.append(Path(cfg.run_dir).name)
        write_json(Path(cfg.run_dir) / "results.json", {"status": "completed", "val_accuracy": 0.5})
        return 0.5

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    monkeypatch.setattr(sweeps, "summarize", lambda folders, charts: summarize(folders, charts=False))
    return names


def command_of(sweep: str) -> list[str]:
    """What goes on with a sweep."""
    return [*shlex.split(read_plan(HERE / sweep).command)[3:], f"hydra.sweep.dir={sweep}"]


@pytest.mark.parametrize("version", VERSIONS)
def test_grid_goes_on(old, launch_here, ran, version):
    sweep = f"{version}/sweep"
    assert launch_here(*command_of(sweep)) == (1 if rows(HERE / sweep)[-1]["status"] == "diverged" else 0)
    assert ran == []
    (job, *_) = (row["folder"] for row in rows(HERE / sweep) if row["status"] == "completed")
    write_json(Path(sweep, job, "results.json"), {"status": "failed"})
    launch_here(*command_of(sweep), "optimizer.lr=0.3,0.1")
    assert {job, "optimizer.lr=0.3,seed=0", "optimizer.lr=0.3,seed=1"} <= set(ran)
    there = {row["folder"] for row in rows(HERE / sweep)} - {job}
    assert set(ran) & there == set()


def test_halving_that_has_ended_has_nothing_left_to_do(old, launch_here, ran):
    assert launch_here(*command_of("made_by_0_2/halving")) == 0
    assert ran == []


def test_search_goes_on(old, launch_here, ran):
    pytest.importorskip("optuna", minversion="5")
    assert launch_here(*command_of("made_by_0_2/search")) == 0
    assert ran == []
    assert launch_here(*command_of("made_by_0_2/search"), "hydra.sweeper.n_trials=6") == 0
    assert [name.partition("_")[0] for name in ran] == ["4", "5"]


MOVED = {
    "fmnist_lit.checkpoint.RunCheckpoint": RunCheckpoint,
    "fmnist_lit.progress.ProgressBar": ProgressBar,
}


@pytest.mark.parametrize(("name", "expected"), MOVED.items())
def test_target_of_before_the_move_still_names_its_class(configure, tmp_path, name, expected):
    cfg = configure()
    options = {"run_dir": str(tmp_path)} if expected is RunCheckpoint else {}
    OmegaConf.update(cfg, "callbacks.kept", {"_target_": name, **options}, force_add=True)
    check_configuration(cfg)
    assert type(build(cfg.callbacks.kept)) is expected


@pytest.mark.parametrize("verb", ["evaluate", "predict", "export", "demo", "sweep"])
def test_module_that_people_run_is_still_there(verb, command):
    import subprocess
    import sys

    shown = subprocess.run(
        [sys.executable, "-m", f"fmnist_lit.{verb}", "--help"], capture_output=True, text=True, check=True
    )
    assert f"python -m fmnist_lit.{verb}" in shown.stdout
