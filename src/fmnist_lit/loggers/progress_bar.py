"""Lightning's Rich progress bar, counting batches where the Trainer counts chunks of them, and epochs from 1."""

import sys
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import RichProgressBar

from fmnist_lit.classifier import Classifier
from fmnist_lit.processes import workers


class ProgressBar(RichProgressBar):
    """Shown in a terminal only; elsewhere the log's line an epoch is enough."""

    copes_with_chunks = True

    def __init__(self, refresh_rate: int = 4) -> None:
        super().__init__(refresh_rate=refresh_rate)
        if sys.stdout is None or not sys.stdout.isatty() or workers.in_worker():  # other jobs write there too
            self.disable()

    @property
    def total_train_batches(self) -> int:
        batches: int = self.trainer.datamodule.batches_per_epoch  # type: ignore[attr-defined]  # set by Trainer.fit
        return batches

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, chunk: Any, chunk_index: int
    ) -> None:
        assert isinstance(module, Classifier)
        super().on_train_batch_end(trainer, module, outputs, chunk, module.progress.batches - 1)

    def get_metrics(self, trainer: Trainer, module: LightningModule) -> dict[str, Any]:
        assert isinstance(module, Classifier)
        return {**super().get_metrics(trainer, module), "loss": f"{float(module.progress.recent_loss):.3f}"}

    def _get_train_description(self, current_epoch: int) -> str:
        return f"epoch {current_epoch + 1}/{self.trainer.max_epochs}"
