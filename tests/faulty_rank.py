"""Imported by the server that ranks are forked from: draws the images once, and lets $FAULT befall one rank.

$FAULT is "KIND RANK STEP"; $KEEP names a folder in which every rank leaves its weights and what it counted.
"""

import os
import signal
from pathlib import Path
from typing import Any

import torch

import fmnist_lit.train
from fmnist_lit.data.images import load_images
from fmnist_lit.metrics import BufferedMetric, EpochProgress

data = load_images("synthetic", "data", 0)
for images in (data.train, data.test):
    images[:]
torch.optim.SGD([torch.zeros(1, requires_grad=True)]).zero_grad()

steps_begun = 0
original_add, original_averages, original_train = EpochProgress.add, BufferedMetric.averages, fmnist_lit.train.train


def add(self: EpochProgress, loss: torch.Tensor, logits: torch.Tensor, labels: torch.Tensor) -> None:
    global steps_begun
    steps_begun += 1  # of the run, a batch each
    kind, rank, step = os.environ.get("FAULT", "none 0 0").split()
    if os.environ["LOCAL_RANK"] == rank and steps_begun == int(step):
        if kind == "raise":
            raise ValueError("out of luck")
        if kind == "nan":
            loss.detach().fill_(torch.nan)
        elif kind in signal.Signals.__members__:
            os.kill(os.getpid(), signal.Signals[kind])
    original_add(self, loss, logits, labels)


def averages(self: BufferedMetric, split: str) -> dict[str, float]:
    figures = original_averages(self, split)
    if "KEEP" in os.environ:
        with open(Path(os.environ["KEEP"]) / f"{split}.{os.environ['LOCAL_RANK']}", "a") as counts:
            print(int(self.metric.sums[2]), file=counts)
    return figures


def train(cfg: Any) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    fit = fmnist_lit.train.Trainer.fit

    def keeping_fit(trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
        fit(trainer, module, *args, **kwargs)
        kept.update({name: weight.clone() for name, weight in module.state_dict().items()})

    fmnist_lit.train.Trainer.fit = keeping_fit
    figures = original_train(cfg)
    if "KEEP" in os.environ:
        torch.save(kept, Path(os.environ["KEEP"]) / f"weights.{os.environ['LOCAL_RANK']}")
    return figures


EpochProgress.add, BufferedMetric.averages, fmnist_lit.train.train = add, averages, train
