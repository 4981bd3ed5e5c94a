"""What the tests of trackers need: a small run, a signal in the middle of it, a server."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import SMALL

from fmnist_lit.classifier import Classifier
from fmnist_lit.loggers import tracker
from fmnist_lit.loggers.weights_and_biases import WandbLogger

SECONDS_TO_START = 120


@pytest.fixture
def tracked(launch_here, tmp_path, monkeypatch) -> Callable[..., int]:
    """Launch a small run, or a sweep, into ``run`` or ``sweep``, without an account that a person may have."""
    for variable in ("WANDB_API_KEY", "WANDB_BASE_URL", "WANDB_ENTITY", "WANDB_RUN_GROUP", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("MLFLOW_HTTP_REQUEST_TIMEOUT", "MLFLOW_HTTP_REQUEST_MAX_RETRIES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tracker, "running", {})

    def run(*overrides: str, resume: bool = False) -> int:
        if resume:
            return launch_here("ckpt_path=run", *overrides)
        return launch_here(*SMALL, "data.batch_size=32", "hydra.run.dir=run", "hydra.sweep.dir=sweep", *overrides)

    return run


@pytest.fixture
def stopped_after(monkeypatch) -> Callable[[int], None]:
    """Let a SIGTERM arrive at the end of an epoch; the run stops in the next."""
    log_epoch = Classifier.on_train_epoch_end

    def arrange(epoch: int) -> None:
        def end_epoch(self: Classifier) -> None:
            log_epoch(self)
            if self.current_epoch + 1 == epoch:
                signal.raise_signal(signal.SIGTERM)

        monkeypatch.setattr(Classifier, "on_train_epoch_end", end_epoch)

    return arrange


@pytest.fixture
def warnings_in() -> Callable[[Path], list[str]]:
    """The warnings in the log of a run folder."""

    def read(run_dir: Path) -> list[str]:
        lines = (run_dir / "train.log").read_text(encoding="utf-8").splitlines()
        return [line.partition(" WARNING ")[2] for line in lines if " WARNING " in line]

    return read


@pytest.fixture
def anywhere(tracked, monkeypatch):
    """Launch a run, with W&B's settings from the environment of the test."""
    wandb = pytest.importorskip("wandb", reason="the extra wandb is not installed")

    monkeypatch.setattr(WandbLogger, "offline_until", 0.0)
    wandb.teardown()  # it has read the environment of another test
    yield tracked
    wandb.teardown()


@pytest.fixture
def offline(anywhere, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    return anywhere


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server with a database, which is ended by its process group."""
    pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    folder = tmp_path_factory.mktemp("mlflow")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'mlflow.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    new_group = {} if sys.platform == "win32" else {"start_new_session": True}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, cwd=folder, **new_group)
    address = f"http://127.0.0.1:{port}"
    try:
        answers = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(10 * SECONDS_TO_START):
            with contextlib.suppress(OSError), answers.open(f"{address}/health", timeout=5):
                break
            assert process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        yield address
    finally:
        if sys.platform == "win32":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.fixture
def client(server, monkeypatch):
    from mlflow import MlflowClient

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return MlflowClient(server)


@pytest.fixture
def served(tracked, client, server, monkeypatch):
    """Launch a run whose tracker is the server."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    return tracked
