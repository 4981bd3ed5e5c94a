import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from interruptions import RUN, outcome, results, rows, signal_at
from omegaconf import DictConfig

from fmnist_lit.command_line.job import run_job
from fmnist_lit.config import trust
from fmnist_lit.run.checkpoint import load_checkpoint

SPOILING = ("optimizer=adam", "trainer.max_epochs=4", "scheduler=exponential", "scheduler.gamma=20")  # later is worse
BY_LOSS = ("select.metric=loss/val", "select.mode=min")


def as_text(value: float) -> str:
    """A configuration may not hold a number that is none."""
    return "'nan'" if math.isnan(value) else str(value)


@pytest.fixture
def with_metric(configure, monkeypatch) -> Callable[..., DictConfig]:
    """The configuration of a run in which a callback of somebody's own logs ``f1/val``: these values by epoch."""
    monkeypatch.setattr(trust, "trusted_packages", lambda: ["own_metric"])

    def compose(values: Sequence[float], *overrides: str, run_dir: str = "run") -> DictConfig:
        callback = f"+callbacks.own={{_target_:own_metric.OwnMetric,values:[{','.join(map(as_text, values))}]}}"
        epochs = f"trainer.max_epochs={len(values)}"
        return configure(*RUN, callback, epochs, "select.metric=f1/val", *overrides, run_dir=run_dir)

    return compose


def test_best_epoch_is_that_of_the_lowest_loss(configure, tmp_path, caplog):
    caplog.set_level("INFO")
    value = run_job(configure(*SPOILING, *BY_LOSS))
    losses = [float(row["val_loss"]) for row in rows(tmp_path / "run")]
    written = results(tmp_path / "run")
    assert written["best_epoch"] == 1 + losses.index(min(losses)) < 4
    assert written["select"] == {"metric": "loss/val", "mode": "min", "value": min(losses)}
    assert value == min(losses)
    assert written["val_loss"] == min(losses)
    assert f"weights of epoch {written['best_epoch']} (lowest validation loss)" in caplog.text


@pytest.mark.parametrize("steps", [1, 50])
def test_a_callbacks_own_figure_selects(with_metric, tmp_path, caplog, steps):
    caplog.set_level("INFO")
    value = run_job(with_metric([0.25, 0.75, 0.5], f"trainer.steps_per_batch={steps}"))
    written = results(tmp_path / "run")
    assert (written["status"], written["best_epoch"], value) == ("completed", 2, 0.75)
    assert written["select"] == {"metric": "f1/val", "mode": "max", "value": 0.75}
    assert written["val_accuracy"] == float(rows(tmp_path / "run")[1]["val_accuracy"])
    assert "(highest f1/val)" in caplog.text


@pytest.mark.parametrize("stop", [9, 16, 20])
def test_a_run_that_goes_on_remembers_what_was_best(with_metric, tmp_path, stop):
    values = [0.25, 0.75, 0.5]
    run_job(with_metric(values, "scheduler=plateau", "scheduler.patience=0", run_dir="whole"))
    parts = "scheduler=plateau", "scheduler.patience=0"
    with signal_at(stop), pytest.raises(SystemExit, match="143"):
        run_job(with_metric(values, *parts, run_dir="parts"))
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    torch.manual_seed(99)
    run_job(with_metric(values, *parts, f"ckpt_path='{last}'", run_dir="parts"))
    assert results(tmp_path / "parts")["best_epoch"] == 2
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")


@pytest.mark.parametrize("steps", [1, 50])
def test_plateau_waits_for_the_figure_that_selects(with_metric, tmp_path, steps):
    plateau = ("scheduler=plateau", "scheduler.patience=0", f"trainer.steps_per_batch={steps}", "optimizer.lr=0.08")
    run_job(with_metric([0.3, 0.4, 0.4, 0.5], *plateau))
    assert [float(row["lr"]) for row in rows(tmp_path / "run")] == [0.08, 0.08, 0.08, 0.04]


def test_a_figure_that_is_not_a_number_is_never_the_best(with_metric, tmp_path):
    run_job(with_metric([math.nan, 0.3, math.nan, 0.2]))
    assert results(tmp_path / "run")["best_epoch"] == 2


def test_where_no_epoch_has_a_finite_figure_it_is_said(with_metric, tmp_path, caplog):
    assert math.isnan(run_job(with_metric([math.nan, math.nan])))
    written = results(tmp_path / "run")
    assert (written["status"], written["best_epoch"], written["select"]["value"]) == ("completed", None, None)
    assert written["checkpoint"] == "checkpoints/last.ckpt"
    assert "No epoch has a finite f1/val; the last weights are tested" in caplog.text


