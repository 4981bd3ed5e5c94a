"""One run, read aloud: seed, data, model, classifier, trainer, fit, test, results."""

import logging
import math
import os
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.checkpoint import CheckpointError, DurableCheckpointIO, RunCheckpoint, load_checkpoint
from fmnist_lit.classifier import Classifier
from fmnist_lit.collectives import any_rank_is_to_stop
from fmnist_lit.config import DATASETS, ConfigError, check_trust, walk
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.loggers import TensorBoardLogger
from fmnist_lit.provenance import provenance
from fmnist_lit.ranks import num_processes
from fmnist_lit.resume import keep_configuration, require_same
from fmnist_lit.signals import stop_request
from fmnist_lit.sweep import plan

log = logging.getLogger(__name__)

DEFAULT_THREADS = torch.get_num_threads()  # a sweep's jobs may follow one another in this process

# In cfg.trainer, but none of lightning.Trainer's business: inside a chunk it does not see the single steps.
PROCESS_OPTIONS = {"matmul_precision"}
STEP_OPTIONS = {"gradient_clip_val", "accumulate_grad_batches", "max_steps"}
CHUNK_OPTIONS = {"steps_per_batch", "checkpoint_every_n_steps"}
OWN_OPTIONS = PROCESS_OPTIONS | STEP_OPTIONS | CHUNK_OPTIONS
# lightning.Trainer's options that count batches: with them a chunk has to be a single batch.
BATCH_COUNTING = {"fast_dev_run", "limit_train_batches", "overfit_batches", "val_check_interval"}


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
        tested = {tag: value for tag, value in classifier.metrics.items() if "/test" in tag}
        metrics |= tested
        for logger in trainer.loggers:
            logger.log_metrics(tested, step=trainer.current_epoch)
    log_hyperparameters(cfg, trainer, metrics)
    return {
        "dataset": datamodule.dataset,
        **{
            f"{split}_{kind}": metrics.get(f"{kind}/{split}")
            for split in ("test", "val", "train")
            for kind in ("accuracy", "loss")
        },
        **{
            f"{split}_{kind}_flip_average": metrics[f"{kind}/{split}_flip_average"]
            for split in ("test", "val")
            for kind in ("accuracy", "loss")
            if f"{kind}/{split}_flip_average" in metrics
        },
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


def set_num_threads(cfg: DictConfig) -> None:
    """As many threads as asked for, else torch's own choice, which processes of one run on one machine share."""
    processes = num_processes(cfg)
    share = DEFAULT_THREADS if "OMP_NUM_THREADS" in os.environ else max(1, DEFAULT_THREADS // processes)
    torch.set_num_threads(cfg.num_threads or share)
    if processes > 1:
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # or Lightning would set it to its own choice


def seed_rank(seed: int, rank: int) -> None:
    """Let the ranks drop out different units, each reproducibly; rank 0 goes on from where it is."""
    os.environ.pop("PL_GLOBAL_SEED", None)  # from it Lightning would seed all ranks alike when they meet
    if rank:
        torch.manual_seed(int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0] >> np.uint64(1)))


def quieten_lightning() -> None:
    """Keep Lightning's advertisements and progress notes off the screen; its warnings stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", module="lightning.pytorch.utilities._pytree")
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # a login node of Slurm
    warnings.filterwarnings("ignore", message="Total length of `list`")  # no validation was asked for
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist")  # they are of all ranks


def build(node: DictConfig, *left_out: str, **arguments: Any) -> Any:
    """What a node describes, resolved once and then checked: an interpolation may give something else each time."""
    plain = OmegaConf.create(OmegaConf.to_container(node, resolve=True))
    for key in left_out:
        del plain[key]
    for path, value in walk(plain):
        check_trust(path, value)
    return instantiate(plain, _convert_="all", **arguments)


def make_trainer(cfg: DictConfig) -> Trainer:
    """A lightning.Trainer with the loggers and callbacks of the configuration."""
    torch.set_float32_matmul_precision(cfg.trainer.matmul_precision)
    options = {key: value for key, value in cfg.trainer.items() if key not in OWN_OPTIONS}
    return Trainer(
        **options,
        logger=[build(logger) for logger in cfg.logger.values()],
        callbacks=[build(callback) for callback in cfg.callbacks.values()],
        plugins=[DurableCheckpointIO(), *([LightningEnvironment()] if torch.distributed.is_initialized() else [])],
        default_root_dir=cfg.run_dir,
        enable_checkpointing=any("Checkpoint" in callback._target_ for callback in cfg.callbacks.values()),
        enable_model_summary=False,
        enable_progress_bar="progress_bar" in cfg.callbacks,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
    )


def make_datamodule(cfg: DictConfig, trainer: Trainer) -> FashionMNISTDataModule:
    """The data, loaded and on the trainer's device."""
    every_n_steps = cfg.trainer.checkpoint_every_n_steps
    datamodule = build(
        cfg.data,
        seed=cfg.seed,
        steps_per_batch=1 if BATCH_COUNTING & cfg.trainer.keys() else cfg.trainer.steps_per_batch,
        break_every=every_n_steps and every_n_steps * cfg.trainer.accumulate_grad_batches,
        evaluate_each_epoch=list(cfg.evaluate_each_epoch),
    )
    datamodule.trainer = trainer
    datamodule.setup()
    return datamodule


