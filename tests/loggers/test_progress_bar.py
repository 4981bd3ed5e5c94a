import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from fmnist_lit.classifier import Classifier
from fmnist_lit.loggers.progress_bar import ProgressBar


@pytest.mark.parametrize("terminal", [True, False])
def test_bar_is_shown_in_a_terminal_only(monkeypatch, terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
    assert ProgressBar().is_enabled is terminal


def test_bar_counts_batches_and_epochs_from_one():
    bar = ProgressBar()
    bar._trainer = SimpleNamespace(datamodule=SimpleNamespace(batches_per_epoch=313), max_epochs=2)
    assert bar.total_train_batches == 313
    assert bar._get_train_description(0) == "epoch 1/2"


def test_bar_shows_the_loss_of_the_last_chunk():
    trainer = SimpleNamespace(loggers=[], progress_bar_metrics={"v_num": 1})
    classifier = Classifier(nn.Linear(1, 1), nn.CrossEntropyLoss())
    classifier.progress.recent_loss = torch.tensor(0.4567)
    metrics = ProgressBar().get_metrics(trainer, classifier)
    assert metrics["loss"] == "0.457"
