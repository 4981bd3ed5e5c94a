"""Lightning's TensorBoard logger, with epochs on the x-axis, resumable, and with a readable HParams tab."""

import contextlib
import math
import struct
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from fmnist_lit.loggers.event_files import event_files, number_of, rewrite_events

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

RUNNING_LOSS = "loss/running"
# What the x-axis of a chart counts where it is not epochs; TensorBoard shows it with the chart
BY_STEP, BY_BATCH = "by optimiser step", "by the Trainer's batches"
# Hyper-parameters of which a factor is what matters
BY_FACTORS = ("lr", "adamw_lr", "weight_decay", "adamw_weight_decay", "l1", "batch_size")
# What a run says once, and says again when it goes on
SAID_ONCE = ("_hparams_/", "custom_scalars__config__", "configuration/text_summary", "run/text_summary")


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's, straight into the run folder, with epochs on the x-axis.

    Only ``loss/running`` is by optimiser step, and what somebody's callback logs by the Trainer's batches. A run that
    goes on from a checkpoint first removes from its events what was logged after that. Where all that it has left to do
    is its test, points of an earlier attempt at that stand.

    Args:
        run_dir: the run folder.
        suffix: what the name of the event file ends with.
    """

    def __init__(self, run_dir: str | Path, suffix: str = "") -> None:
        try:
            str(run_dir).encode()
        except UnicodeEncodeError as error:  # bytes of another encoding
            raise ValueError(
                f"{str(run_dir)!a}: TensorBoard takes folder names in UTF-8 only; ~logger.tensorboard does without it"
            ) from error
        super().__init__(save_dir=run_dir, name="", version="", default_hp_metric=False, filename_suffix=suffix)
        self.goes_on = False

    @property
    @rank_zero_experiment
    def experiment(self) -> "SummaryWriter":
        """Torch's writer; the file that it opens is the last of its folder."""
        if self._experiment is not None:
            return self._experiment
        with naming_the_last_file(Path(self.log_dir)):
            writer: SummaryWriter = super().experiment
        return writer

    @rank_zero_only
    def go_on_from(self, epoch: int, step: int, batch: int) -> None:
        """Remove from the folder's events what is of later than a checkpoint, and what a run says once.

        Args:
            epoch: how many are finished.
            step: how many optimiser steps were taken.
            batch: how many batches of the Trainer, which may be chunks, took one.
        """
        self.goes_on = True
        if self._experiment is not None:
            self._experiment.close()
            self._experiment = None
        limits = {BY_STEP: step, BY_BATCH: batch}
        rewrite_events(
            Path(self.log_dir),
            lambda value, at: (
                at <= limits.get(value.metadata.summary_description, epoch) and not value.tag.startswith(SAID_ONCE)
            ),
        )

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        of_epoch, of_test = "accuracy/train" in metrics, "accuracy/test" in metrics
        if step is not None and not (of_epoch or of_test):
            self.log_by_batch(metrics, step)
            return
        if of_test and not of_epoch and self.goes_on and step is not None:
            shown = self.tags_at(step)
            metrics = {tag: value for tag, value in metrics.items() if tag not in shown}
        super().log_metrics(metrics, step)
        self.experiment.flush()

    def log_by_batch(self, metrics: Mapping[str, Any], step: int) -> None:
        """Log a callback's own figures, or the running loss, each with the scale of its steps."""
        from torch.utils.tensorboard.summary import scalar

        for tag, value in metrics.items():
            if isinstance(value, dict):  # for Lightning it is a chart of several curves
                super().log_metrics({tag: value}, step)  # type: ignore[dict-item]
                continue
            summary = scalar(tag, value)  # type: ignore[no-untyped-call]  # torch's own
            metadata = summary.value[0].metadata
            metadata.plugin_data.plugin_name = "scalars"
            metadata.summary_description = BY_STEP if tag == RUNNING_LOSS else BY_BATCH
            self.experiment.file_writer.add_summary(summary, step)

    @rank_zero_only
    def log_image(self, tag: str, png: bytes, step: int, description: str = "") -> None:
        """Show a picture; ``description``, Markdown, is shown with all pictures of the tag."""
        from fmnist_lit.loggers.protocol import Summary

        width, height = struct.unpack(">II", png[16:24])
        image = Summary.Image(encoded_image_string=png, width=width, height=height, colorspace=3)
        value = Summary.Value(tag=tag, image=image)
        value.metadata.plugin_data.plugin_name = "images"
        value.metadata.summary_description = description
        self.experiment.file_writer.add_summary(Summary(value=[value]), step)

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

        The tab shows only the first few columns unless asked for more: the ``varied`` ones come first. Its axes are
        linear, and rates are looked for by factors: those that vary have a column of their logarithm, too.
        """
        from torch.utils.tensorboard.summary import hparams

        from fmnist_lit.loggers.protocol import HParamsPluginData

        logarithms = {
            f"log10 {key}": math.log10(params[key])
            for key in varied
            if key.rpartition(".")[2] in BY_FACTORS and isinstance(params[key], int | float) and params[key] > 0
        }
        varied = [*logarithms, *varied]
        experiment, *session = hparams({**logarithms, **params}, dict(metrics or {}))  # type: ignore[no-untyped-call]  # torch's own
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


def tensorboards(trainer: Trainer) -> list[TensorBoardLogger]:
    """The TensorBoard loggers of a run; none on the ranks that do not write."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero]


@contextlib.contextmanager
def naming_the_last_file(folder: Path) -> Iterator[None]:
    """Let the event file that is opened in this block come after those in the folder, whatever the clock says.

    TensorBoard reads them by name, and the name begins with the second; that of a run which is resumed on another
    machine, or after the clock was set, may be an earlier one.
    """
    from tensorboard.summary.writer import event_file_writer

    last = max(map(number_of, event_files(folder)), default=-1)
    clock = event_file_writer.time
    if clock.time() < last + 1:
        event_file_writer.time = SimpleNamespace(time=lambda: last + 1)
    try:
        yield
    finally:
        event_file_writer.time = clock
