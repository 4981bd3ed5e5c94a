"""One run, read aloud: seed, model, trainer, data, classifier, fit, test, results."""

import logging
import time
from typing import Any

import torch
from lightning.pytorch import Trainer, seed_everything
from omegaconf import DictConfig

from fmnist_lit.build import count_steps, make_classifier, make_datamodule, make_model, make_trainer
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.config.rules import title_of
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.images import why_missing
from fmnist_lit.loggers.console import ConsoleLogger
from fmnist_lit.loggers.hyperparameters import log_configuration, log_hyperparameters
from fmnist_lit.processes.collectives import any_rank_is_to_stop
from fmnist_lit.processes.setup import quieten_lightning, seed_rank, set_num_threads
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.run.checkpoint import weights_digest
from fmnist_lit.run.partial import Coverage, counted_partial, coverage
from fmnist_lit.run.provenance import provenance
from fmnist_lit.run.results import figures_by_name, selected_by
from fmnist_lit.run.selection import select_weights
from fmnist_lit.run.stopping import stopped_by

log = logging.getLogger(__name__)


def train(cfg: DictConfig) -> dict[str, Any]:
    """Train, evaluate each epoch, test the best checkpoint once.

    Returns:
        The figures for ``results.json``. ``cfg.total_steps`` and ``cfg.trainer.steps_per_batch`` are filled in.

    Raises:
        run.status.DivergedError: if a loss is not finite.
    """
    start = time.perf_counter()
    quieten_lightning()
    set_num_threads(cfg)
    seed_everything(cfg.seed, verbose=False)
    trainer = make_trainer(cfg)
    datamodule = make_datamodule(cfg, trainer)
    model = make_model(cfg, len(datamodule.classes))
    seed_rank(cfg.seed, trainer.global_rank)
    covered = coverage(trainer, datamodule, cfg.trainer, cfg.get("debug"))
    announce(datamodule, covered, trainer)
    cfg.total_steps = count_steps(trainer, datamodule, cfg.trainer)
    classifier = make_classifier(cfg, model, datamodule)
    log_configuration(classifier.hparams, trainer.loggers)
    # before its weights are restored: 64-true would lose half of each
    trainer.precision_plugin.convert_module(classifier)

    fit_start = time.process_time()
    with stop_request.deferring():
        trainer.fit(classifier, datamodule, ckpt_path=cfg.ckpt_path)
    fit_cpu_seconds = time.process_time() - fit_start
    if any_rank_is_to_stop(trainer):
        stop_request.raise_if_received()
    ended = {"stopped_by": stopped_by(trainer, cfg.trainer.max_steps), "epochs": trainer.current_epoch}
    criterion = Criterion.of(cfg.get("select"))
    selected = select_weights(trainer, classifier, datamodule, criterion)
    tested = weights_digest(classifier.state_dict())
    metrics = selected.figures
    if "test" not in datamodule.watched:
        trainer.test(classifier, datamodule, verbose=False)
        of_test = {tag: value for tag, value in classifier.figures.items() if "/test" in tag}
        metrics |= of_test
        for logger in trainer.loggers:
            logger.log_metrics(of_test, step=trainer.current_epoch)
    partial = counted_partial(covered, classifier.images)
    log_hyperparameters(cfg, trainer.loggers, metrics, partial)
    return {
        "dataset": datamodule.dataset,
        **figures_by_name(metrics),
        "select": selected_by(criterion, metrics),
        "partial": partial,
        **{f"{split}_images": classifier.images.get(split) for split in ("train", "val", "test")},
        "best_epoch": selected.epoch,
        **ended,
        "steps": trainer.global_step,
        "seed": cfg.seed,
        "batch_size": datamodule.batch_size,
        "seconds": round(time.perf_counter() - start, 3),
        "fit_cpu_seconds": round(fit_cpu_seconds, 3),  # of all threads; of a resumed run, since it went on
        "init_from": cfg.init_from,
        "checkpoint": selected.name,
        "weights_sha256": tested,
        "num_parameters": sum(p.numel() for p in model.parameters()),
        "device": str(trainer.strategy.root_device),
        "num_threads": torch.get_num_threads(),
        "num_processes": trainer.world_size,
        "provenance": provenance(),
    }


def announce(datamodule: FashionMNISTDataModule, covered: Coverage, trainer: Trainer) -> None:
    """Say which data this run is about; nobody should take the stand-in or a part for the real thing."""
    log.info("%s: %s", title_of(datamodule.dataset), covered)
    if datamodule.source == "auto" and datamodule.dataset == "synthetic":
        log.warning(
            "WARNING: Fashion-MNIST is not in %s and %s.\n"
            "WARNING: This run trains on a SYNTHETIC stand-in; its figures say nothing about Fashion-MNIST.\n"
            "WARNING: data=fashion_mnist tells how to get the real data.",
            datamodule.data_dir,
            why_missing.get(datamodule.data_dir, "cannot be downloaded"),
        )
    for logger in trainer.loggers:
        if covered.partial and isinstance(logger, ConsoleLogger):
            logger.remark = "PARTIAL"
