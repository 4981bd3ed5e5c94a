"""What the loggers share that keep a run in a service outside its folder: Weights & Biases and MLflow."""

import logging
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_only

from fmnist_lit.config.tree import flatten
from fmnist_lit.loggers.base import SPLITS
from fmnist_lit.processes import ranks
from fmnist_lit.run.files import read_json, write_json

log = logging.getLogger(__name__)

FILES = ("results.json", "metrics.csv", "train.log", ".hydra/config.yaml", ".hydra/overrides.yaml")  # of a run's folder
# What is sent of results.json beside the figures
OUTCOME = ("status", "stopped_by", "error", "diverged_step", "partial", "best_epoch", "epochs", "steps")
PATIENCE = 300.0  # seconds for which a service that failed is left alone
MOST_WAITING = 500  # points that wait for the end of their epoch


@dataclass(frozen=True)
class Point:
    """Figures of one moment, by tag; ``step`` counts epochs (from 1), or optimiser steps where a callback logs them."""

    metrics: dict[str, float]
    step: int | None
    by_epoch: bool
    time: float = field(default_factory=time.time)  # in seconds since 1970


class Tracker(Logger):
    """One run of the service for one run folder, whose id is in a file there, so that resuming goes on with it.

    Nothing that the service does or does not do ends or delays the training for long: what it does not take waits, and
    is sent again at the end.

    Args:
        run_dir: the run folder.
        log_model: whether the checkpoint that was tested is sent, too.
    """

    service = "the tracker"  # its name for people
    file_name = "tracker.json"  # the id's, in the run folder

    def __init__(self, run_dir: str | Path, log_model: bool = False) -> None:
        self.run_dir = Path(run_dir).absolute()  # Lightning's own part begins with the service's run
        self.log_model = log_model
        self.known = read_json(self.run_dir / self.file_name)  # of an earlier attempt at this run
        self.is_open = self.is_ending = False
        self.parameters: dict[str, Any] = {}  # not sent yet
        self.points: list[Point] = []  # likewise
        self.left_alone_until = 0.0
        self.complaint = ""  # what the service failed with, if it has

    @property
    def sent(self) -> dict[str, int]:
        """The last epoch of each tag that the service has; a run that goes on sends none a second time."""
        sent = self.known.get("sent")
        return {tag: step for tag, step in sent.items() if isinstance(step, int)} if isinstance(sent, dict) else {}

    # What a service does

    @abstractmethod
    def open(self) -> None:
        """Begin the service's run, or go on with the one in ``self.known``."""

    @property
    @abstractmethod
    def opened(self) -> Any:
        """What ``open`` has made."""

    @abstractmethod
    def send_parameters(self, parameters: Mapping[str, Any]) -> None:
        """Send hyper-parameters; of those that were sent before, the new values."""

    @abstractmethod
    def send_points(self, points: list[Point]) -> None:
        """Send figures."""

    @abstractmethod
    def close(self, results: Mapping[str, Any]) -> None:
        """Send how the run ended and its files, and end the service's run with that status."""

    def release(self) -> None:
        """Let another process go on with the service's run."""

    # What Lightning calls

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The service's own object, as Lightning's logger has it; one that does nothing where there is none."""
        self.attempt(self.ensure_open)
        return self.opened if self.is_open else DummyLogger().experiment

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.run_dir)

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        self.parameters |= flatten(params)
        self.attempt(self.flush)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        by_epoch = "accuracy/train" in metrics or "accuracy/test" in metrics
        if by_epoch and step is not None:
            metrics = {tag: value for tag, value in metrics.items() if self.sent.get(tag, -1) < step}
        if metrics:
            self.points.append(Point(dict(metrics), step, by_epoch))
        if by_epoch or len(self.points) >= MOST_WAITING:
            self.attempt(self.flush)

    def finalize(self, status: str = "success") -> None:
        """Nothing: Lightning calls it after the fit and after the test, and does not know how a run ends."""

    def after_save_checkpoint(self, checkpoint_callback: Any) -> None:
        """Nothing: ``log_model`` is about the checkpoint that was tested."""

    # How it is done

    def attempt(self, action: Callable[[], None]) -> None:
        """Do what talks to the service; if it fails, say so once and leave the service alone for a while."""
        if time.monotonic() < self.left_alone_until:
            return
        try:
            action()
        except Exception as error:
            first, self.complaint = not self.complaint, reason(error)
            self.left_alone_until = time.monotonic() + PATIENCE
            if first:
                log.warning("WARNING: %s: %s. %s", self.service, self.complaint, self.remedy())

    def remedy(self) -> str:
        """What becomes of what the service did not take."""
        if self.is_ending:
            return "Something of this run is missing there; its folder has it."
        return "The run goes on; what is missing there is sent at its end, if that works then."

    def ensure_open(self) -> None:
        """Have the service's run open, and end it with this process if another one tells how the run ends."""
        if not self.is_open:
            running[self.run_dir, self.file_name] = self
            self.open()
            self.is_open = True
            if ranks.left_open is not None:
                ranks.left_open.callback(self.leave)

    def flush(self) -> None:
        """Send what waits."""
        self.ensure_open()
        if self.parameters:
            self.send_parameters(self.parameters)
            self.parameters = {}
        if self.points:
            self.send_points(self.points)
            sent = {tag: point.step for point in self.points if point.by_epoch for tag in point.metrics}
            self.points = []
            if sent:
                self.remember(sent=self.sent | sent)

    def remember(self, **facts: Any) -> None:
        """Keep ``facts`` for who goes on with this run."""
        self.known |= facts
        write_json(self.run_dir / self.file_name, self.known)

    def leave(self) -> None:
        """Send what waits before this process ends; another one ends the service's run."""
        self.left_alone_until = 0.0
        self.attempt(self.flush)
        if self.is_open:
            self.attempt(self.release)

    def end(self, results: Mapping[str, Any]) -> None:
        """Tell the service how the run ended, with what it has not taken before."""
        failed_before, self.complaint = bool(self.complaint), ""
        self.left_alone_until, self.is_ending = 0.0, True
        self.attempt(self.flush)
        if self.is_open:
            self.left_alone_until = 0.0
            self.attempt(lambda: self.close(results))
        if failed_before and not self.complaint:
            log.info("%s has all of the run now.", self.service)

    def files(self, results: Mapping[str, Any]) -> list[Path]:
        """What is sent of the run folder, as far as it is there."""
        checkpoint = [results["checkpoint"]] if self.log_model and results.get("checkpoint") else []
        return [file for name in (*FILES, *checkpoint) if (file := self.run_dir / name).is_file()]


