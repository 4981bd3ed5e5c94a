import importlib.machinery
import importlib.util
import json

import pytest
from wandb_files import kept

from fmnist_lit.loggers import WandbLogger
from fmnist_lit.loggers.tracker import reason
from fmnist_lit.processes.signals import InterruptedRunError


def test_what_a_killed_run_repeats_is_not_sent_again(tmp_path):
    """As after a kill between an epoch's figures and its checkpoint."""
    before = WandbLogger(tmp_path)
    before.remember(sent={"accuracy/train": 3, "accuracy/test": 3})
    after = WandbLogger(tmp_path)
    after.left_alone_until = float("inf")
    after.log_metrics({"accuracy/train": 0.5}, step=3)
    after.log_metrics({"accuracy/train": 0.5, "accuracy/val": 0.5}, step=4)
    after.log_metrics({"accuracy/test": 0.5}, step=3)
    assert [(point.step, set(point.metrics)) for point in after.points] == [(4, {"accuracy/train", "accuracy/val"})]


def test_ranks_leave_the_end_to_the_process_that_started_them(offline, served, client, tmp_path):
    """Which alone knows how the run ends, and has its results.json."""
    assert served("trainer=ddp", "trainer.devices=2", "logger=[csv,wandb,mlflow]") == 0
    first, second = kept(tmp_path / "run")
    assert first.run.run_id == second.run.run_id
    assert [epoch for epoch, _ in first.points("accuracy/val")] == [1, 2]
    assert (second.exit_code, second.summary["status"], second.history) == (0, "completed", [])
    assert {"results.json", "metrics.csv"} <= second.files
    run = client.get_run(json.loads((tmp_path / "run" / "mlflow.json").read_text())["id"])
    assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "completed")
    assert [point.step for point in client.get_metric_history(run.info.run_id, "accuracy/val")] == [1, 2]


def test_run_that_is_stopped_before_it_begins_leaves_nothing_in_a_tracker(offline, tmp_path, monkeypatch):
    def stop(cfg: object) -> None:
        raise InterruptedRunError(15)

    monkeypatch.setattr("fmnist_lit.train.train", stop)
    offline("logger=[csv,wandb]")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "interrupted"
    assert not (tmp_path / "run" / "wandb.json").exists()


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_tracker_that_is_not_installed_is_refused_before_anything_is_written(
    launch_here, tmp_path, capsys, monkeypatch, package
):
    (tmp_path / package).mkdir()  # as W&B leaves one where it has been
    found = importlib.machinery.PathFinder.find_spec(package, [str(tmp_path)])
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: found if name == package else find(name))
    assert launch_here(f"logger=[default,{package}]") == 2
    assert f"logger={package}: is not installed; pip install 'fmnist_lit[{package}]'" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [package]


def test_reason_is_what_the_system_said_without_a_password():
    refused = RuntimeError("HTTPConnectionPool(host='x')")
    refused.__cause__ = ConnectionRefusedError(111, "Connection refused")
    assert reason(refused) == "Connection refused"
    assert reason(RuntimeError("no run at\nhttp://me:secret@x/1.")) == "no run at http://x/1"
    assert reason(ValueError()) == "ValueError"