def count_steps(cfg: DictConfig, datamodule: FashionMNISTDataModule) -> int:
    """Optimiser steps in the whole run."""
    per_epoch = math.ceil(datamodule.batches_per_epoch / cfg.trainer.accumulate_grad_batches)
    steps = per_epoch * cfg.trainer.max_epochs
    return steps if cfg.trainer.max_steps < 0 else min(steps, cfg.trainer.max_steps)


def make_classifier(cfg: DictConfig, model: torch.nn.Module, datamodule: FashionMNISTDataModule) -> Classifier:
    """The LightningModule, with the whole configuration as its hyper-parameters."""
    classifier = Classifier(
        model,
        build(cfg.loss),
        build(cfg.optimizer),
        build(cfg.scheduler, "interval"),
        scheduler_interval=cfg.scheduler.interval,
        batch_size=cfg.data.batch_size,
        l1=cfg.regularization.l1,
        decay_biases=cfg.regularization.decay_biases,
        flip_average=cfg.flip_average,
        watched=datamodule.watched,
        **{key: cfg.trainer[key] for key in STEP_OPTIONS},
    )
    configuration = {**OmegaConf.to_container(cfg, resolve=True), "dataset": datamodule.dataset}
    configuration["scaling"] = asdict(datamodule.scale)  # so that the checkpoint is of use without the data
    if cfg.ckpt_path is not None:
        try:
            earlier = load_checkpoint(Path(cfg.ckpt_path))["hyper_parameters"]
        except CheckpointError as error:
            raise ConfigError(f"ckpt_path={error}") from error
        require_same(earlier, configuration, cfg.ckpt_path)
        if datamodule.rank == 0:
            keep_configuration(cfg)
    classifier.save_hyperparameters(configuration, logger=False)
    return classifier


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
            "WARNING: Fashion-MNIST is not in %s and cannot be downloaded. This run trains on a SYNTHETIC stand-in;\n"
            "WARNING: its figures say nothing about Fashion-MNIST. data=fashion_mnist tells how to get the real data.",
            datamodule.data_dir,
        )


def select_best(trainer: Trainer, classifier: Classifier) -> tuple[int | None, str | None, dict[str, float]]:
    """Put the weights of the best epoch into ``classifier``, or leave the last where nothing is selected.

    Returns:
        The best epoch (from 1), the checkpoint's path within the run folder, and the metrics at that moment by tag.
    """
    checkpoint = trainer.checkpoint_callback
    if not isinstance(checkpoint, RunCheckpoint):
        return None, None, dict(classifier.metrics)
    if checkpoint.best_epoch is None:
        return None, f"checkpoints/{checkpoint.last.name}", dict(classifier.metrics)
    trainer.strategy.barrier()  # rank 0 may still be at it
    if checkpoint.best_epoch != trainer.current_epoch:
        classifier.load_state_dict(load_checkpoint(checkpoint.best)["state_dict"])
    return checkpoint.best_epoch, f"checkpoints/{checkpoint.best.name}", dict(checkpoint.best_metrics)


def log_hyperparameters(cfg: DictConfig, trainer: Trainer, metrics: Mapping[str, float]) -> None:
    """One row in TensorBoard's HParams tab: the choices and numbers people vary, beside the accuracies."""
    choices, varied = {}, []
    if HydraConfig.initialized():
        choices = HydraConfig.get().runtime.choices
        varied = plan.varied_in_job(HydraConfig.get())
    row = {group: choices[group] for group in ("model", "loss", "optimizer", "scheduler") if group in choices}
    for group in ("optimizer", "scheduler", "model"):
        row |= {f"{group}.{key}": value for key, value in cfg[group].items() if not key.startswith("_")}
    for key in ("data.batch_size", "data.normalize", "regularization.l1", "trainer.max_epochs", "seed", *varied):
        row[key] = choices[key] if key in choices else OmegaConf.select(cfg, key)
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in row.items()}
    accuracies = {tag: metrics[tag] for tag in ("accuracy/val", "accuracy/test") if tag in metrics}
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(plain, accuracies, varied=varied)
        else:
            logger.log_hyperparams(plain)
