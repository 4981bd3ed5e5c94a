"""The presets of conf/debug: what each shows, and that none of its figures is taken for a real one."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import QUIET, SMALL, options
from omegaconf import OmegaConf
from torch import nn

from fmnist_lit.build import make_datamodule, make_trainer
from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.debug import THE_REST, NestedProfiler, seconds_by_part
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.run.resume import require_same
from fmnist_lit.run.status import DivergedError
from fmnist_lit.train import train

PRESETS = ("nan", "one_batch", "overfit", "profile")
NOISY = pytest.mark.filterwarnings("ignore")  # of Lightning, about few batches; of torch, where a NaN came from
TINY = (*(word for word in SMALL if "max_epochs" not in word), *QUIET, "data.batch_size=32")
NAN = "debug='nan'"  # as Hydra's own grammar wants it; our command line takes it without the quotes


def results_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def test_every_preset_is_tested_here():
    assert options("debug") == sorted(PRESETS)


@NOISY
@pytest.mark.parametrize("preset", PRESETS)
def test_run_goes_into_a_folder_of_its_own_and_is_partial_wherever_it_is_shown(launch_here, tmp_path, capsys, preset):
    words = ("~callbacks.progress_bar", f"debug={preset}", "experiment=tutorial", "data.val_size=64")
    assert launch_here(*SMALL, *words) == 0
    assert [folder.name for folder in (tmp_path / "outputs").iterdir()] == ["debug"]
    (run_dir,) = (tmp_path / "outputs" / "debug").iterdir()
    results = results_of(run_dir)
    assert (results["status"], results["partial"]) == ("completed", f"debug={preset}")
    said = capsys.readouterr().out
    assert f"(debug={preset})" in said
    assert f"(PARTIAL: debug={preset})" in said
    assert all(line.endswith("| PARTIAL") for line in said.splitlines() if line.startswith("epoch "))


@NOISY
def test_each_job_of_a_study_runs_one_batch_and_none_is_ranked(launch_here, tmp_path, capsys):
    assert launch_here(*TINY, "study=momentum", "optimizer.lr=0.1", "optimizer.momentum=0,0.9", "debug=one_batch") == 0
    (sweep_dir,) = (tmp_path / "outputs" / "debug").iterdir()
    for momentum in ("0", "0.9"):
        results = results_of(sweep_dir / f"optimizer.momentum={momentum}")
        assert (results["steps"], results["epochs"], results["train_images"]) == (1, 1, 32)
    said = capsys.readouterr().out
    assert "Nothing is ranked: all figures are partial, debug=one_batch." in said
    assert "not ranked: its figures are partial, debug=one_batch" in said


@NOISY
@pytest.mark.parametrize("scheduler", options("scheduler"))
def test_one_batch_is_enough_for_every_schedule(configure, scheduler):
    assert train(configure("debug=one_batch", "trainer.max_epochs=1", f"scheduler={scheduler}"))["steps"] == 1


@NOISY
@pytest.mark.parametrize("optimizer", options("optimizer"))
def test_every_optimiser_memorises_at_its_own_learning_rate(configure, caplog, optimizer):
    caplog.set_level("INFO")
    settings = ("trainer.max_epochs=300", "data.batch_size=16", "model.hidden_sizes=[128]")
    results = train(configure("debug=overfit", f"optimizer={optimizer}", *settings))
    assert results["train_accuracy"] == 1.0
    assert results["stopped_by"] == "early_stopping: every training image is memorised"
    assert f"Memorised: all 64 training images are right after epoch {results['epochs']}" in caplog.text


@NOISY
def test_run_that_does_not_memorise_says_so(configure, caplog):
    train(configure("debug=overfit", "optimizer.lr=1e-6", "trainer.max_epochs=2"))
    assert re.search(r"NOT memorised: train accuracy \d+\.\d % of 256 images after epoch 2", caplog.text)


def test_batches_to_memorise_are_neither_shuffled_nor_augmented(configure):
    cfg = configure("debug=overfit", "data.augmentation.flip=true", "data.augmentation.shift=3")
    trainer = make_trainer(cfg)
    datamodule = make_datamodule(cfg, trainer)
    images, labels = (torch.cat(part) for part in zip(*datamodule.train_dataloader(), strict=True))
    assert torch.equal(labels, datamodule.train_images.labels)
    assert torch.equal(images, datamodule.scale(datamodule.train_images.pixels))


@NOISY
@pytest.mark.parametrize("steps", [1, 50])
def test_profile_is_on_the_screen_and_in_the_run_folder(configure, tmp_path, caplog, steps):
    caplog.set_level("INFO")
    run_job(configure("debug=profile", f"trainer.steps_per_batch={steps}"))
    report = (tmp_path / "run" / "profile.txt").read_text(encoding="utf-8")
    table = report.split("\n\n")[0]
    assert table in caplog.text
    assert "Profiler Report" not in caplog.text
    rows = dict(re.findall(r"^  (\S.*?) {2,}(\d+\.\d\d) s ", table, re.MULTILINE))
    assert {"data", "evaluation", "checkpoints", THE_REST, "together"} < rows.keys()
    assert ("optimiser steps" in rows) is (steps == 50)
    assert float(rows.pop("together")) == pytest.approx(sum(map(float, rows.values())), abs=0.05)
    assert "SingleDeviceStrategy.training_step" in report


def test_time_of_an_action_is_counted_once(monkeypatch):
    clock = iter([0.0, 1.0, 3.0, 4.0, 6.0, 10.0])
    monkeypatch.setattr("lightning.pytorch.profilers.simple.time.perf_counter", lambda: next(clock))
    profiler = NestedProfiler.__new__(NestedProfiler)
    with monkeypatch.context() as patch:
        patch.setattr("lightning.pytorch.profilers.simple.time.perf_counter", lambda: 0.0)
        profiler.__init__(torch.device("cpu"))
    with profiler.profile("[LightningModule]Classifier.optimizer_step"):  # 0 to 10
        with profiler.profile("[Strategy]X.training_step"):  # 1 to 3
            pass
        with profiler.profile("[Strategy]X.backward"):  # 4 to 6
            pass
    parts = seconds_by_part(profiler.own_seconds, total=12.0)
    assert (parts["optimiser"], parts["forward and loss"], parts["backward"], parts[THE_REST]) == (6.0, 2.0, 2.0, 2.0)


class Root(nn.Module):
    """Of nothing but zeros, so that its derivative is infinite and, times zero, not a number."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return (values * 0).sqrt()


