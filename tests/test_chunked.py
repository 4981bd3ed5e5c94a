"""The fast class ends in the bits of the textbook's, and makes way for whatever acts on single optimiser steps."""

import csv
import logging
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from conftest import QUIET, SMALL, chosen, options, pairs
from interruptions import HARDEST, RUN, outcome, signal_at
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    EarlyStopping,
    LambdaCallback,
    LearningRateMonitor,
    ModelCheckpoint,
    ModelSummary,
    RichProgressBar,
    Timer,
    WeightAveraging,
)
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.averaging import WeightEMA
from fmnist_lit.build import make_classifier, make_datamodule, make_trainer
from fmnist_lit.chunked import ChunkedClassifier, acts_by_step, what_needs_single_steps
from fmnist_lit.classifier import Classifier
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.train import train


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]


def figures(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def assert_same(first: Path, second: Path) -> None:
    """Weights and figures, to the last bit."""
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert figures(first) == figures(second)


# The same bits


@pytest.fixture(scope="module")
def small_cfg() -> DictConfig:
    overrides = [*SMALL, *QUIET, "data.batch_size=40", "trainer.max_epochs=2", "data.train_size=200", "run_dir=''"]
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides)


@pytest.mark.parametrize(
    ("optimizer", "scheduler", "loss"), pairs(options("optimizer"), options("scheduler"), options("loss"))
)
def test_both_classes_end_in_the_same_bits(small_cfg, tmp_path, loss, optimizer, scheduler):
    for steps in (1, 50):
        cfg = small_cfg.copy()
        cfg.run_dir = str(tmp_path / str(steps))
        cfg.loss, cfg.optimizer, cfg.scheduler = (
            chosen("loss", loss),
            chosen("optimizer", optimizer),
            chosen("scheduler", scheduler),
        )
        cfg.trainer.steps_per_batch = steps
        if "patience" in cfg.scheduler:
            cfg.scheduler.patience = 0
        train(cfg)
    assert_same(tmp_path / "1", tmp_path / "50")


SETTINGS = {
    "dropout": ["model.dropout=0.3", "optimizer=adam"],
    "clipping": ["trainer.gradient_clip_val=0.05", "optimizer=sgd_momentum"],
    "clipping in bf16 with a fused optimiser": ["trainer.gradient_clip_val=0.05", "trainer.precision=bf16-mixed"],
    "accumulation": ["trainer.accumulate_grad_batches=3", "optimizer=adam", "scheduler=one_cycle"],
    "L1 penalty": ["regularization.l1=1e-3", "optimizer.lr=0.1"],
    "EMA": ["callbacks=ema", "optimizer=adam", "scheduler=cosine"],
    "plateau": ["scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-6", "trainer.max_epochs=4"],
    "augmentation": ["data.augmentation.flip=true", "data.augmentation.shift=2", "data.normalize=true"],
    "no decay of biases": ["regularization.decay_biases=false", "optimizer=adamw", "optimizer.weight_decay=0.1"],
    "flip average": ["flip_average=true", "optimizer=adam"],
    "max_steps": ["trainer.max_steps=11", "optimizer=adam"],
    "64 bits": ["trainer.precision=64-true", "optimizer=adam"],
    "all together": [
        *("model.dropout=0.2", "model.batch_norm=true", "trainer.gradient_clip_val=0.5", "regularization.l1=1e-5"),
        *("trainer.accumulate_grad_batches=2", "callbacks=ema", "optimizer=muon", "scheduler=warmup_linear"),
    ],
}


@pytest.mark.parametrize("overrides", SETTINGS.values(), ids=SETTINGS)
def test_both_classes_end_in_the_same_bits_with(configure, tmp_path, overrides):
    sizes = ("data.batch_size=30", "data.train_size=250")
    for steps in (1, 50):
        train(configure(*sizes, *overrides, f"trainer.steps_per_batch={steps}", run_dir=f"{steps}"))
    assert_same(tmp_path / "1", tmp_path / "50")


