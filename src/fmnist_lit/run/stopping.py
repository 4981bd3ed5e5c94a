"""What ends training between two optimiser steps: ``max_steps``, a signal to any rank, a loss that is not finite."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer

from fmnist_lit.classifier import Classifier
from fmnist_lit.processes.collectives import any_rank_is_to_stop, earliest
from fmnist_lit.run.status import DivergedError


class StopConditions(Callback):
    """Asks the Trainer to stop, at the first moment at which no gradient is under way.

    Args:
        max_steps: optimiser steps of the whole run; -1 for no limit.
    """

    copes_with_chunks = True

    def __init__(self, max_steps: int = -1) -> None:
        self.max_steps = max_steps

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        assert isinstance(module, Classifier)
        if trainer.is_last_batch:
            module.progress.flush()
        raise_if_diverged(trainer, module)
        if module.progress.between_steps and (trainer.global_step == self.max_steps or any_rank_is_to_stop(trainer)):
            trainer.should_stop = True

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if not all(math.isfinite(module.figures.get(f"loss/{split}", 0.0)) for split in ("val", "test")):
            raise DivergedError(trainer.global_step)

    def on_test_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.on_validation_end(trainer, module)


def raise_if_diverged(trainer: Trainer, module: Classifier) -> None:
    """Look at the losses that have been added up, of all ranks.

    Raises:
        DivergedError: if one is not finite.
    """
    progress = module.progress
    if progress.buffer:  # of several ranks, all have the same number of batches waiting
        return
    step = earliest(trainer, progress.diverged_step)
    if step is not None:
        raise DivergedError(trainer.global_step - progress.steps + step)


def ran_out(timer: Timer) -> bool:
    """Whether a time budget is used up."""
    remaining = timer.time_remaining()
    return remaining is not None and remaining <= 0


def stopped_by(trainer: Trainer, max_steps: int) -> str | None:
    """Why training ended, in the terms of ``results.json``; None if a callback of somebody else's asked for it.

    Args:
        trainer: after its fit.
        max_steps: of the whole run; -1 for no limit.
    """
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Trainer.__init__
        if isinstance(callback, EarlyStopping) and callback.stopped_epoch:
            reason = callback.stopping_reason_message or f"{callback.monitor} did not improve"
            return f"early_stopping: {' '.join(reason.split()).removesuffix(' Signaling Trainer to stop.')}"
    if 0 <= max_steps <= trainer.global_step:
        return "max_steps"
    if any(isinstance(callback, Timer) and ran_out(callback) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        return "max_time"
    ended = trainer.max_epochs is not None and trainer.current_epoch >= trainer.max_epochs
    return "max_epochs" if ended else None
