"""Learning-rate schedules that torch lacks in the form a configuration can name."""

from typing import Any

from torch.optim import Optimizer, lr_scheduler


class WarmupPolynomialLR(lr_scheduler.LambdaLR):
    """Linear warm-up, then polynomial decay to zero; stepped after each optimiser step.

    Step t (from 0) of T = total_steps runs at lr · (t + 1) / w for t < w and at lr · ((T − t) / (T − w)) ** power
    after, where w = round(warmup_fraction · T), so that no step runs at zero.

    Args:
        optimizer: the learning rate of each of its groups is the peak.
        total_steps: optimiser steps in the run, > 0.
        warmup_fraction: share of the steps that warms up, 0 <= warmup_fraction < 1.
        power: of the decay, > 0; above 1 the run spends longer at low rates than on a straight line, which is 1.
    """

    def __init__(
        self, optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.1, power: float = 3.0
    ) -> None:
        self.total_steps = total_steps
        self.warmup_steps = round(warmup_fraction * total_steps)
        self.power = power
        super().__init__(optimizer, self.factor)

    def factor(self, step: int) -> float:
        """The factor on the learning rate at ``step``, in [0, 1]."""
        if step < self.warmup_steps:
            return (step + 1) / self.warmup_steps
        left = max(0, self.total_steps - step) / max(1, self.total_steps - self.warmup_steps)
        return float(left**self.power)


class WarmupLinearLR(WarmupPolynomialLR):
    """Linear warm-up, then linear decay to zero: ``WarmupPolynomialLR`` with a power of 1."""

    def __init__(self, optimizer: Optimizer, total_steps: int, warmup_fraction: float = 0.1) -> None:
        super().__init__(optimizer, total_steps, warmup_fraction, power=1.0)


class OneCycleLR(lr_scheduler.OneCycleLR):
    """torch's OneCycleLR with each group's own learning rate as ``max_lr``, so that ``optimizer.lr`` is the peak."""

    def __init__(self, optimizer: Optimizer, total_steps: int, **options: Any) -> None:
        peaks = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, max_lr=peaks, total_steps=total_steps, **options)