@pytest.mark.parametrize("stop", [1, 8, 11])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (1, 50), (50, 1), (3, 50)])
def test_either_class_goes_on_with_what_the_other_left_in_mid_epoch(configure, tmp_path, before, after, stop):
    whole = configure(*RUN, *HARDEST, run_dir="whole")
    run_job(whole)
    with signal_at(stop), pytest.raises(SystemExit, match="143"):
        run_job(configure(*RUN, *HARDEST, f"trainer.steps_per_batch={before}"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run_job(configure(*RUN, *HARDEST, f"trainer.steps_per_batch={after}", f"ckpt_path='{last}'"))
    assert without_loops(outcome(tmp_path / "run")) == without_loops(outcome(tmp_path / "whole"))
    a, b = weights(tmp_path / "run"), weights(tmp_path / "whole")
    assert all(torch.equal(a[name], b[name]) for name in a)


def without_loops(left: dict[str, Any]) -> dict[str, Any]:
    return {key: left[key] for key in ("results", "rows")}


@pytest.mark.parametrize("stop", [3, 10, 12])
def test_plateau_is_stepped_once_an_epoch_where_the_textbook_class_is_stopped(configure, tmp_path, stop):
    """Lightning steps it after the epoch's checkpoint: who goes on from there has to."""
    plateau = (*RUN, "scheduler=plateau", "scheduler.patience=0", "optimizer.lr=1e-6", "trainer.steps_per_batch=1")
    run_job(configure(*plateau, run_dir="whole"))
    run_job(configure(*plateau, "trainer.max_epochs=1"))  # ends with an epoch, which is where it matters
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    with signal_at(8 + stop), pytest.raises(SystemExit, match="143"):
        run_job(configure(*plateau, f"ckpt_path='{last}'"))
    run_job(configure(*plateau, f"ckpt_path='{last}'"))
    assert [row["lr"] for row in figures(tmp_path / "run")] == [row["lr"] for row in figures(tmp_path / "whole")]
    rates = [float(row["lr"]) for row in figures(tmp_path / "whole")]
    assert rates[-1] < rates[0]


# Which class trains


def trained_by(cfg: DictConfig) -> type[Classifier]:
    trainer = make_trainer(cfg)
    datamodule = make_datamodule(cfg, trainer)
    return type(make_classifier(cfg, torch.nn.Linear(1, 1), datamodule))


@pytest.mark.parametrize(("steps", "expected"), [("auto", ChunkedClassifier), (1, Classifier), (7, ChunkedClassifier)])
def test_number_forces_the_class(configure, steps, expected):
    cfg = configure(f"trainer.steps_per_batch={steps}")
    assert trained_by(cfg) is expected
    assert cfg.trainer.steps_per_batch == (50 if steps == "auto" else steps)


PER_STEP = {
    "lightning.pytorch.callbacks.LearningRateFinder": {},
    "lightning.pytorch.callbacks.BatchSizeFinder": {},
    "lightning.pytorch.callbacks.GradientAccumulationScheduler": {"scheduling": {1: 2}},
    "lightning.pytorch.callbacks.ModelCheckpoint": {"every_n_train_steps": 3},
    "lightning.pytorch.callbacks.StochasticWeightAveraging": {"swa_lrs": 0.05},
    "lightning.pytorch.callbacks.EMAWeightAveraging": {},
    "lightning.pytorch.callbacks.LearningRateMonitor": {},
    "lightning.pytorch.callbacks.RichProgressBar": {},
    "lightning.pytorch.callbacks.DeviceStatsMonitor": {},
}


@pytest.mark.parametrize("name", PER_STEP)
def test_callback_that_acts_by_step_gets_the_textbook_class_and_is_named(configure, caplog, name):
    cfg = configure("logger=csv")
    OmegaConf.update(cfg, "callbacks.added", {"_target_": name, **PER_STEP[name]}, force_add=True)
    caplog.set_level(logging.INFO)
    assert trained_by(cfg) is Classifier
    assert any(name.rpartition(".")[2] in record.message for record in caplog.records)


@pytest.mark.parametrize(
    "option",
    ["limit_train_batches=3", "overfit_batches=2", "val_check_interval=0.5", "profiler=simple", "fast_dev_run=true"],
)
def test_option_that_counts_batches_gets_the_textbook_class_and_is_named(configure, caplog, option):
    caplog.set_level(logging.INFO)
    cfg = configure(f"+trainer.{option}")
    assert trained_by(cfg) is Classifier
    assert any(f"trainer.{option.split('=')[0]}" in record.message for record in caplog.records)


@pytest.mark.parametrize("option", ["limit_train_batches=3", "overfit_batches=2"])
def test_option_that_counts_batches_is_refused_beside_a_chunk(configure, option):
    with pytest.raises(ConfigError, match=r"trainer\.steps_per_batch=50: .*must be 1 or auto"):
        trained_by(configure(f"+trainer.{option}", "trainer.steps_per_batch=50"))


def test_forced_chunk_warns_of_what_it_hides(configure, caplog):
    added = "+callbacks.x._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    assert trained_by(configure(added, "trainer.steps_per_batch=50")) is ChunkedClassifier
    assert any("LearningRateMonitor" in record.message for record in caplog.records if record.levelname == "WARNING")


class ByEpoch(Callback):
    def on_train_epoch_end(self, *_: Any) -> None: ...


class ByBatch(Callback):
    def on_train_batch_end(self, *_: Any) -> None: ...


class ByGradient(Callback):
    def on_after_backward(self, *_: Any) -> None: ...


@pytest.mark.parametrize(
    ("callback", "acts"),
    [
        (ByEpoch(), False),
        (ByBatch(), True),
        (ByGradient(), True),
        (LambdaCallback(on_train_epoch_end=print), False),
        (LambdaCallback(on_before_optimizer_step=print), True),
        (EarlyStopping("loss/val"), False),
        (ModelSummary(), False),
        (Timer(), False),
        (ModelCheckpoint(), False),
        (ModelCheckpoint(every_n_train_steps=5), True),
        (LearningRateMonitor("epoch"), False),
        (LearningRateMonitor("step"), True),
        (RichProgressBar(), True),
        (WeightAveraging(), True),
        (WeightEMA(), False),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_acts_by_step(callback, acts):
    assert acts_by_step(callback) is acts


def test_nothing_needs_single_steps_by_default(configure):
    cfg = configure("callbacks=ema", "logger=default")
    assert what_needs_single_steps(cfg.trainer, [WeightEMA(), EarlyStopping("loss/val")]) is None


# One training_step


def test_chunk_calls_the_textbooks_training_step_for_each_batch(configure, monkeypatch):
    seen = []
    step = Classifier.training_step
    monkeypatch.setattr(
        Classifier, "training_step", lambda self, batch, index: seen.append(len(batch[1])) or step(self, batch, index)
    )
    train(configure("data.batch_size=100", "data.train_size=250", "trainer.max_epochs=1"))
    assert seen == [100, 100, 50]
