"""An exponential moving average of the weights: validated, tested and saved in place of the last weights."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn


class WeightEMA(WeightAveraging):
    """Lightning's weight averaging, w_ema ← decay · w_ema + (1 − decay) · w, after every optimiser step.

    A checkpoint's ``state_dict`` is the average, so that whatever loads the model gets it; the weights that training
    resumes from are under ``current_model_state``.

    Args:
        decay: 0 <= decay < 1; the average reaches back about 1 / (1 − decay) steps.
    """

    copes_with_chunks = True

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(avg_fn=get_ema_avg_fn(decay))  # type: ignore[no-untyped-call]  # untyped in torch

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Never: the Trainer asks once a batch, which may hold many optimiser steps; the hook below acts on each."""
        return False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        def update(*_: Any) -> None:
            assert self._average_model is not None  # made in setup
            self._average_model.update_parameters(module)

        self.hook = trainer.optimizers[0].register_step_post_hook(update)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_end(trainer, module)
        self.hook.remove()
