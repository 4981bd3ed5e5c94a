"""What the presets in conf/debug add to a run: memorise a few batches, say where time goes, find the first NaN."""

import logging
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.profilers import SimpleProfiler
from torch import Tensor, nn
from torch.optim import Optimizer

from fmnist_lit.classifier import Classifier
from fmnist_lit.run.files import write_text
from fmnist_lit.run.status import DivergedError

log = logging.getLogger(__name__)

# What a learner knows by name, and how the actions that Lightning times end which belong to it
PARTS = {
    "data": ("dataloader_next", "val_next", "test_next", "batch_to_device", "batch_transfer"),
    "forward and loss": ("training_step",),
    "backward": (".backward",),
    "optimiser": ("optimizer_step", "optimizer_zero_grad", "configure_gradient_clipping", "lr_scheduler_step"),
    "evaluation": ("validation_step", "test_step"),
    "checkpoints": ("save_checkpoint", "RunCheckpoint.on_train_epoch_end", "RunCheckpoint.on_train_end"),
}
THE_REST = "hooks, metrics and logs"


class Memorise(EarlyStopping):
    """Stops once every training image of an epoch is classified right, and says at the end whether it came to that."""

    def __init__(self) -> None:
        super().__init__(
            "accuracy/train",
            mode="max",
            patience=sys.maxsize,
            stopping_threshold=1 - 1e-6,
            check_on_train_epoch_end=True,
        )

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        super().on_train_epoch_end(trainer, module)
        if self.stopping_reason == EarlyStoppingReason.STOPPING_THRESHOLD:
            self.stopping_reason_message = "every training image is memorised"

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        images, epochs = module.images.get("train", 0), trainer.current_epoch
        if self.stopping_reason == EarlyStoppingReason.STOPPING_THRESHOLD:
            log.info("Memorised: all %d training images are right after epoch %d", images, epochs)
            return
        log.warning(
            "NOT memorised: train accuracy %.1f %% of %d images after epoch %d. Look at optimizer.lr, at "
            "dropout and weight decay, at the labels, at the model",
            *(100 * module.figures.get("accuracy/train", 0.0), images, epochs),
        )


class NestedProfiler(SimpleProfiler):
    """Lightning's, which also knows how long each action took without those within it; it prints nothing.

    Args:
        device: what runs; each action waits until it has done its work.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.waits = device.type != "cpu"
        self.within = [0.0]  # seconds of the actions within each that is under way
        self.own_seconds: dict[str, float] = defaultdict(float)

    def start(self, action_name: str) -> None:
        self.wait()
        super().start(action_name)
        self.within.append(0.0)

    def stop(self, action_name: str) -> None:
        self.wait()
        super().stop(action_name)
        seconds = self.recorded_durations[action_name][-1]
        self.own_seconds[action_name] += seconds - self.within.pop()
        self.within[-1] += seconds

    def wait(self) -> None:
        """Let the device finish, or its work would be counted for whoever waits next."""
        if self.waits:
            torch.accelerator.synchronize()

    def describe(self) -> None:
        """Nothing: ``Profile`` does."""


class Profile(Callback):
    """A table of where the time of the fit went, on the screen and, with all of Lightning's rows, in ``profile.txt``.

    Args:
        run_dir: the run folder.
    """

    copes_with_chunks = True

    def __init__(self, run_dir: str | Path) -> None:
        self.file = Path(run_dir) / "profile.txt"
        self.begin = 0.0

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        trainer.profiler = NestedProfiler(trainer.strategy.root_device)  # type: ignore[attr-defined]  # set by Trainer
        self.begin = time.perf_counter()

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        profiler: NestedProfiler = trainer.profiler  # type: ignore[attr-defined]
        seconds = time.perf_counter() - self.begin
        parts = seconds_by_part(profiler.own_seconds, seconds)
        if not module.automatic_optimization:  # the fast class does all of it in its training_step
            steps = sum(parts.pop(name) for name in ("forward and loss", "backward", "optimiser"))
            parts = {"optimiser steps": steps, **parts}
        table = time_table(parts, trainer.global_step)
        log.info("%s\nEvery hook is in %s in the run folder", table, self.file.name)
        if trainer.is_global_zero:
            write_text(self.file, f"{table}\n\n{profiler.summary()}\n")


def seconds_by_part(own_seconds: Mapping[str, float], total: float) -> dict[str, float]:
    """Seconds of each of PARTS, the longest first, and of THE_REST.

    Args:
        own_seconds: of each action that Lightning times, without those within it.
        total: of the whole fit.
    """
    parts = {
        part: sum(seconds for action, seconds in own_seconds.items() if action.endswith(endings))
        for part, endings in PARTS.items()
    }
    by_length = dict(sorted(parts.items(), key=lambda item: -item[1]))
    return {**by_length, THE_REST: total - sum(parts.values())}


def time_table(parts: Mapping[str, float], steps: int) -> str:
    """Seconds, shares of the whole, and milliseconds of an optimiser step, a line each part."""
    total, width = sum(parts.values()), max(map(len, parts))
    rows = [
        f"  {name:{width}}  {seconds:8.2f} s  {100 * seconds / total:5.1f} %  {1000 * seconds / max(steps, 1):8.3f} ms"
        for name, seconds in {**parts, "together": total}.items()
    ]
    return "\n".join([f"Where the time went, and how much of it is for one of {steps} optimiser steps", *rows])


class FirstNonFinite(Callback):
    """Looks at every step's images, layers, loss, gradients and weights, and ends the run at the first NaN or infinity.

    Raises:
        DivergedError: which names it.
    """

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        module.backward = partial(self.backward, trainer, module.backward)  # type: ignore[method-assign]
        for name, layer in module.model.named_modules(prefix="model"):  # the hook of an inner one comes first
            where = f"the output of {name} ({type(layer).__name__})"
            layer.register_forward_hook(partial(self.look_at_output, trainer, where))

    def look_at_output(self, trainer: Trainer, where: str, layer: nn.Module, inputs: Any, output: Any) -> None:
        """A forward hook of torch's."""
        if isinstance(output, Tensor):
            require_finite(output, f"a value in {where}", trainer.global_step + trainer.training)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_idx: int) -> None:
        require_finite(batch[0], "a pixel of the batch", trainer.global_step + 1)

    def on_before_backward(self, trainer: Trainer, module: LightningModule, loss: Tensor) -> None:
        require_finite(loss, "the loss", trainer.global_step + 1)

    def backward(self, trainer: Trainer, backward: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        """The module's, in which torch's anomaly detection may find a NaN; it tells the forward pass of it, too."""
        try:
            backward(*args, **kwargs)
        except RuntimeError as error:
            if not (found := re.match("Function '(.+)' returned nan values", str(error))):
                raise
            raise DivergedError(trainer.global_step + 1, f"a gradient out of {found[1]}") from error

    def on_before_optimizer_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        for name, parameter in module.named_parameters():
            if parameter.grad is not None:
                require_finite(parameter.grad, f"a gradient of {name}", trainer.global_step + 1)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        for name, parameter in module.named_parameters():
            require_finite(parameter, f"a value of {name}", trainer.global_step)


def require_finite(values: Tensor, what: str, step: int) -> None:
    """Go on if all of them are finite.

    Raises:
        DivergedError: if one is NaN or infinite.
    """
    if not values.detach().isfinite().all():
        raise DivergedError(step, what)