@pytest.mark.parametrize("scheduler", ["constant", "plateau"])
def test_a_figure_that_nobody_logs_fails_after_an_epoch_with_those_there_are(with_metric, tmp_path, scheduler):
    run_job(with_metric([0.25, 0.75], "select.metric=f2/val", f"scheduler={scheduler}"))
    written = results(tmp_path / "run")
    assert written["status"] == "failed"
    told = "scheduler=plateau follows f2/val" if scheduler == "plateau" else "select.metric=f2/val"
    assert written["error"] == (
        f"{told}: not among the figures of the epoch, which are accuracy/train, accuracy/val, f1/val, loss/train, "
        "loss/val" + (", regularization/l1" if "l1=1e-5" in " ".join(RUN) else "")
    )
    assert len(rows(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() is (scheduler == "constant")


def test_a_figure_of_an_earlier_epoch_does_not_count(with_metric, tmp_path):
    run_job(with_metric([0.9, 0.3, 0.9, 0.4, 0.9], "+trainer.check_val_every_n_epoch=2"))
    written = results(tmp_path / "run")
    assert (written["best_epoch"], written["select"]["value"]) == (4, pytest.approx(0.4))


def test_without_checkpoints_the_figure_is_that_of_the_last_epoch(with_metric, tmp_path):
    run_job(with_metric([0.75, 0.5], "~callbacks.checkpoint"))
    written = results(tmp_path / "run")
    assert (written["best_epoch"], written["checkpoint"], written["select"]["value"]) == (None, None, 0.5)


@pytest.mark.parametrize(("at_end", "checkpoint"), [(0.9, "final"), (0.4, "best")])
@pytest.mark.filterwarnings("ignore")  # Lightning's, of weight averaging
def test_weights_that_training_ends_with_compete_by_the_same_figure(with_metric, tmp_path, caplog, at_end, checkpoint):
    caplog.set_level("INFO")
    average = "+callbacks.swa={_target_:lightning.pytorch.callbacks.StochasticWeightAveraging,swa_lrs:0.05}"
    values = [0.25, 0.75, 0.5, at_end]  # the last is of the average, which is evaluated when all epochs are done
    run_job(with_metric(values, average, "trainer.max_epochs=3"))
    written = results(tmp_path / "run")
    assert written["checkpoint"] == f"checkpoints/{checkpoint}.ckpt"
    assert written["select"]["value"] == pytest.approx(max(0.75, at_end))
    said = "f1/val: checkpoints/final.ckpt has 0.4000; epoch 2 has 0.7500 and is tested instead"
    assert (said in caplog.text) is (checkpoint == "best")


# callbacks=early_stopping


@pytest.mark.parametrize("callbacks", ["early_stopping", "[default,early_stopping]", "[early_stopping,default,ema]"])
def test_early_stopping_goes_by_what_selects(with_metric, tmp_path, callbacks):
    values = [0.25, 0.75, 0.5, 0.5, 0.9]
    run_job(with_metric(values, f"callbacks={callbacks}", "callbacks.early_stopping.patience=2"))
    written = results(tmp_path / "run")
    assert (written["epochs"], written["best_epoch"]) == (4, 2)
    assert re.match("early_stopping: Monitored metric f1/val did not improve in the last 2", written["stopped_by"])


def test_early_stopping_is_as_patient_after_a_stop(with_metric, tmp_path):
    run = ([0.25, 0.75, 0.5, 0.5, 0.9], "callbacks=[default,early_stopping]", "callbacks.early_stopping.patience=2")
    run_job(with_metric(*run, run_dir="whole"))
    with signal_at(20), pytest.raises(SystemExit, match="143"):  # in the third of five epochs
        run_job(with_metric(*run, run_dir="parts"))
    last = tmp_path / "parts" / "checkpoints" / "last.ckpt"
    run_job(with_metric(*run, f"ckpt_path='{last}'", run_dir="parts"))
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
    assert json.dumps(load_checkpoint(last)["best"]["metrics"]["f1/val"]) == "0.75"


def test_shipped_patience_and_mode(configure):
    stopping = configure(*BY_LOSS, "callbacks=early_stopping").callbacks.early_stopping
    assert (stopping.monitor, stopping.mode, stopping.patience) == ("loss/val", "min", 5)


def test_run_folder_of_the_default_says_what_it_was_chosen_by(trained_run: Path):
    written = results(trained_run)
    assert written["select"] == {"metric": "accuracy/val", "mode": "max", "value": written["val_accuracy"]}
    assert (written["tags"], written["note"]) == ([], None)
