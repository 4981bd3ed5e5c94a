"""With the textbook class, what Lightning does at single optimiser steps comes out as with plain Lightning."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from hydra.utils import instantiate
from lightning.pytorch import callbacks as lightning_callbacks
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import fmnist_lit.train
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.run.selection import Selected

BATCH_SIZE, EPOCHS, LR = 32, 3, 0.1
SIZES = ("data.train_size=256", "data.val_size=64", "data.test_size=64", "data.shuffle=false")
OURS = (*SIZES, f"data.batch_size={BATCH_SIZE}", f"trainer.max_epochs={EPOCHS}", "optimizer=sgd_momentum")


class Plain(pl.LightningModule):
    """What Lightning's documentation would write."""

    def __init__(self, model: nn.Module, lr: float, step_size: int) -> None:
        super().__init__()
        self.model, self.lr, self.step_size = model, lr, step_size

    def training_step(self, batch: Any, index: int) -> torch.Tensor:
        images, labels = batch
        return nn.functional.cross_entropy(self.model(images), labels)

    def validation_step(self, batch: Any, index: int) -> None:
        images, labels = batch
        self.log("loss/val", nn.functional.cross_entropy(self.model(images), labels))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.model.parameters(), lr=self.lr, momentum=0.9, fused=True)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, self.step_size)]


class Data(pl.LightningDataModule):
    def __init__(self, cfg: DictConfig) -> None:
        super().__init__()
        self.batch_size = cfg.data.batch_size
        ours: FashionMNISTDataModule = instantiate(cfg.data)
        ours.setup()
        self.splits = {
            name: TensorDataset(ours.scale(images.pixels), images.labels)
            for name, images in (("train", ours.train_images), ("val", ours.val_images))
        }

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["train"], batch_size=self.batch_size)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(self.splits["val"], batch_size=64)


class Pair:
    """The same callback in a run of ours and in plain Lightning."""

    def __init__(self, cfg: DictConfig, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cfg, self.folder, self.patch = cfg, folder, monkeypatch

    def run(self, name: str, **options: Any) -> tuple[pl.Trainer, pl.Trainer]:
        """Our Trainer and a plain one, after their fits."""
        made: list[pl.Trainer] = []
        make = fmnist_lit.train.make_trainer
        self.patch.setattr(fmnist_lit.train, "make_trainer", lambda cfg: made.append(make(cfg)) or made[-1])
        # as the fit leaves it, not as the best checkpoint was
        self.patch.setattr(fmnist_lit.train, "select_weights", lambda *_: Selected(None, None, {}))
        self.patch.setattr(fmnist_lit.train.Trainer, "test", lambda *_, **__: None)
        target = {"_target_": f"lightning.pytorch.callbacks.{name}", **options}
        OmegaConf.update(self.cfg, "callbacks.added", target, force_add=True)
        fmnist_lit.train.train(self.cfg)
        assert self.cfg.trainer.steps_per_batch == 1
        pl.seed_everything(0, verbose=False)
        model = instantiate(self.cfg.model)
        plain = pl.Trainer(
            max_epochs=self.cfg.trainer.max_epochs,
            accelerator="cpu",
            callbacks=[getattr(lightning_callbacks, name)(**options)],
            logger=pl.loggers.CSVLogger(self.folder / "plain"),
            enable_checkpointing=name == "ModelCheckpoint",
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
        )
        plain.fit(Plain(model, self.cfg.optimizer.lr, self.cfg.scheduler.step_size), datamodule=Data(self.cfg))
        return made[0], plain


@pytest.fixture
def pair(configure, tmp_path, monkeypatch) -> Callable[..., tuple[pl.Trainer, pl.Trainer]]:
    cfg = configure(*OURS, f"optimizer.lr={LR}", "scheduler=step", "scheduler.step_size=2", "scheduler.gamma=0.1")
    return Pair(cfg, tmp_path, monkeypatch).run


def added(trainer: pl.Trainer, kind: type) -> Any:
    return next(callback for callback in trainer.callbacks if type(callback) is kind)


def weights(trainer: pl.Trainer) -> dict[str, torch.Tensor]:
    return {name: p for name, p in trainer.lightning_module.named_parameters() if name.startswith("model.")}


def assert_same_weights(ours: pl.Trainer, plain: pl.Trainer) -> None:
    a, b = weights(ours), weights(plain)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


NOISY = pytest.mark.filterwarnings("ignore")  # of Lightning, about its own callbacks


@NOISY
def test_learning_rate_finder_chooses_the_same(pair):
    ours, plain = pair("LearningRateFinder", num_training_steps=40)
    kind = lightning_callbacks.LearningRateFinder
    assert added(ours, kind).optimal_lr.suggestion() == added(plain, kind).optimal_lr.suggestion() != LR
    assert added(ours, kind).optimal_lr.results == added(plain, kind).optimal_lr.results
    assert_same_weights(ours, plain)


@NOISY
def test_batch_size_finder_chooses_the_same(pair):
    ours, plain = pair("BatchSizeFinder", max_trials=2, steps_per_trial=1, init_val=4)
    kind = lightning_callbacks.BatchSizeFinder
    assert added(ours, kind).optimal_batch_size == added(plain, kind).optimal_batch_size != BATCH_SIZE
    assert ours.datamodule.batch_size == plain.datamodule.batch_size


@NOISY
def test_gradient_accumulation_scheduler_steps_as_often(pair):
    ours, plain = pair("GradientAccumulationScheduler", scheduling={0: 3, 2: 2})
    assert ours.global_step == plain.global_step == 3 + 3 + 4
    assert_same_weights(ours, plain)


@NOISY
def test_model_checkpoint_saves_at_the_same_steps(pair, tmp_path):
    options = {"every_n_train_steps": 5, "save_top_k": -1, "filename": "{step}"}
    ours, plain = pair("ModelCheckpoint", **options)
    kind = lightning_callbacks.ModelCheckpoint
    folders = [Path(added(trainer, kind).dirpath) for trainer in (ours, plain)]
    names = [sorted(file.name for file in folder.glob("step=*.ckpt")) for folder in folders]
    assert names[0] == names[1] == ["step=10.ckpt", "step=15.ckpt", "step=20.ckpt", "step=5.ckpt"]
    for name in names[0]:
        a, b = (torch.load(folder / name, weights_only=True)["state_dict"] for folder in folders)
        assert all(torch.equal(a[key], b[key]) for key in b)


@NOISY
def test_stochastic_weight_averaging_ends_in_the_same_average(pair):
    ours, plain = pair("StochasticWeightAveraging", swa_lrs=0.05, swa_epoch_start=2, annealing_epochs=1)
    assert_same_weights(ours, plain)


@NOISY
def test_exponential_weight_averaging_ends_in_the_same_average(pair):
    ours, plain = pair("EMAWeightAveraging", decay=0.9)
    assert_same_weights(ours, plain)


@NOISY
def test_learning_rate_monitor_sees_the_same_rates(pair):
    ours, plain = pair("LearningRateMonitor", logging_interval="step")
    kind = lightning_callbacks.LearningRateMonitor
    assert added(ours, kind).lrs == added(plain, kind).lrs
    assert len(next(iter(added(ours, kind).lrs.values()))) == EPOCHS * 8
