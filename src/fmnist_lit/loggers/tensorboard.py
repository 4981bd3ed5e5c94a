"""Lightning's TensorBoard logger, with epochs on the x-axis, resumable, and with a readable HParams tab."""

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import TensorBoardLogger as LightningTensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class TensorBoardLogger(LightningTensorBoardLogger):
    """Lightning's, straight into the run folder, with epochs on the x-axis.

    When the folder holds events already, those of the first epoch logged and later are declared void, so that a run
    which is resumed leaves no point double. A test cannot void what its epoch logged at the same step: where all that a
    resumed run has left to do is its test, points of an earlier attempt at it stand.
    """

    def __init__(self, run_dir: str | Path) -> None:
        try:
            str(run_dir).encode()
        except UnicodeEncodeError as error:  # bytes of another encoding
            raise ValueError(
                f"{str(run_dir)!a}: TensorBoard takes folder names in UTF-8 only; ~logger.tensorboard does without it"
            ) from error
        super().__init__(save_dir=run_dir, name="", version="", default_hp_metric=False)
        self.earlier_events_void = False

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
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        of_epoch, of_test = "accuracy/train" in metrics, "accuracy/test" in metrics
        if step is None or not (of_epoch or of_test):  # a callback's own, by optimiser step
            super().log_metrics(metrics, step)
            return
        if not self.earlier_events_void and len(list(Path(self.log_dir).glob("events.out.tfevents.*"))) > 1:
            if of_epoch:
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

        experiment, *session = hparams(dict(params), dict(metrics or {}))  # type: ignore[no-untyped-call]  # torch's own
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


@contextlib.contextmanager
def naming_the_last_file(folder: Path) -> Iterator[None]:
    """Let the event file that is opened in this block come after those in the folder, whatever the clock says.

    TensorBoard reads them by name, and the name begins with the second; that of a run which is resumed on another
    machine, or after the clock was set, may be an earlier one.
    """
    from tensorboard.summary.writer import event_file_writer

    numbers = (file.name.split(".")[3] for file in folder.glob("events.out.tfevents.*"))
    last = max((int(number) for number in numbers if number.isdecimal()), default=-1)
    clock = event_file_writer.time
    if clock.time() < last + 1:
        event_file_writer.time = SimpleNamespace(time=lambda: last + 1)
    try:
        yield
    finally:
        event_file_writer.time = clock