running: dict[tuple[Path, str], Tracker] = {}  # in this process, by run folder and tracker


def end_tracker(tracker: Tracker, results: Mapping[str, Any]) -> None:
    """End the service's run for a run folder, in whichever process it was begun.

    Args:
        tracker: a new one for the run folder.
        results: as in ``results.json``.
    """
    tracker = running.pop((tracker.run_dir, tracker.file_name), tracker)
    began = tracker.is_open or tracker.known
    if began or results["status"] != "interrupted":  # who stops a run before it starts wants no trace of it
        tracker.end(results)


def sweep_of_job() -> str | None:
    """The name of the folder of the sweep that this process runs a job of; None outside one."""
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        return Path(HydraConfig.get().sweep.dir).absolute().name
    return None


def outcome(results: Mapping[str, Any]) -> dict[str, Any]:
    """What of ``results.json`` a service shows beside the curves; None for what does not hold, or no longer."""
    figures = [key for key in results if key.split("_")[0] in SPLITS]
    return {key: results.get(key) for key in (*OUTCOME, *figures)}


def reason(error: BaseException) -> str:
    """What went wrong, in a line: what the system said, if it did, without a password that an address may hold."""
    text = str(error)
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and (link.strerror or isinstance(link, TimeoutError)):
            text = link.strerror or "it does not answer"
        link = link.__cause__ or link.__context__
    return without_password(" ".join(text.split()) or type(error).__name__)[:200].rstrip(".")


def without_password(address: str) -> str:
    """An address as it can be shown."""
    return re.sub(r"://[^@/\s]*@", "://", address)
