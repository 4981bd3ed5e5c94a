"""The parts of a run, built from its configuration: trainer, data, classifier."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import LightningEnvironment
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.checkpoint import CheckpointError, DurableCheckpointIO, load_checkpoint
from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError, check_trust, walk
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.resume import keep_configuration, require_same

# In cfg.trainer, but none of lightning.Trainer's business: inside a chunk it does not see the single steps.
PROCESS_OPTIONS = {"matmul_precision"}
STEP_OPTIONS = {"gradient_clip_val", "accumulate_grad_batches", "max_steps"}
CHUNK_OPTIONS = {"steps_per_batch", "checkpoint_every_n_steps"}
OWN_OPTIONS = PROCESS_OPTIONS | STEP_OPTIONS | CHUNK_OPTIONS
# lightning.Trainer's options that count batches: with them a chunk has to be a single batch.
BATCH_COUNTING = {"fast_dev_run", "limit_train_batches", "overfit_batches", "val_check_interval"}


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
