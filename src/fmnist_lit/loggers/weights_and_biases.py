"""Weights & Biases: Lightning's logger, with one run for each run folder and the status that the run ended with."""

import glob
import logging
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import WandbLogger as LightningWandbLogger

from fmnist_lit.loggers.tracker import PATIENCE, Point, Tracker, outcome, reason, sweep_of_job
from fmnist_lit.processes import ranks
from fmnist_lit.run.names import shell_command

log = logging.getLogger(__name__)

SECONDS_TO_ANSWER = 5  # for the server
SECONDS_TO_BEGIN = 10  # after which a run is kept offline
SECONDS_TO_END = 30  # for what has not been uploaded when a run ends
EXIT_CODES = {"completed": 0, "interrupted": 255}  # shown as finished and killed; any other is failed


class WandbLogger(Tracker, LightningWandbLogger):
    """Lightning's, but for which run it writes to. Who, and on which server, is what ``wandb login`` was told.

    Without a key or a network the run is kept offline, in ``wandb/`` in the run folder.

    Args:
        run_dir: the run folder.
        project: of the user who is logged in.
        log_model: whether the checkpoint that was tested is sent, too.
    """

    service = "Weights & Biases"
    file_name = "wandb.json"
    offline_until, why_offline = 0.0, ""  # for all jobs of a sweep in this process, each of which would wait

    def __init__(self, run_dir: str | Path, project: str = "fmnist_lit", log_model: bool = False) -> None:
        Tracker.__init__(self, run_dir, log_model)
        self.project = project
        self.run: Any = None
        self.with_axis: set[str] = set()  # the tags that W&B knows the x-axis of

    def open(self) -> None:
        import wandb

        # silent, because it would ask for a key where nobody has to be
        mine = wandb.setup(wandb.Settings(silent=True)).settings
        place = {"server": mine.base_url, "entity": mine.entity, "project": self.project}
        if {key: self.known.get(key) for key in place} != place:
            self.known = {}
            self.remember(**place, id=new_id(), group=sweep_of_job())
        if mine.mode == "disabled":
            self.begin(mode="disabled")
        elif mine.mode == "offline" or self.known.get("offline"):
            self.begin_offline()
            log.info("%s is offline. %s", self.service, self.how_to_upload)
        elif why := self.begin_online(mine.base_url):
            self.begin_offline()
            log.warning("WARNING: %s: %s. The run goes on offline. %s", self.service, why, self.how_to_upload)
        self.run.summary["status"] = "running"
        self.with_axis = set()
        LightningWandbLogger.__init__(self, save_dir=self.run_dir, project=self.project, experiment=self.run)

    @property
    def opened(self) -> Any:
        return self.run

    def begin_online(self, server: str) -> str:
        """Begin the run on the server; returns why that cannot be, if so, and knows it for the next job."""
        if time.monotonic() < WandbLogger.offline_until:
            return WandbLogger.why_offline
        try:
            require_answer(server)
            self.begin(id=self.known["id"], resume="allow")
        except Exception as error:
            WandbLogger.why_offline = reason(error)
            WandbLogger.offline_until = time.monotonic() + PATIENCE
            return WandbLogger.why_offline
        if self.run.url != self.known.get("url"):
            log.info("%s: %s", self.service, self.run.url)
            self.remember(url=self.run.url)
        return ""

    def begin_offline(self) -> None:
        """Begin the run, or its next piece, in the run folder, where all pieces stay until a person uploads them."""
        try:
            self.begin(id=self.known["id"], mode="offline")
        except Exception:  # of the id, because the attempt to begin it online still waits for an answer
            self.remember(id=new_id())
            self.begin(id=self.known["id"], mode="offline")
        self.remember(offline=True)

    def begin(self, **options: Any) -> None:
        """What W&B calls to initialise, but for this run alone and without what else it would send."""
        import wandb

        self.run = wandb.init(
            **options,
            project=self.project,
            name=self.run_dir.name,
            group=self.known.get("group"),
            dir=self.run_dir,
            reinit="create_new",  # the jobs of a sweep may share a process
            settings=wandb.Settings(
                silent=True,
                console="off",  # train.log is sent
                disable_git=True,  # it would send what is not committed
                disable_code=True,
                symlink=False,
                init_timeout=SECONDS_TO_BEGIN,
                finish_timeout=SECONDS_TO_END,
                finish_timeout_raises=True,
                x_update_finish_state=ranks.left_open is None,
            ),
        )

    def send_parameters(self, parameters: Mapping[str, Any]) -> None:
        self.run.config.update(dict(parameters), allow_val_change=True)

    def send_points(self, points: list[Point]) -> None:
        for point in points:
            axis = "epoch" if point.by_epoch else "trainer/global_step"
            for tag in sorted(point.metrics.keys() - self.with_axis):
                self.run.define_metric(tag, step_metric=axis)
            self.with_axis |= point.metrics.keys()
            self.run.log(point.metrics if point.step is None else {**point.metrics, axis: point.step})

    def close(self, results: Mapping[str, Any]) -> None:
        import wandb

        try:
            self.run.summary.update(outcome(results))
            for file in self.files(results):
                if file.suffix == ".ckpt":
                    model = wandb.Artifact(f"model-{self.run.id}", type="model")
                    model.add_file(str(file), policy="immutable")  # no checkpoint is written in place
                    self.run.log_artifact(model)
                else:
                    self.run.save(glob.escape(str(file)), base_path=self.run_dir, policy="now")
        finally:
            self.run.finish(EXIT_CODES.get(results["status"], 1))

    def release(self) -> None:
        self.run.finish()

    def remedy(self) -> str:
        return f"{super().remedy()} {self.how_to_upload}" if self.is_open else super().remedy()

    @property
    def how_to_upload(self) -> str:
        """What to type to have on the server what is on the disk."""
        return f"To upload it: {shell_command(['wandb', 'sync', str(Path(self.run.dir).parent)])}"


def new_id() -> str:
    """An id for a run, before W&B knows of it."""
    return secrets.token_hex(4)


def require_answer(server: str) -> None:
    """Ask whether a server is there, because W&B asks for long, and holds the run's id for as long.

    Raises:
        OSError: if it is not.
    """
    try:
        urllib.request.urlopen(server, timeout=SECONDS_TO_ANSWER).close()
    except urllib.error.HTTPError:  # an answer
        pass
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # W&B has certificates of its own
            raise
