"""One run, read aloud: seed, model, trainer, data, classifier, fit, test, results."""

import logging
import time
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from fmnist_lit.build import build, count_steps, make_classifier, make_datamodule, make_trainer
from fmnist_lit.classifier import Classifier
from fmnist_lit.config.rules import DATASETS
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import why_missing
from fmnist_lit.loggers.hyperparameters import log_hyperparameters
from fmnist_lit.processes.collectives import any_rank_is_to_stop
from fmnist_lit.processes.setup import quieten_lightning, seed_rank, set_num_threads
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.run.checkpoint import RunCheckpoint, load_checkpoint
from fmnist_lit.run.provenance import provenance

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, evaluate each epoch, test the best checkpoint once.

    Returns:
        The figures for ``results.json``. ``cfg.total_steps`` is filled in.

    Raises:
        classifier.DivergedError: if a loss is not finite.
    """
    start = time.perf_counter()
    quieten_lightning()
    set_num_threads(cfg)
    seed_everything(cfg.seed, verbose=False)
    model = build(cfg.model)  # the first thing to draw from the seed
    trainer = make_trainer(cfg)
    seed_rank(cfg.seed, trainer.global_rank)
    datamodule = make_datamodule(cfg, trainer)
    announce(datamodule)
    cfg.total_steps = count_steps(cfg, datamodule)
    classifier = make_classifier(cfg, model, datamodule)
    # before its weights are restored: 64-true would lose half of each
    trainer.precision_plugin.convert_module(classifier)

    fit_start = time.process_time()
    with stop_request.deferring():
        trainer.fit(classifier, datamodule, ckpt_path=cfg.ckpt_path)
    fit_cpu_seconds = time.process_time() - fit_start
    if any_rank_is_to_stop(trainer):
        stop_request.raise_if_received()
    best_epoch, checkpoint, metrics = select_best(trainer, classifier)
    if "test" not in datamodule.watched:
        trainer.test(classifier, datamodule, verbose=False)
        tested = {tag: value for tag, value in classifier.figures.items() if "/test" in tag}
        metrics |= tested
        for logger in trainer.loggers:
            logger.log_metrics(tested, step=trainer.current_epoch)
    log_hyperparameters(cfg, trainer.loggers, metrics)
    return {
        "dataset": datamodule.dataset,
        **figures(metrics),
        "best_epoch": best_epoch,
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seed": cfg.seed,
        "seconds": round(time.perf_counter() - start, 3),
        "fit_cpu_seconds": round(fit_cpu_seconds, 3),  # of all threads; of a resumed run, since it went on
        "checkpoint": checkpoint,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "device": str(trainer.strategy.root_device),
        "num_threads": torch.get_num_threads(),
        "provenance": provenance(),
    }


def figures(metrics: Mapping[str, float]) -> dict[str, float | None]:
    """Metrics by TensorBoard tag as ``results.json`` names them; null where nothing was evaluated."""
    kinds = ("accuracy", "loss")
    named = {f"{split}_{kind}": metrics.get(f"{kind}/{split}") for split in ("test", "val", "train") for kind in kinds}
    for split in ("test", "val"):
        for kind in kinds:
            if (tag := f"{kind}/{split}_flip_average") in metrics:
                named[f"{split}_{kind}_flip_average"] = metrics[tag]
    return named


def announce(datamodule: FashionMNISTDataModule) -> None:
    """Say which data this run is about; nobody should take the stand-in for the real thing."""
    log.info(
        "%s: %d training, %d validation, %d test images",
        DATASETS[datamodule.dataset],
        len(datamodule.train_images),
        len(datamodule.val_images),
        len(datamodule.test_images),
    )
    if datamodule.source == "auto" and datamodule.dataset == "synthetic":
        log.warning(
            "WARNING: Fashion-MNIST is not in %s and %s.\n"
            "WARNING: This run trains on a SYNTHETIC stand-in; its figures say nothing about Fashion-MNIST.\n"
            "WARNING: data=fashion_mnist tells how to get the real data.",
            datamodule.data_dir,
            why_missing.get(datamodule.data_dir, "cannot be downloaded"),
        )


def select_best(trainer: Trainer, classifier: Classifier) -> tuple[int | None, str | None, dict[str, float]]:
    """Put the weights of the best epoch into ``classifier``, or leave the last where nothing is selected.

    Returns:
        The best epoch (from 1), the checkpoint's path within the run folder, and the metrics at that moment by tag.
    """
    checkpoint = next((c for c in trainer.checkpoint_callbacks if isinstance(c, RunCheckpoint)), None)
    if checkpoint is None:
        return None, None, dict(classifier.figures)
    if checkpoint.best_epoch is None:
        return None, f"checkpoints/{checkpoint.last.name}", dict(classifier.figures)
    trainer.strategy.barrier()  # rank 0 may still be at it
    if checkpoint.best_epoch != trainer.current_epoch:
        classifier.load_state_dict(load_checkpoint(checkpoint.best)["state_dict"])
    return checkpoint.best_epoch, f"checkpoints/{checkpoint.best.name}", dict(checkpoint.best_metrics)
