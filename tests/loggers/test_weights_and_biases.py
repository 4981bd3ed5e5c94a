"""Runs that W&B keeps offline, read back from what it wrote."""

import json

import pytest
from wandb_files import kept

from fmnist_lit.loggers import weights_and_biases
from fmnist_lit.loggers.weights_and_biases import WandbLogger

pytest.importorskip("wandb", reason="the extra wandb is not installed")
TERMINATED = 128 + 15


def test_each_job_of_a_sweep_is_a_run_of_its_own_with_its_own_end(offline, tmp_path):
    jobs = ("optimizer.lr=0.1,1e30", "logger=[csv,wandb]", "logger.wandb.project=mine", "logger.wandb.log_model=true")
    assert offline("-m", *jobs) == 1
    (good,), (bad,) = (kept(tmp_path / "sweep" / f"optimizer.lr={lr}") for lr in ("0.1", "1e+30"))
    assert good.run.run_id != bad.run.run_id
    for lr, piece in ((0.1, good), (1e30, bad)):
        assert (piece.run.run_group, piece.run.project) == ("sweep", "mine")
        assert piece.run.display_name == f"optimizer.lr={lr}"
        assert piece.config["optimizer.lr"] == lr
        assert piece.config["dataset"] == "synthetic"
        assert {"results.json", "train.log", ".hydra/config.yaml"} <= piece.files
    assert (good.exit_code, good.summary["status"], good.summary["stopped_by"]) == (0, "completed", "max_epochs")
    assert (bad.exit_code, bad.summary["status"], bad.summary["diverged_step"]) == (1, "diverged", 2)
    assert [epoch for epoch, _ in good.points("accuracy/val")] == [1, 2]
    results = json.loads((tmp_path / "sweep" / "optimizer.lr=0.1" / "results.json").read_text())
    assert good.points("accuracy/test") == [(2, results["test_accuracy"])]
    assert good.summary["val_accuracy"] == results["val_accuracy"]
    assert good.axes["accuracy/val"] == good.axes["lr"] == "epoch"
    assert "metrics.csv" in good.files
    sent = next((tmp_path / "sweep" / "optimizer.lr=0.1" / "wandb").glob("*/files/results.json"))
    assert json.loads(sent.read_text()) == results


def test_interrupted_run_goes_on_as_the_same_run_without_a_point_double(offline, tmp_path, stopped_after):
    stopped_after(2)
    assert offline("logger=[csv,wandb]", "trainer.max_epochs=4") == TERMINATED
    assert offline(resume=True) == 0
    first, second = kept(tmp_path / "run")
    assert first.run.run_id == second.run.run_id == json.loads((tmp_path / "run" / "wandb.json").read_text())["id"]
    assert (first.exit_code, first.summary["status"]) == (255, "interrupted")
    assert (second.exit_code, second.summary["status"]) == (0, "completed")
    assert [[epoch for epoch, _ in piece.points("loss/train")] for piece in (first, second)] == [[1, 2], [3, 4]]


def test_what_a_callback_logs_has_the_optimizer_steps_as_its_axis(offline, tmp_path):
    monitor = "+callbacks.lr._target_=lightning.pytorch.callbacks.LearningRateMonitor"
    assert offline("logger=wandb", monitor) == 0
    (piece,) = kept(tmp_path / "run")
    assert piece.axes["lr-SGD"] == "trainer/global_step"
    assert [row["trainer/global_step"] for row in piece.history if "lr-SGD" in row] == [0, 8]


@pytest.mark.parametrize(("server", "why"), [("there", "No API key configured"), ("not there", "Connection refused")])
def test_run_without_a_key_or_a_server_is_kept_offline_and_says_how_to_upload_it(
    anywhere, tmp_path, monkeypatch, warnings_in, server, why
):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:1")
    if server == "there":
        monkeypatch.setattr(weights_and_biases, "require_answer", lambda server: None)
    assert anywhere("-m", "logger=wandb", "seed=1,2") == 0
    for seed in (1, 2):
        run_dir = tmp_path / "sweep" / f"seed={seed}"
        (piece,), (warning,) = kept(run_dir), warnings_in(run_dir)
        assert (piece.exit_code, piece.summary["status"]) == (0, "completed")
        assert warning.startswith(f"WARNING: Weights & Biases: {why}")
        assert "wandb sync" in warning
        assert piece.run.run_id in warning


def test_what_fails_in_mid_run_is_said_once_and_ends_nothing(offline, tmp_path, monkeypatch, warnings_in):
    def fail(*arguments: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr(WandbLogger, "send_points", fail)
    assert offline("logger=[csv,wandb]") == 0
    (piece,) = kept(tmp_path / "run")
    assert piece.summary["status"] == "completed"
    during, after = warnings_in(tmp_path / "run")
    assert during.startswith("WARNING: Weights & Biases: Broken pipe. The run goes on; ")
    assert after.startswith("WARNING: Weights & Biases: Broken pipe. Something of this run is missing there; ")


def test_run_that_fails_before_it_trains_is_there_and_failed(offline, tmp_path):
    assert offline("logger=wandb", "data=fashion_mnist", "data.data_dir=nothing", "+trainer.profiler=nonsense") == 1
    (piece,) = kept(tmp_path / "run")
    assert (piece.exit_code, piece.summary["status"]) == (1, "failed")
    assert "profiler" in piece.summary["error"]
    assert piece.history == []


def test_disabled_is_disabled(anywhere, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert anywhere("logger=wandb", "trainer.max_epochs=1") == 0
    assert kept(tmp_path / "run") == []
