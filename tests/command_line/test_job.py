import json
import logging
import math
import re
from pathlib import Path

import pytest

import fmnist_lit.train
from fmnist_lit.command_line.console import ConsoleHandler
from fmnist_lit.command_line.job import run_job


def results(run_dir: Path) -> dict:
    return json.loads((run_dir / "results.json").read_text())


@pytest.fixture
def raising(monkeypatch):
    """Let the training end in an error."""

    def arrange(error: BaseException) -> None:
        def train(cfg):
            raise error

        monkeypatch.setattr(fmnist_lit.train, "train", train)

    return arrange


def test_completed_run_returns_its_validation_accuracy(configure, tmp_path):
    value = run_job(configure())
    written = results(tmp_path / "run")
    assert written["status"] == "completed"
    assert value == written["val_accuracy"]


def test_run_without_validation_returns_nan(configure, tmp_path):
    assert math.isnan(run_job(configure("data.val_size=0")))
    assert results(tmp_path / "run")["val_accuracy"] is None


def test_current_folder_may_be_the_run_folder(configure, tmp_path, monkeypatch, caplog):
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "run")
    caplog.set_level(logging.INFO)
    run_job(configure())
    assert results(tmp_path / "run")["status"] == "completed"
    assert "tensorboard --logdir ." in caplog.text


def test_failed_run_leaves_its_error_and_no_figures(configure, tmp_path, raising, caplog):
    raising(RuntimeError("the machine is on fire"))
    assert math.isnan(run_job(configure("tags=[a,b]", "note=c")))
    written = results(tmp_path / "run")
    assert written["status"] == "failed"
    assert written["error"] == "RuntimeError: the machine is on fire"
    assert (written["tags"], written["note"]) == (["a", "b"], "c")
    assert written["select"] == {"metric": "accuracy/val", "mode": "max", "value": None}
    assert written["test_accuracy"] is None
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert ConsoleHandler().format(record) == "Failed: RuntimeError: the machine is on fire"
    assert "Traceback" in caplog.text  # for train.log


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (MemoryError(), "MemoryError"),
        (SystemExit(3), "SystemExit: 3"),
        (RuntimeError("\n  CUDA out of memory\nand more"), "RuntimeError: CUDA out of memory"),
    ],
)
def test_whatever_ends_a_job_from_within_is_its_failure_alone(configure, tmp_path, raising, error, reason):
    raising(error)
    assert math.isnan(run_job(configure()))
    assert results(tmp_path / "run")["error"] == reason


def test_part_that_cannot_be_built_says_why(configure, tmp_path):
    run_job(configure("+trainer.profiler=nonsense"))
    assert re.match(r"MisconfigurationException: .*`profiler`", results(tmp_path / "run")["error"])


def test_traceback_is_shown_where_it_is_asked_for(configure, raising, caplog, monkeypatch):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    raising(RuntimeError("the machine is on fire"))
    run_job(configure())
    assert "Traceback" in ConsoleHandler().format(caplog.records[-1])


def test_missing_data_is_a_failure_that_says_what_to_do(configure, tmp_path, tiny_idx):
    run_job(configure("data=fashion_mnist", f"data.data_dir='{tmp_path / 'nothing'}'"))
    written = results(tmp_path / "run")
    assert written["status"] == "failed"
    assert "data=synthetic" in written["error"]


def test_run_is_said_to_be_running_while_it_runs(configure, tmp_path, monkeypatch):
    seen = []
    train = fmnist_lit.train.train
    monkeypatch.setattr(fmnist_lit.train, "train", lambda cfg: seen.append(results(tmp_path / "run")) or train(cfg))
    run_job(configure())
    assert [written["status"] for written in seen] == ["running"]


def test_configuration_is_checked_again_where_the_run_folder_is_known(configure, tmp_path):
    cfg = configure()
    cfg.optimizer.lr = -1
    run_job(cfg)
    written = results(tmp_path / "run")
    assert written["status"] == "failed"
    assert "optimizer.lr=-1" in written["error"]


def test_same_command_gives_the_same_figures(configure, tmp_path):
    for name in ("a", "b"):
        run_job(configure("optimizer=adam", "model.dropout=0.3", run_dir=name))
    a, b = (results(tmp_path / name) for name in ("a", "b"))
    varying = dict.fromkeys(("seconds", "fit_cpu_seconds", "started"))
    assert {**a, **varying} == {**b, **varying}


def test_other_seed_gives_other_figures(configure, tmp_path):
    for seed in (0, 1):
        run_job(configure(f"seed={seed}", run_dir=f"{seed}"))
    assert results(tmp_path / "0")["train_loss"] != results(tmp_path / "1")["train_loss"]
