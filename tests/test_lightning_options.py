"""Whatever of Lightning's Trainer and callbacks a configuration names: it works, or it is refused with the reason."""

import csv
import hashlib
import inspect
import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch import callbacks as lightning_callbacks
from omegaconf import OmegaConf

from fmnist_lit.build import count_steps, make_datamodule, make_trainer
from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_configuration
from fmnist_lit.config.lightning_options import REFUSED_CALLBACKS, REFUSED_TRAINER_OPTIONS
from fmnist_lit.evaluate.__main__ import main as evaluate
from fmnist_lit.run.checkpoint import load_checkpoint
from fmnist_lit.sweep.jobs import why_not_ranked
from fmnist_lit.train import train

NOISY = pytest.mark.filterwarnings("ignore")  # of Lightning, about its own options
SIZES = ("data.train_size=160", "data.val_size=64", "data.test_size=100", "data.batch_size=32", "optimizer.lr=0.1")


def results_of(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text(encoding="utf-8"))


def rows_of(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def digest(checkpoint: Path) -> str:
    """As results.json says it, computed by itself."""
    digest = hashlib.sha256()
    for name, tensor in sorted(load_checkpoint(checkpoint)["state_dict"].items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def assert_honest(run_dir: Path) -> None:
    """What was tested is the checkpoint that is named, and the images are those that are counted."""
    results = results_of(run_dir)
    assert results["status"] == "completed", results
    assert results["weights_sha256"] == digest(run_dir / results["checkpoint"])
    whole = {"train_images": 160, "val_images": 64, "test_images": 100}
    if {name: results[name] for name in whole} != whole:
        assert results["partial"], results


# All of them


TRAINER = {
    # what a run has rules for, or sets itself, is in other tests
    **dict.fromkeys(("accelerator", "strategy", "devices", "precision", "max_epochs", "max_steps"), None),
    **dict.fromkeys(("gradient_clip_val", "accumulate_grad_batches"), None),
    "num_nodes": [1],
    "fast_dev_run": [True, 2],
    "min_epochs": [1],
    "min_steps": [3],
    "max_time": ["00:01:00:00"],
    "limit_train_batches": [2, 0.5],
    "limit_val_batches": [1, 0.5, 0],
    "limit_test_batches": [1, 0.5, 0],
    "overfit_batches": [2, 0.5],
    "val_check_interval": [0.5, 2],
    "check_val_every_n_epoch": [2],
    "num_sanity_val_steps": [1],
    "log_every_n_steps": [3],
    "enable_model_summary": [True, False],
    "gradient_clip_algorithm": ["value", "norm"],
    "deterministic": [True],
    "benchmark": [False],
    "inference_mode": [False],
    "profiler": ["simple"],
    "detect_anomaly": [True],
    "sync_batchnorm": [True],
    "reload_dataloaders_every_n_epochs": [1],
    "enable_autolog_hparams": [False],
    **dict.fromkeys(REFUSED_TRAINER_OPTIONS, None),
}
GIVEN = [(name, value) for name, values in TRAINER.items() for value in values or []]


def test_every_option_of_the_installed_trainer_has_an_answer():
    options = set(inspect.signature(pl.Trainer.__init__).parameters) - {"self"}
    assert options - TRAINER.keys() == set(), "a new option: does it work as in plain Lightning, or is it refused?"
    assert REFUSED_TRAINER_OPTIONS.keys() <= options, "an option that Lightning no longer has"


@NOISY
@pytest.mark.parametrize(("name", "value"), GIVEN, ids=lambda value: str(value))
def test_option_of_the_trainer_leaves_an_honest_run(configure, tmp_path, name, value):
    cfg = configure(*SIZES, "trainer.max_epochs=3", "data.eval_batch_size=30", "logger=[csv,tensorboard]")
    OmegaConf.update(cfg, f"trainer.{name}", value, force_add=True)
    run_job(cfg)
    assert_honest(tmp_path / "run")


@pytest.mark.parametrize("name", REFUSED_TRAINER_OPTIONS)
def test_option_that_a_run_cannot_have_is_refused_with_the_reason(configure, name):
    cfg = configure()
    OmegaConf.update(cfg, f"trainer.{name}", False, force_add=True)
    with pytest.raises(ConfigError, match=rf"trainer\.{name}=false: not an option of a run; "):
        check_configuration(cfg)


CALLBACKS: dict[str, dict[str, Any] | None] = {
    "BatchSizeFinder": {"max_trials": 1, "steps_per_trial": 1, "init_val": 8},
    "Callback": {},
    "Checkpoint": {},
    "DeviceStatsMonitor": {},
    "EarlyStopping": {"monitor": "loss/val", "patience": 0, "min_delta": 10},
    "EMAWeightAveraging": {"decay": 0.9},
    "GradientAccumulationScheduler": {"scheduling": {0: 2}},
    "LearningRateFinder": {"num_training_steps": 20},
    "LearningRateMonitor": {},
    "ModelCheckpoint": {"every_n_train_steps": 4},
    "ModelPruning": {"pruning_fn": "l1_unstructured", "amount": 0.5},
    "ModelSummary": {},
    "OnExceptionCheckpoint": {"dirpath": "exception"},
    "RichModelSummary": {},
    "RichProgressBar": {},
    "SpikeDetection": None,
    "StochasticWeightAveraging": {"swa_lrs": 0.05},
    "TQDMProgressBar": {},
    "Timer": {"duration": "00:01:00:00"},
    "WeightAveraging": {},
    **dict.fromkeys(REFUSED_CALLBACKS, None),
}


def test_every_callback_of_the_installed_lightning_has_an_answer():
    assert set(lightning_callbacks.__all__) - CALLBACKS.keys() == set(), "does it work here, or is it refused?"


@NOISY
@pytest.mark.parametrize("name", [name for name, options in CALLBACKS.items() if options is not None])
def test_callback_leaves_an_honest_run(configure, tmp_path, monkeypatch, name):
    if name == "DeviceStatsMonitor":
        pytest.importorskip("psutil")
    if name not in lightning_callbacks.__all__:
        pytest.skip("not in this Lightning")
    monkeypatch.chdir(tmp_path)
    cfg = configure(*SIZES, "trainer.max_epochs=3", "logger=[csv,tensorboard]")
    target = {"_target_": f"lightning.pytorch.callbacks.{name}", **(CALLBACKS[name] or {})}
    OmegaConf.update(cfg, "callbacks.added", target, force_add=True)
    run_job(cfg)
    assert_honest(tmp_path / "run")


@pytest.mark.parametrize("name", REFUSED_CALLBACKS)
def test_callback_that_a_run_cannot_have_is_refused_with_the_reason(configure, name):
    cfg = configure()
    target = {"_target_": f"lightning.pytorch.callbacks.{name}"}
    OmegaConf.update(cfg, "callbacks.added", target, force_add=True)
    with pytest.raises(ConfigError, match=rf"callbacks\.added\._target_=.*{name}: cannot be used; "):
        check_configuration(cfg)


# Weights


SWA = "+callbacks.swa={_target_:lightning.pytorch.callbacks.StochasticWeightAveraging,swa_lrs:0.05,swa_epoch_start:2}"


@NOISY
def test_averaged_weights_are_in_a_checkpoint_and_are_what_is_tested(configure, tmp_path, capsys):
    """Without validation nothing else competes."""
    run_job(configure(*SIZES, SWA, "trainer.max_epochs=6", "data.val_size=0"))
    results = results_of(tmp_path / "run")
    assert (results["checkpoint"], results["best_epoch"]) == ("checkpoints/final.ckpt", None)
    assert results["weights_sha256"] == digest(tmp_path / "run" / "checkpoints" / "final.ckpt")
    assert results["weights_sha256"] != digest(tmp_path / "run" / "checkpoints" / "last.ckpt")
    assert evaluate([str(tmp_path / "run")]) == 0
    assert ", as in results.json" in capsys.readouterr().out


@NOISY
@pytest.mark.parametrize("lr", [0.05, 1.0])
def test_averaged_weights_compete_on_validation(configure, tmp_path, caplog, lr):
    caplog.set_level("INFO")
    train_long = ("trainer.max_epochs=6", f"optimizer.lr={lr}")
    run_job(configure(*SIZES, SWA, *train_long))
    results = results_of(tmp_path / "run")
    assert results["weights_sha256"] == digest(tmp_path / "run" / results["checkpoint"])
    epochs = [float(row["val_accuracy"]) for row in rows_of(tmp_path / "run")]
    assert results["val_accuracy"] >= max(epochs)
    said = any("is tested instead" in record.message for record in caplog.records)
    assert said is (results["checkpoint"] != "checkpoints/final.ckpt")


def test_evaluation_says_that_the_checkpoint_is_another(configure, tmp_path, capsys):
    run_job(configure(*SIZES))
    best, last = (tmp_path / "run" / "checkpoints" / f"{name}.ckpt" for name in ("best", "last"))
    content = load_checkpoint(last)
    content["state_dict"] = {name: tensor + 0.01 for name, tensor in content["state_dict"].items()}
    best.unlink()
    torch.save(content, best)
    assert evaluate([str(tmp_path / "run")]) == 0
    assert "NOT as in results.json: best.ckpt does not hold the weights that were tested" in capsys.readouterr().out


def test_evaluation_says_that_it_does_not_know(configure, tmp_path, capsys):
    run_job(configure(*SIZES))
    results = results_of(tmp_path / "run")
    results["test_loss"] += 1
    (tmp_path / "run" / "results.json").write_text(json.dumps(results), encoding="utf-8")
    assert evaluate([str(tmp_path / "run")]) == 0
    assert "NOT as in results.json: the reason is not known" in capsys.readouterr().out


# Epochs


@pytest.mark.parametrize("steps", [1, 50])
def test_figure_that_is_older_than_its_epoch_is_empty(configure, tmp_path, caplog, steps):
    caplog.set_level("INFO")
    every_other = ("+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=5", f"trainer.steps_per_batch={steps}")
    run_job(configure(*SIZES, *every_other, "logger=default"))
    assert [bool(row["val_accuracy"]) for row in rows_of(tmp_path / "run")] == [False, True, False, True, False]
    lines = [record.message for record in caplog.records if record.message.startswith("epoch ")]
    assert [" val " in line for line in lines] == [False, True, False, True, False]
    assert results_of(tmp_path / "run")["best_epoch"] in (2, 4)


@NOISY
def test_validation_in_mid_epoch_is_none_of_the_epochs_end(configure, tmp_path):
    run_job(configure(*SIZES, "+trainer.val_check_interval=0.7", "trainer.max_epochs=2"))
    assert [row["val_accuracy"] for row in rows_of(tmp_path / "run")] == ["", ""]
    assert_honest(tmp_path / "run")


# Images


@pytest.mark.parametrize("option", ["limit_test_batches=1", "limit_val_batches=1", "limit_train_batches=2"])
def test_images_that_are_announced_are_those_that_are_counted(configure, tmp_path, caplog, option):
    caplog.set_level("INFO")
    run_job(configure(*SIZES, f"+trainer.{option}", "data.eval_batch_size=30"))
    results = results_of(tmp_path / "run")
    (line,) = [record.message for record in caplog.records if " training, " in record.message]
    counts = {"test": (25, 100), "val": (22, 64), "train": (64, 160)}[option.split("_")[1]]
    assert f"{counts[0]} of {counts[1]} " in line
    assert f"(trainer.{option})" in line
    assert results[f"{option.split('_')[1]}_images"] == counts[0]
    assert results["partial"] == f"trainer.{option}"
    assert f"(PARTIAL: trainer.{option})" in caplog.text
    assert all(record.message.endswith("| PARTIAL") for record in caplog.records if record.message.startswith("epoch "))


def test_partial_run_is_never_ranked(configure, tmp_path):
    run_job(configure(*SIZES, "+trainer.fast_dev_run=true"))
    assert "are partial" in why_not_ranked(results_of(tmp_path / "run"))


def test_evaluation_says_that_the_results_are_of_a_part(configure, tmp_path, capsys):
    run_job(configure(*SIZES, "+trainer.limit_test_batches=1", "data.eval_batch_size=30"))
    assert evaluate([str(tmp_path / "run")]) == 0
    assert "those are partial, trainer.limit_test_batches=1" in capsys.readouterr().out


# What is asked for happens


@NOISY
def test_overfitting_sees_the_same_batches_each_epoch_and_memorises_them(configure, tmp_path):
    memorise = ("+trainer.overfit_batches=2", "trainer.max_epochs=60", "optimizer=adam", "optimizer.lr=0.01")
    run_job(configure(*SIZES, *memorise))
    assert float(rows_of(tmp_path / "run")[-1]["train_accuracy"]) == 1.0


@NOISY
@pytest.mark.parametrize(
    ("overrides", "steps"),
    [
        ([], 3 * 5),
        (["+trainer.limit_train_batches=2"], 3 * 2),
        (["+trainer.overfit_batches=2"], 3 * 2),
        (["+trainer.fast_dev_run=true"], 1),
        (["trainer.max_steps=7"], 7),
        (["trainer.accumulate_grad_batches=2"], 3 * 3),
        (
            [
                "+callbacks.g._target_=lightning.pytorch.callbacks.GradientAccumulationScheduler",
                "+callbacks.g.scheduling={0:1,1:2}",
            ],
            5 + 3 + 3,
        ),
    ],
    ids=str,
)
def test_schedule_is_laid_out_for_the_steps_that_are_taken(configure, overrides, steps):
    cfg = configure(*SIZES, "trainer.max_epochs=3", "scheduler=warmup_linear", *overrides)
    trainer = make_trainer(cfg)
    assert count_steps(trainer, make_datamodule(cfg, trainer), cfg.trainer) == steps
    assert train(configure(*SIZES, "trainer.max_epochs=3", "scheduler=warmup_linear", *overrides))["steps"] == steps


@NOISY
@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["+trainer.profiler=simple"], "Profiler Report"),
        (["+callbacks.s._target_=lightning.pytorch.callbacks.ModelSummary"], "Trainable params"),
        (["+trainer.enable_model_summary=true"], "Trainable params"),
        (
            ["+callbacks.e={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:loss/val,verbose:true}"],
            "improved. New best score",
        ),
        (
            ["+callbacks.c={_target_:lightning.pytorch.callbacks.ModelCheckpoint,monitor:loss/val,verbose:true}"],
            "reached",
        ),
    ],
    ids=str,
)
def test_what_is_asked_to_speak_is_heard(configure, caplog, capsys, overrides, said):
    caplog.set_level("INFO")
    train(configure(*SIZES, *overrides))
    assert said in caplog.text + capsys.readouterr().out  # Rich writes to the screen itself
    for note in ("GPU available", "Tip:", "`Trainer.fit` stopped", "Restor"):
        assert note not in caplog.text


