"""Losses that torch lacks in (logits, class index) form, and the L1 penalty on weights."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class OneHotLoss(nn.Module):
    """An elementwise loss of logits (N, C) against the one-hot form of class indices (N,), averaged over both.

    Args:
        loss: takes (logits, targets), both (N, C) and of the logits' dtype, such as ``nn.MSELoss()``.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        loss: Tensor = self.loss(logits, F.one_hot(targets, logits.shape[1]).to(logits.dtype))
        return loss


class LogSoftmaxNLLLoss(nn.Module):
    """Negative log-likelihood of class indices (N,) under the softmax of logits (N, C): cross entropy in two steps."""

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.nll_loss(F.log_softmax(logits, dim=1), targets)


def l1_penalty(parameters: Iterable[Tensor]) -> Tensor:
    """Σ |w| over parameters of two or more dimensions, so not over biases and the scales of norms; a scalar."""
    return torch.stack([p.abs().sum() for p in parameters if p.ndim > 1]).sum()
