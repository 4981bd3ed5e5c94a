"""Interrupting runs, going on with them, and comparing what they leave."""

import contextlib
import copy
import csv
import hashlib
import json
import logging
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from fmnist_lit.classifier import Classifier
from fmnist_lit.run.checkpoint import load_checkpoint

# 8 steps an epoch, with everything that draws from a generator or keeps a state
RUN = ("data.batch_size=32", "trainer.max_epochs=3", "model.dropout=0.2", "regularization.l1=1e-5")
# several batches of evaluation too: between them Lightning has a mind of its own about SIGTERM
HARDEST = (
    *("optimizer=adam", "scheduler=one_cycle", "model.batch_norm=true", "trainer.gradient_clip_val=0.5"),
    "data.eval_batch_size=20",
)
TINY = (
    *("data=synthetic", "data.train_size=128", "data.val_size=64", "data.test_size=100", "data.batch_size=32"),
    *("model.hidden_sizes=[8]", "trainer.max_epochs=3", "trainer.accelerator=cpu", "num_threads=1"),
)  # 4 steps an epoch
ADAM = (*TINY, "optimizer=adam", "model.dropout=0.2")
STATE = ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch", "position", "generators")
TIMES = ("seconds", "fit_cpu_seconds", "started")
AVERAGING = ("current_model_state", "averaging_state")
# TensorBoard reads the files of a folder by name. Those of one process and second differ in a count alone, which has to
# keep its number of digits; runs that import all they need are never within a second.
while event_file_writer._global_uid.get() < 1000:
    pass


def update(digest: Any, value: Any) -> None:
    """Feed every bit and the structure of a tree of tensors and plain values to a hash, but no times."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            if key != "seconds":
                digest.update(f"{key!r}:".encode())
                update(digest, value[key])
    elif isinstance(value, list | tuple):
        for item in value:
            digest.update(b",")
            update(digest, item)
    else:
        digest.update(repr(value).encode())


def fingerprint(run_dir: Path, name: str = "last") -> str:
    """SHA-256 of all in a checkpoint that decides how the run goes on."""
    checkpoint = load_checkpoint(run_dir / "checkpoints" / f"{name}.ckpt")
    digest = hashlib.sha256()
    update(digest, {key: checkpoint[key] for key in (*STATE, "callbacks", *AVERAGING) if key in (*STATE, *checkpoint)})
    return digest.hexdigest()


def rows(run_dir: Path) -> list[dict[str, str]]:
    with open(run_dir / "metrics.csv", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def results(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "results.json").read_text())


def outcome(run_dir: Path) -> dict[str, Any]:
    """All that a run leaves, but for times."""
    checkpoints = sorted(file.stem for file in (run_dir / "checkpoints").iterdir())
    return {
        "results": {key: value for key, value in results(run_dir).items() if key not in TIMES},
        "rows": rows(run_dir),
        **{name: fingerprint(run_dir, name) for name in checkpoints},
    }


def points(run_dir: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of a run folder."""
    accumulator = EventAccumulator(str(run_dir))
    accumulator.Reload()
    tags = [tag for tag in accumulator.Tags()["scalars"] if tag != "seconds"]
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time and content of all files."""
    return {
        str(file.relative_to(folder)): (file.stat().st_mtime_ns, file.read_bytes() if file.is_file() else b"")
        for file in folder.rglob("*")
    }


def content(run_dir: Path) -> dict[str, bytes]:
    """Content of all files but the log."""
    return {name: data for name, (_, data) in tree(run_dir).items() if name != "train.log"}


@contextlib.contextmanager
def signal_at(step: int, signum: int = signal.SIGTERM) -> Iterator[None]:
    """Let a signal arrive in the middle of optimiser step ``step`` (from 1)."""
    with pytest.MonkeyPatch.context() as patch:
        original = Classifier.on_before_optimizer_step

        def hook(self: Classifier, optimizer: Any) -> None:
            original(self, optimizer)
            if self.global_step + 1 == step:
                signal.raise_signal(signum)

        patch.setattr(Classifier, "on_before_optimizer_step", hook)
        yield


COMPOSED: dict[tuple[str, ...], DictConfig] = {}


def composed(
    configure: Callable[..., DictConfig], run_dir: Path, *overrides: str, ckpt_path: Path | None
) -> DictConfig:
    """As ``configure``, which takes longer than a run, only once for the same overrides."""
    if overrides not in COMPOSED:
        COMPOSED[overrides] = configure(*overrides)
    cfg = copy.deepcopy(COMPOSED[overrides])
    cfg.run_dir = str(run_dir)
    cfg.ckpt_path = ckpt_path and str(ckpt_path)
    return cfg


def interrupting(
    patch: pytest.MonkeyPatch, owner: Any, name: str, after: bool = False, signum: int = signal.SIGTERM
) -> None:
    """Let a signal arrive where ``owner.name`` is called, or has been."""
    original = getattr(owner, name)
    signals = [signum]

    def call(*args: Any, **kwargs: Any) -> Any:
        if signals and not after:
            signal.raise_signal(signals.pop())
        value = original(*args, **kwargs)
        if signals:
            signal.raise_signal(signals.pop())
        return value

    patch.setattr(owner, name, call)


PATIENCE = 60.0  # seconds that a child may take on a busy machine, where its own time is not what is tested


class Child:
    """A fork of this process, so that nothing is imported again; a signal to it does what it would to a user's run.

    Its exit code is what ``work`` returns or exits with; its output goes to a file.
    """

    def __init__(self, work: Callable[[], Any], output: Path) -> None:
        self.output = output
        self.returncode: int | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no thread of ours holds a lock here
            self.pid = os.fork()
        if not self.pid:
            os._exit(self.live(work))

    def live(self, work: Callable[[], Any]) -> int:
        code = 70
        try:
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, signal.SIG_DFL)
            descriptor = os.open(self.output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout = sys.stderr = open(1, "w", closefd=False)  # noqa: SIM115  stays open to the end
            logging.getLogger().handlers[:] = [logging.StreamHandler(sys.stderr)]
            code = work()
        except SystemExit as end:
            code = end.code
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        return code if isinstance(code, int) else 0

    def send(self, signum: int) -> None:
        os.kill(self.pid, signum)

    def wait(self, timeout: float = PATIENCE) -> int:
        """The exit code; the negative number of the signal that ended it."""
        end = time.monotonic() + timeout
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                self.kill()
                raise AssertionError(f"still alive after {timeout} s")
            else:
                time.sleep(0.002)
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            self.send(SIGKILL)
            self.wait()

    @property
    def text(self) -> str:
        return self.output.read_text() if self.output.exists() else ""


FORKS = pytest.mark.skipif(
    torch.cuda.is_available() or not hasattr(os, "fork"), reason="CUDA does not survive a fork; Windows has none"
)
SIGKILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # without it no process is forked to be killed


def until(true: Callable[[], Any], timeout: float = PATIENCE) -> None:
    end = time.monotonic() + timeout
    while not true():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.002)


def is_right(loaded: dict[str, Any], splits: dict[str, Any]) -> bool:
    return all(torch.equal(a, b) for split in splits for a, b in zip(loaded[split], splits[split], strict=True))
