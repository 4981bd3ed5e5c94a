"""Run folders, checkpoints and sweeps that version 0.1 left (tests/made_by_0_1) are of use to today's code."""

import shlex
import shutil
from pathlib import Path

import pytest
import torch
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
from fmnist_lit.sweep.__main__ import main as sweep
from fmnist_lit.sweep.plan import read_plan

OLD = Path(__file__).parent / "made_by_0_1"


@pytest.fixture
def old(tmp_path) -> Path:
    shutil.copytree(OLD, tmp_path / "old")
    return tmp_path / "old"


def test_classifier_is_loaded(old):
    classifier = fmnist_lit.load_classifier(old / "completed")
    predictions = classifier.predict(torch.zeros(2, 28, 28, dtype=torch.uint8))
    assert predictions.probabilities.shape == (2, 10)
    assert classifier.dataset == "synthetic"


def test_evaluation_gives_the_figures_that_were_written(old, capsys):
    assert evaluate([str(old / "completed")]) == 0
    assert ", as in results.json" in capsys.readouterr().out


def test_run_goes_on_to_the_bits_of_an_uninterrupted_one(old, launch_here):
    """It was stopped by max_steps=17 of 12 a epoch, in the middle of the second."""
    assert load_checkpoint(old / "part" / "checkpoints" / "last.ckpt")["position"]["batches"] == 5
    assert launch_here(f"ckpt_path='{old / 'part'}'", "trainer.max_steps=-1", "data.source=synthetic") == 0
    words = [line[2:] for line in (OLD / "part" / ".hydra" / "overrides.yaml").read_text().splitlines()]
    assert launch_here(*(word for word in words if "max_steps" not in word), "hydra.run.dir=whole") == 0
    a, b = (
        load_checkpoint(folder / "checkpoints" / "last.ckpt")["state_dict"] for folder in (old / "part", Path("whole"))
    )
    assert all(torch.equal(a[name], b[name]) for name in a)
    figures = ("test_accuracy", "test_loss", "val_accuracy", "best_epoch", "steps")
    assert [read_json(old / "part" / "results.json")[key] for key in figures] == [
        read_json(Path("whole", "results.json"))[key] for key in figures
    ]


def test_plateau_that_had_been_stepped_is_not_stepped_again(old, launch_here):
    assert launch_here(f"ckpt_path='{old / 'completed'}'", "trainer.max_epochs=3") == 0
    assert read_json(old / "completed" / "results.json")["epochs"] == 3


def test_sweep_is_summarised(old, capsys):
    assert sweep([str(old / "sweep")]) == 0
    assert "4 jobs" in capsys.readouterr().out


def test_sweep_goes_on(old, launch_here, monkeypatch):
    ran = []

    def run(cfg):
        ran.append(Path(cfg.run_dir).name)
        write_json(Path(cfg.run_dir) / "results.json", {"status": "completed"})

    monkeypatch.setattr(fmnist_lit.command_line.launch, "run_job", run)
    summarize = sweeps.summarize
    monkeypatch.setattr(sweeps, "summarize", lambda folders, charts: summarize(folders, charts=False))
    words = [*shlex.split(read_plan(old / "sweep").command)[3:], "hydra.sweep.dir=old/sweep"]
    assert launch_here(*words) == 0
    assert ran == []
    write_json(old / "sweep" / "optimizer.lr=0.1,seed=0" / "results.json", {"status": "failed"})
    assert launch_here(*words, "optimizer.lr=0.3,0.1,0.01") == 0
    assert ran == ["optimizer.lr=0.1,seed=0", "optimizer.lr=0.3,seed=0", "optimizer.lr=0.3,seed=1"]


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