@NOISY
@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (("optimizer.lr=1e12",), r"a value in the output of model\.\d \(\w+\)|a value of model\.\d\.weight"),
        (("regularization.l1=1e39",), "the loss"),
    ],
)
def test_first_value_that_is_not_finite_is_named(configure, tmp_path, caplog, overrides, what):
    run_job(configure(NAN, *overrides))
    results = results_of(tmp_path / "run")
    assert (results["status"], results["partial"]) == ("diverged", "debug=nan")
    assert re.fullmatch(what, results["diverged_in"])
    where = f"{results['diverged_in']} is not a finite number at step {results['diverged_step']}"
    assert f"Diverged: {where}." in caplog.text


@NOISY
def test_operation_whose_gradient_is_not_a_number_is_named(configure, monkeypatch):
    monkeypatch.setattr(
        "fmnist_lit.train.make_model", lambda *_: nn.Sequential(nn.Flatten(), nn.Linear(784, 10), Root())
    )
    with pytest.raises(DivergedError, match="a gradient out of MulBackward0 is not a finite number at step 1"):
        train(configure(NAN))


@NOISY
def test_pixel_that_is_not_a_number_is_named(configure, monkeypatch):
    monkeypatch.setattr("fmnist_lit.data.images.Scaling.__call__", lambda self, pixels: pixels * torch.nan)
    with pytest.raises(DivergedError, match="a pixel of the batch is not a finite number at step 1"):
        train(configure(NAN))


@NOISY
def test_debug_run_is_resumed_as_one(launch_here, tmp_path):
    assert launch_here(*TINY, "debug=nan", "hydra.run.dir=run", "trainer.max_epochs=1") == 0
    assert launch_here("ckpt_path=run", "trainer.max_epochs=2") == 0
    assert (results_of(tmp_path / "run")["epochs"], results_of(tmp_path / "run")["partial"]) == (2, "debug=nan")
    assert load_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["hyper_parameters"]["debug"] == "nan"
    cfg = OmegaConf.load(tmp_path / "run" / ".hydra" / "config.yaml")
    now = OmegaConf.merge(cfg, {"debug": None})
    with pytest.raises(ConfigError, match=r"debug=None: the run in .* has nan; resuming keeps it"):
        require_same(OmegaConf.to_container(cfg), OmegaConf.to_container(now), "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("debug=nam",), "debug=nam: must be one of nan, one_batch, overfit, profile; did you mean nan?"),
        (("-m", "debug=nan,profile"), "debug=nan,profile: must be the name of one file in conf/debug"),
        (("debug=[nan,profile]",), "debug=[nan,profile]: must be the name of one file in conf/debug"),
        (("debug=3",), "debug=3: must be the name of one file in conf/debug"),
        (("~debug",), "~debug: cannot be left out"),
        (("~optimizer",), "~optimizer: cannot be left out"),
    ],
    ids=str,
)
def test_preset_that_there_is_not_is_refused_in_one_line(launch_here, tmp_path, capsys, words, said):
    assert launch_here(*words) == 2
    assert capsys.readouterr().err.splitlines() == [f"error: {said}"]
    assert not list(tmp_path.iterdir())
