"""An exponential moving average of the weights, which is what gets validated, tested and saved as the model."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_avg_fn


class WeightEMA(WeightAveraging):
    """Lightning's weight averaging, w_ema ← decay · w_ema + (1 − decay) · w, after every optimiser step.

    A checkpoint's ``state_dict`` is the average, so whatever loads the model gets that; what training goes on from is
    in ``current_model_state``.

    Args:
        decay: 0 <= decay < 1; the average reaches back about 1 / (1 − decay) steps.
    """

    copes_with_chunks = True

    def __init__(self, decay: float = 0.999) -> None:
        super().__init__(avg_fn=get_ema_avg_fn(decay))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Never when the Trainer asks, which is once a chunk of steps: the optimiser tells of each of them."""
        return False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        def update(*_: Any) -> None:
            self._average_model.update_parameters(module)

        self.hook = trainer.optimizers[0].register_step_post_hook(update)

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_end(trainer, module)
        self.hook.remove()
