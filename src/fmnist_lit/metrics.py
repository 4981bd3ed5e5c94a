"""Accuracy and average loss of an epoch, worked out once in a few dozen batches instead of after each."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

MOST_BATCHES, MOST_ROWS = 50, 4096  # that wait to be added up


class AccuracyAndLoss(Metric):
    """Per-sample accuracy (a fraction) and average loss, over all batches and all ranks.

    The losses of batches are summed one after another in double precision, so that the last digit does not depend on
    how many batches an update takes.
    """

    full_state_update = False
    sums: Tensor

    def __init__(self) -> None:
        super().__init__()
        dtype = torch.float32 if torch.backends.mps.is_available() else torch.float64  # Apple's GPUs have no float64
        self.add_state("sums", torch.zeros(3, dtype=dtype), dist_reduce_fx="sum")  # loss, correct, samples

    def update(self, losses: Tensor, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """Add batches: the mean loss of each (B,), and the logits (N, C) and class indices (N,) of each."""
        sizes = torch.tensor([len(batch) for batch in labels], device=losses.device)
        weighted = losses.to(self.sums.dtype) * sizes
        self.sums[0] = torch.cat([self.sums[:1], weighted]).cumsum(0)[-1]
        rows = torch.cat(list(labels))
        self.sums[1] += (torch.cat(list(logits)).argmax(dim=1) == rows).sum()
        self.sums[2] += len(rows)

    def compute(self) -> dict[str, float]:
        """The averages, and how many images they are of."""
        loss, correct, samples = self.sums.tolist()
        return {"accuracy": correct / samples, "loss": loss / samples, "images": samples}


class BufferedMetric:
    """``AccuracyAndLoss`` of batches that wait until there are a few dozen of them.

    Updated at every step, torchmetrics would add half an epoch to a network this small.
    """

    def __init__(self, device: torch.device) -> None:
        self.metric = AccuracyAndLoss().to(device)
        self.buffer: list[tuple[Tensor, Tensor, Tensor]] = []
        self.buffered_rows = 0
        self.images = 0  # that the last averages are of

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take a batch: its mean loss, a scalar; its logits (N, C); its class indices (N,)."""
        self.buffer.append((loss.detach(), logits.detach(), labels))
        self.buffered_rows += len(labels)
        if len(self.buffer) >= MOST_BATCHES or self.buffered_rows >= MOST_ROWS:
            self.flush()

    def flush(self) -> None:
        """Add up the batches that wait."""
        if self.buffer:
            losses, logits, labels = zip(*self.buffer, strict=True)
            self.buffer, self.buffered_rows = [], 0
            self.update(torch.stack(losses), logits, labels)

    def update(self, losses: Tensor, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        """As the metric's."""
        self.metric.update(losses, logits, labels)

    def averages(self, split: str) -> dict[str, float]:
        """The averages by TensorBoard tag."""
        self.flush()
        computed = self.metric.compute()
        self.images = int(computed.pop("images"))
        return {f"{kind}/{split}": value for kind, value in computed.items()}


class EvaluationMetric(BufferedMetric):
    """The figures of an evaluation, and which samples were right.

    Attributes:
        correct: parts of one row of bools, a sample each, in the order of the batches; of this rank alone.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.correct = [torch.zeros(0, dtype=torch.bool, device=device)]  # a rank may have no image

    def update(self, losses: Tensor, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        super().update(losses, logits, labels)
        self.correct.append(torch.cat(list(logits)).argmax(dim=1) == torch.cat(list(labels)))


class EpochProgress(BufferedMetric):
    """The figures of an epoch of training so far, and how far it is.

    Attributes:
        batches, steps: how many batches and optimiser steps are done.
        learning_rate: of the last step.
        diverged_step: the step of this epoch, from 1, whose loss was the first that is not finite; None if all are.
        recent_loss: mean over the batches that were last added up, for a progress bar.
        running: the running loss: the optimiser step of this epoch that each of its points is at, and the mean loss of
            the images since the point before. There is one every ``interval`` batches, and one at the epoch's end.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self.batches = self.steps = self.steps_before_batch = 0
        self.steps_before: list[int] = []  # of the batches that wait
        self.learning_rate = math.nan
        self.diverged_step: int | None = None
        self.recent_loss: Tensor | float = math.nan
        self.interval = 0  # known with the first batch: as many batches as a chunk has by default
        self.running: list[tuple[int, Tensor]] = []
        self.sums_before = torch.zeros_like(self.metric.sums)  # at the last point
        self.start = time.perf_counter()

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        self.batches += 1
        self.steps_before_batch = self.steps
        self.steps_before.append(self.steps)
        self.interval = self.interval or min(MOST_BATCHES, max(1, MOST_ROWS // max(1, len(labels))))
        super().add(loss, logits, labels)
        if self.batches % self.interval == 0:
            self.add_point()

    def add_point(self) -> None:
        """Add a point to the running loss, of the images since the one before."""
        self.flush()
        since, self.sums_before = self.metric.sums - self.sums_before, self.metric.sums.clone()
        self.running.append((self.steps_before_batch + 1, since[0] / since[2]))

    def end_running(self) -> None:
        """Add the last point, of the batches that are left at the end of the epoch."""
        if self.batches % self.interval:
            self.add_point()

    def update(self, losses: Tensor, logits: Sequence[Tensor], labels: Sequence[Tensor]) -> None:
        super().update(losses, logits, labels)
        self.recent_loss = losses.mean()
        finite = losses.isfinite()
        if self.diverged_step is None and not finite.all():  # the one time that the host waits for the device
            self.diverged_step = self.steps_before[int(finite.logical_not().nonzero()[0])] + 1
        self.steps_before.clear()

    @property
    def between_steps(self) -> bool:
        """Whether the last batch ended in an optimiser step, so that no gradient is under way."""
        return self.steps > self.steps_before_batch

    @property
    def seconds(self) -> float:
        """How long the epoch has taken."""
        return time.perf_counter() - self.start

    def position(self) -> dict[str, Any]:
        """All that ``go_on_from`` needs, in plain values and tensors."""
        self.flush()
        sums = {"sums": self.metric.sums, "sums_before": self.sums_before}
        return {"batches": self.batches, "steps": self.steps, **sums, "seconds": self.seconds}

    def go_on_from(self, position: Mapping[str, Any]) -> None:
        """Be where an interrupted epoch was."""
        self.batches, self.steps = position["batches"], position["steps"]
        self.metric.sums.copy_(position["sums"])
        self.sums_before.copy_(position.get("sums_before", position["sums"]))  # older checkpoints have none
        self.start -= position["seconds"]
