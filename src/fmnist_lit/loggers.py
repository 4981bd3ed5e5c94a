"""Where each epoch's figures go: TensorBoard, metrics.csv and the screen. Lightning's own loggers work as well."""

import csv
import io
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from lightning.pytorch.loggers import Logger
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.files import write_durably
from fmnist_lit.sweep import plan

log = logging.getLogger(__name__)

SPLITS = ("train", "val", "test")


class RunLogger(Logger):
    """A Lightning logger that gets one call an epoch: figures by TensorBoard tag, and the epoch (from 1) as step."""

    @property
    def name(self) -> str:
        return type(self).__name__

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        pass


class CSVLogger(RunLogger):
    """Keeps ``metrics.csv``, a row an epoch, whole after every epoch.

    A row replaces those of its own and of later epochs, so that a run which is resumed leaves none double.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "accuracy/train" not in metrics:  # the test at the end is in results.json
            return
        row = {"epoch": step}
        for split in SPLITS:
            if split != "test" or "accuracy/test" in metrics:
                row[f"{split}_accuracy"] = metrics.get(f"accuracy/{split}")
                row[f"{split}_loss"] = metrics.get(f"loss/{split}")
        row |= {"lr": metrics["lr"], "seconds": round(metrics["seconds"], 3)}
        rows = []
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = [earlier for earlier in csv.DictReader(file) if int(earlier["epoch"]) < step]
        text = io.StringIO()
        writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*rows, row])
        write_durably(self.path, lambda file: file.write(text.getvalue().encode()))


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's, straight into the run folder, with epochs on the x-axis.

    When the folder holds events already, those of the first epoch logged and later are declared void, so that a run
    which is resumed leaves no point double. A test cannot void what its epoch logged at the same step: where all that a
    resumed run has left to do is its test, points of an earlier attempt at it stand.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__(save_dir=run_dir, name="", version="", default_hp_metric=False)
        self.earlier_events_void = False

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if not self.earlier_events_void and len(list(Path(self.log_dir).glob("events.out.tfevents.*"))) > 1:
            if "accuracy/train" in metrics:
                self.void_from(step)
            else:
                self.void_from(step + 1)
                shown = self.tags_at(step)
                metrics = {tag: value for tag, value in metrics.items() if tag not in shown}
        self.earlier_events_void = True
        super().log_metrics(metrics, step)
        self.experiment.flush()

    def void_from(self, step: int) -> None:
        """What SummaryWriter(purge_step=…) does; but Lightning makes the writer before the step is known."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        restart = SessionLog(status=SessionLog.START)
        self.experiment.file_writer.add_event(Event(step=step, file_version="brain.Event:2"))
        self.experiment.file_writer.add_event(Event(step=step, session_log=restart))

    def tags_at(self, step: int) -> set[str]:
        """The tags of which the folder's events hold a point at ``step``."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(self.log_dir).Reload()
        return {tag for tag in events.Tags()["scalars"] if any(event.step == step for event in events.Scalars(tag))}

    @rank_zero_only
    def log_hyperparams(
        self,
        params: Any,
        metrics: Mapping[str, float] | None = None,
        step: int | None = None,
        varied: Collection[str] = (),
    ) -> None:
        """Show ``params`` in the HParams tab beside the latest points of the tags in ``metrics``.

        The tab shows only the first few columns unless asked for more: the ``varied`` ones come first.
        """
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
        from torch.utils.tensorboard.summary import hparams

        experiment, *session = hparams(dict(params), dict(metrics))
        metadata = experiment.value[0].metadata.plugin_data
        content = HParamsPluginData.FromString(metadata.content)
        for info in content.experiment.hparam_infos:
            info.differs = info.name in varied
        metadata.content = content.SerializeToString()
        for summary in (experiment, *session):
            self.experiment.file_writer.add_summary(summary)
        self.experiment.close()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Keep the file open after a fit that went well: the test follows, then the hyper-parameters close it."""
        if status != "success":
            self.experiment.close()

    @rank_zero_only
    def save(self) -> None:
        """Nothing: the configuration is in .hydra/config.yaml."""


class ConsoleLogger(RunLogger):
    """A line an epoch through Python's logging, so to the screen and to train.log."""

    def __init__(self, max_epochs: int) -> None:
        super().__init__()
        self.max_epochs = max_epochs

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "accuracy/train" not in metrics:
            return
        figures = [
            f"{split} {100 * metrics[f'accuracy/{split}']:5.2f} % loss {metrics[f'loss/{split}']:.4f}"
            for split in SPLITS
            if f"accuracy/{split}" in metrics
        ]
        epoch = f"epoch {step:{len(str(self.max_epochs))}d}/{self.max_epochs}"
        log.info("%s", " | ".join([epoch, *figures, f"lr {metrics['lr']:.3g}", f"{metrics['seconds']:.1f} s"]))


def log_hyperparameters(cfg: DictConfig, loggers: Iterable[Logger], metrics: Mapping[str, float]) -> None:
    """One row in TensorBoard's HParams tab: the choices and numbers people vary, beside the accuracies."""
    choices, varied = {}, []
    if HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
        varied = plan.varied_in_job(HydraConfig.get())
    row = {group: choices[group] for group in ("model", "loss", "optimizer", "scheduler") if group in choices}
    for group in ("optimizer", "scheduler", "model"):
        row |= {f"{group}.{key}": value for key, value in cfg[group].items() if not key.startswith("_")}
    for key in ("data.batch_size", "data.normalize", "regularization.l1", "trainer.max_epochs", "seed", *varied):
        row[key] = choices[key] if key in choices else OmegaConf.select(cfg, key)
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in row.items()}
    accuracies = {tag: metrics[tag] for tag in ("accuracy/val", "accuracy/test") if tag in metrics}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(plain, accuracies, varied=varied)
        else:
            logger.log_hyperparams(plain)