# Why did it end?


@NOISY
@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], "max_epochs"),
        (["trainer.max_steps=3"], "max_steps"),
        (["+trainer.max_time={seconds:0}"], "max_time"),
        (
            [
                "+callbacks.e={_target_:lightning.pytorch.callbacks.EarlyStopping,monitor:loss/val,patience:0,min_delta:9}"
            ],
            "early_stopping: Monitored metric loss/val did not improve in the last 1 records. Best score: ",
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("steps", [1, 50])
def test_results_say_what_ended_the_run(configure, tmp_path, caplog, overrides, reason, steps):
    caplog.set_level("INFO")
    run_job(configure(*SIZES, "trainer.max_epochs=4", f"trainer.steps_per_batch={steps}", *overrides))
    stopped_by = results_of(tmp_path / "run")["stopped_by"]
    assert stopped_by.startswith(reason)
    assert (f"stopped by    {stopped_by}" in caplog.text) is (reason != "max_epochs")


@NOISY
@pytest.mark.parametrize("steps", [1, 3, 50])
def test_run_that_a_time_budget_ended_goes_on_to_the_bits_of_an_uninterrupted_one(
    configure, tmp_path, monkeypatch, steps
):
    monkeypatch.setattr(lightning_callbacks.Timer, "on_fit_start", lambda *_: None)  # else no step would be taken
    chunk = (*SIZES, f"trainer.steps_per_batch={steps}", "trainer.max_epochs=3", "optimizer=adam")
    run_job(configure(*chunk, run_dir="whole"))
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    run_job(configure(*chunk, "+trainer.max_time={seconds:0}"))
    assert results_of(tmp_path / "run")["stopped_by"] == "max_time"
    for _ in range(20):  # each budget is over after a step or a chunk
        if results_of(tmp_path / "run")["stopped_by"] == "max_epochs":
            break
        run_job(configure(*chunk, "+trainer.max_time={seconds:0}", f"ckpt_path='{last}'"))
    a, b = (load_checkpoint(tmp_path / name / "checkpoints" / "last.ckpt")["state_dict"] for name in ("run", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in b)
    assert [row["val_loss"] for row in rows_of(tmp_path / "run")] == [
        row["val_loss"] for row in rows_of(tmp_path / "whole")
    ]
