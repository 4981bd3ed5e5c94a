"""Runs in a real MLflow server with its database."""

import json
import time
from pathlib import Path

import pytest

from fmnist_lit.loggers.mlflow_tracker import MLFlowLogger

pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
TERMINATED = 128 + 15


def run_of(client, run_dir: Path):
    return client.get_run(json.loads((run_dir / "mlflow.json").read_text())["id"])


def points(client, run, tag: str) -> list[tuple[int, float]]:
    return [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, tag)]


def files(client, run, folder: str | None = None) -> set[str]:
    return {file.path for file in client.list_artifacts(run.info.run_id, folder)}


def test_each_job_of_a_sweep_is_a_run_of_its_own_with_its_own_end(served, client, tmp_path):
    jobs = ("optimizer.lr=0.1,1e30", "logger=[csv,mlflow]", "logger.mlflow.experiment_name=mine")
    assert served("-m", *jobs, "logger.mlflow.log_model=true") == 1
    good, bad = (run_of(client, tmp_path / "sweep" / f"optimizer.lr={lr}") for lr in ("0.1", "1e+30"))
    experiment = client.get_experiment_by_name("mine").experiment_id
    assert good.info.run_id != bad.info.run_id
    for lr, run in (("0.1", good), ("1e+30", bad)):
        assert (run.info.run_name, run.info.experiment_id) == (f"optimizer.lr={lr}", experiment)
        assert run.data.tags["sweep"] == "sweep"
        assert (run.data.params["optimizer.lr"], run.data.params["dataset"]) == (lr, "synthetic")
        assert {"results.json", "train.log"} <= files(client, run)
        assert files(client, run, ".hydra") == {".hydra/config.yaml", ".hydra/overrides.yaml"}
    assert (good.info.status, good.data.tags["status"]) == ("FINISHED", "completed")
    assert (bad.info.status, bad.data.tags["status"], bad.data.metrics["diverged_step"]) == ("FAILED", "diverged", 2)
    assert [epoch for epoch, _ in points(client, good, "accuracy/val")] == [1, 2]
    results = json.loads((tmp_path / "sweep" / "optimizer.lr=0.1" / "results.json").read_text())
    assert points(client, good, "accuracy/test") == [(2, results["test_accuracy"])]
    assert good.data.metrics["val_accuracy"] == results["val_accuracy"]
    assert files(client, good, "checkpoints") == {"checkpoints/best.ckpt"}
    sent = client.download_artifacts(good.info.run_id, "results.json", str(tmp_path))
    assert json.loads(Path(sent).read_text()) == results


def test_interrupted_run_goes_on_as_the_same_run_without_a_point_double(
    served, client, tmp_path, stopped_after, warnings_in
):
    stopped_after(2)
    assert served("logger=mlflow", "trainer.max_epochs=3") == TERMINATED
    first = run_of(client, tmp_path / "run")
    assert (first.info.status, first.data.tags["status"], first.data.tags["stopped_by"]) == (
        "KILLED",
        "interrupted",
        "SIGTERM",
    )
    assert served("trainer.max_epochs=4", resume=True) == 0
    second = run_of(client, tmp_path / "run")
    assert second.info.run_id == first.info.run_id
    assert (second.info.status, second.data.tags["status"]) == ("FINISHED", "completed")
    assert [epoch for epoch, _ in points(client, second, "loss/train")] == [1, 2, 3, 4]
    # MLflow keeps the first value of a parameter
    assert (second.data.params["trainer.max_epochs"], second.data.tags["trainer.max_epochs"]) == ("3", "4")
    assert warnings_in(tmp_path / "run") == []


def test_error_of_an_earlier_attempt_does_not_stay(served, client, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise RuntimeError("the machine is on fire")

    with monkeypatch.context() as burning:
        burning.setattr("fmnist_lit.train.select_weights", fail)
        assert served("logger=mlflow") == 1
    failed = run_of(client, tmp_path / "run")
    assert (failed.info.status, failed.data.tags["error"]) == ("FAILED", "RuntimeError: the machine is on fire")
    assert served(resume=True) == 0
    run = run_of(client, tmp_path / "run")
    assert run.info.status == "FINISHED"
    assert "error" not in run.data.tags


def test_run_that_somebody_deleted_begins_anew(served, client, tmp_path):
    assert served("logger=mlflow") == 0
    first = run_of(client, tmp_path / "run")
    client.delete_run(first.info.run_id)
    assert served("trainer.max_epochs=3", resume=True) == 0
    second = run_of(client, tmp_path / "run")
    assert second.info.run_id != first.info.run_id
    assert [epoch for epoch, _ in points(client, second, "loss/train")] == [3]


def test_what_a_server_misses_while_it_is_away_is_sent_at_the_end(served, client, tmp_path, monkeypatch, warnings_in):
    send, calls = MLFlowLogger.send_points, []

    def away_at_first(self: MLFlowLogger, points: object) -> None:
        calls.append(points)
        if len(calls) == 1:
            raise ConnectionRefusedError(111, "Connection refused")
        send(self, points)

    monkeypatch.setattr(MLFlowLogger, "send_points", away_at_first)
    assert served("logger=mlflow", "trainer.max_epochs=3") == 0
    run = run_of(client, tmp_path / "run")
    assert run.info.status == "FINISHED"
    assert [epoch for epoch, _ in points(client, run, "loss/train")] == [1, 2, 3]
    (warning,) = warnings_in(tmp_path / "run")
    assert warning.endswith(
        ": Connection refused. The run goes on; what is missing there is sent at its end, if that works then."
    )


def test_server_that_is_not_there_holds_up_nothing(tracked, tmp_path, monkeypatch, warnings_in):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://somebody:secret@127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    started = time.monotonic()
    assert tracked("logger=[csv,mlflow]") == 0
    assert time.monotonic() - started < 30
    during, after = warnings_in(tmp_path / "run")
    assert during.startswith("WARNING: MLflow at http://127.0.0.1:1: Connection refused. The run goes on; ")
    assert after.startswith(
        "WARNING: MLflow at http://127.0.0.1:1: Connection refused. Something of this run is missing"
    )
    assert json.loads((tmp_path / "run" / "results.json").read_text())["status"] == "completed"
    assert "secret" not in (tmp_path / "run" / "train.log").read_text()
