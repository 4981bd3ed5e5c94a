"""The line an epoch on the screen and in train.log."""

import logging
from collections.abc import Mapping

from lightning.pytorch.utilities import rank_zero_only

from fmnist_lit.loggers.base import SPLITS, RunLogger

log = logging.getLogger(__name__)


class ConsoleLogger(RunLogger):
    """A line an epoch through Python's logging, so to the screen and to train.log."""

    def __init__(self, max_epochs: int) -> None:
        super().__init__()
        self.max_epochs = max_epochs
        self.remark = ""  # that every line is to carry

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        if "accuracy/train" not in metrics:
            return
        figures = [
            f"{split} {100 * metrics[f'accuracy/{split}']:5.2f} % loss {metrics[f'loss/{split}']:.4f}"
            for split in SPLITS
            if f"accuracy/{split}" in metrics
        ]
        remark = [self.remark] if self.remark else []
        epoch = f"epoch {step:{len(str(self.max_epochs))}d}/{self.max_epochs}"
        log.info("%s", " | ".join([epoch, *figures, f"lr {metrics['lr']:.3g}", f"{metrics['seconds']:.1f} s", *remark]))
