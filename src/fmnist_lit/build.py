"""The parts of a run, built from its configuration: trainer, data, classifier."""

import inspect
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object, instantiate
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, GradientAccumulationScheduler, ModelSummary, ProgressBar
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.chunked import STEPS_PER_BATCH, ChunkedClassifier, what_needs_single_steps
from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.arguments import OWN_OPTIONS
from fmnist_lit.config.criterion import watched_by_plateau
from fmnist_lit.config.tree import plain, walk
from fmnist_lit.config.trust import MOVED, require_own, require_trusted
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.batches import limited
from fmnist_lit.errors import named_error
from fmnist_lit.processes import ranks
from fmnist_lit.processes.turns import here
from fmnist_lit.run.checkpoint import CheckpointError, DurableCheckpointIO, load_checkpoint
from fmnist_lit.run.initial_weights import load_initial_weights
from fmnist_lit.run.pruning import pruning_of
from fmnist_lit.run.resume import keep_configuration, require_same
from fmnist_lit.run.stopping import StopConditions
from fmnist_lit.stacked import StackedClassifier, share_images

log = logging.getLogger(__name__)

STEP_OPTIONS = (
    "gradient_clip_val",
    "accumulate_grad_batches",
)  # for the Trainer, or for the class that takes the steps

# What overfit_batches is about: the images as they are, in file order
SAME_EACH_EPOCH = {"shuffle": False, "augmentation": None}


def build(node: DictConfig, *left_out: str, **arguments: Any) -> Any:
    """What a node describes, resolved once and then checked: an interpolation may give something else each time."""
    resolved = plain(node, resolve=True)
    for key in left_out:
        resolved.pop(key, None)
    described = OmegaConf.create(resolved)
    for path, value in walk(described):
        require_trusted(path, value)
        if path[-1] == "_target_":
            require_own(value)
        if value in MOVED:
            OmegaConf.update(described, ".".join(path), MOVED[value])
    return instantiate(described, _convert_="all", **arguments)


def build_model(node: DictConfig, num_classes: int) -> torch.nn.Module:
    """The model that a node describes, from images (N, 1, 28, 28) to logits (N, num_classes).

    It is told the number of classes where it takes ``num_classes`` and its keys do not say it.

    Raises:
        ConfigError: if it is something else, or its output has another shape.
    """
    require_trusted(("model", "_target_"), node._target_)
    require_own(node._target_)
    takes = inspect.signature(get_object(node._target_)).parameters
    offered = {"num_classes": num_classes} if "num_classes" in takes and "num_classes" not in node else {}
    model = build(node, **offered)
    if not isinstance(model, torch.nn.Module):
        raise ConfigError(f"model._target_={node._target_}: gives {type(model).__name__}, must give a torch.nn.Module")
    return model


@torch.no_grad()
def require_logits(name: str, model: torch.nn.Module, num_classes: int) -> None:
    """Refuse a model that does not take our images, or whose output is not a logit a class; nothing is drawn.

    Raises:
        ConfigError: naming what came out.
    """
    images = torch.zeros(2, 1, 28, 28)
    try:
        with torch.random.fork_rng(devices=[]):
            logits = model.eval()(images)
    except Exception as error:  # anybody's code may raise anything
        raise ConfigError(f"model._target_={name}: cannot take images (2, 1, 28, 28): {named_error(error)}") from error
    finally:
        model.train()
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape != (2, num_classes):
        raise ConfigError(
            f"model._target_={name}: makes {shape} of images (2, 1, 28, 28); "
            f"must be (2, {num_classes}), a logit a class"
        )


def make_trainer(cfg: DictConfig) -> Trainer:
    """A lightning.Trainer with the loggers and callbacks of the configuration.

    ``cfg.trainer.steps_per_batch`` is filled in where it is ``auto``.
    """
    torch.set_float32_matmul_precision(cfg.trainer.matmul_precision)
    callbacks = [build(callback) for callback in cfg.callbacks.values()]
    choose_steps_per_batch(cfg, callbacks)
    for_others = OWN_OPTIONS if cfg.trainer.steps_per_batch == 1 else (*OWN_OPTIONS, *STEP_OPTIONS)
    options = {
        "enable_model_summary": any(isinstance(callback, ModelSummary) for callback in callbacks),
        "num_sanity_val_steps": 0,
        "log_every_n_steps": 1,
        **{key: value for key, value in plain(cfg.trainer, resolve=True).items() if key not in for_others},
    }
    return Trainer(
        **options,
        logger=[build(logger) for logger in cfg.logger.values()],
        callbacks=[StopConditions(cfg.trainer.max_steps), *callbacks, *pruning_of(cfg)],
        plugins=[DurableCheckpointIO(), cluster_environment()],
        default_root_dir=cfg.run_dir,
        enable_checkpointing=any(isinstance(callback, Checkpoint) for callback in callbacks),
        enable_progress_bar=any(isinstance(callback, ProgressBar) for callback in callbacks),
    )


def cluster_environment() -> ClusterEnvironment:
    """Who started the processes of this run; Lightning would take every job of Slurm for one that it may requeue."""
    place = ranks.outside()
    if place is None:
        return LightningEnvironment()
    return SLURMEnvironment(auto_requeue=False) if place.starter == "srun" else TorchElasticEnvironment()


def choose_steps_per_batch(cfg: DictConfig, callbacks: Sequence[Callback]) -> None:
    """Replace ``auto``: many steps a hook, or one where something acts on single steps; say which and why.

    Raises:
        ConfigError: if many are asked for beside an option that counts batches.
    """
    needs = what_needs_single_steps(cfg.trainer, callbacks)
    if cfg.trainer.steps_per_batch == "auto":
        cfg.trainer.steps_per_batch = 1 if needs else STEPS_PER_BATCH
        if needs:
            log.info("%s acts on single optimiser steps: the textbook class trains (trainer.steps_per_batch=1)", needs)
    elif needs and cfg.trainer.steps_per_batch > 1:
        steps = cfg.trainer.steps_per_batch
        if needs.startswith("trainer."):
            raise ConfigError(f"trainer.steps_per_batch={steps}: {needs} is of single batches; must be 1 or auto")
        log.warning("%s acts on single optimiser steps; trainer.steps_per_batch=%d hides most of them", needs, steps)


def make_datamodule(cfg: DictConfig, trainer: Trainer) -> FashionMNISTDataModule:
    """The data, loaded and on the trainer's device."""
    every_n_steps = cfg.trainer.checkpoint_every_n_steps
    datamodule: FashionMNISTDataModule = build(
        cfg.data,
        seed=cfg.seed,
        steps_per_batch=cfg.trainer.steps_per_batch,
        **(SAME_EACH_EPOCH if trainer.overfit_batches else {}),  # type: ignore[attr-defined]
        break_every=every_n_steps and every_n_steps * cfg.trainer.accumulate_grad_batches,
        evaluate_each_epoch=list(cfg.evaluate_each_epoch),
    )
    datamodule.trainer = trainer
    if cfg.ckpt_path is not None:  # first: the sizes of a resumed run are asked of its own data set
        had = earlier_configuration(cfg.ckpt_path)
        require_same({"dataset": had.get("dataset")}, {"dataset": datamodule.load().name}, cfg.ckpt_path)
    datamodule.setup()
    share_images(datamodule)
    return datamodule


def make_model(cfg: DictConfig, num_classes: int) -> torch.nn.Module:
    """The model with its initial weights, which depend on the seed, and on ``init_from`` where that is given."""
    seed_everything(cfg.seed, verbose=False)  # again, whatever callbacks and data sets have drawn
    model = build_model(cfg.model, num_classes)
    require_logits(cfg.model._target_, model, num_classes)
    if cfg.init_from is not None and cfg.ckpt_path is None:
        load_initial_weights(model, cfg.init_from)
    return model


def count_steps(trainer: Trainer, datamodule: FashionMNISTDataModule, options: DictConfig) -> int:
    """Optimiser steps in the whole run, for a schedule to be laid out for.

    Args:
        trainer: with its limits and callbacks.
        datamodule: of the run.
        options: ``cfg.trainer``, of which the Trainer need not know all.
    """
    batches = limited(datamodule.batches_per_epoch, trainer.limit_train_batches)
    accumulated = dict.fromkeys(range(trainer.max_epochs or 0), options.accumulate_grad_batches)
    for callback in trainer.callbacks:  # type: ignore[attr-defined]  # set by Trainer.__init__
        if isinstance(callback, GradientAccumulationScheduler):
            accumulated = {epoch: callback.get_accumulate_grad_batches(epoch) for epoch in accumulated}
    steps: int = sum(math.ceil(batches / each) for each in accumulated.values())
    limits: list[int] = [limit for limit in (options.max_steps, trainer.max_steps) if limit >= 0]
    return min([steps, *limits])


def make_classifier(cfg: DictConfig, model: torch.nn.Module, datamodule: FashionMNISTDataModule) -> Classifier:
    """The LightningModule, with the whole configuration as its hyper-parameters."""
    is_plateau = "ReduceLROnPlateau" in cfg.scheduler._target_
    monitor, mode = watched_by_plateau(cfg)
    scheduler = build(cfg.scheduler, "interval", "monitor", **({"mode": mode} if is_plateau else {}))
    parts = model, build(cfg.loss), build(cfg.optimizer), scheduler
    options = {
        "scheduler_interval": cfg.scheduler.interval,
        "monitor": monitor,
        "l1": cfg.regularization.l1,
        "decay_biases": cfg.regularization.decay_biases,
        "flip_average": cfg.flip_average,
        "watched": datamodule.watched,
    }
    if cfg.trainer.steps_per_batch == 1:
        if cfg.trainer.cuda_graph:
            log.info("trainer.cuda_graph: eager steps, the textbook class trains (trainer.steps_per_batch=1)")
        if here.get() is not None:
            log.info("not stacked: a job that takes single steps trains by itself, while the others wait")
        classifier = Classifier(*parts, **options)
    else:
        options |= {key: cfg.trainer[key] for key in (*STEP_OPTIONS, "max_steps", "cuda_graph") if key in cfg.trainer}
        kind = ChunkedClassifier if here.get() is None else StackedClassifier
        classifier = kind(*parts, batch_size=cfg.data.batch_size, **options)
    configuration = {**plain(cfg, resolve=True), "dataset": datamodule.dataset, "classes": list(datamodule.classes)}
    configuration["scaling"] = asdict(datamodule.scale)  # so that the checkpoint is of use without the data
    if cfg.ckpt_path is not None:
        require_same(earlier_configuration(cfg.ckpt_path), configuration, cfg.ckpt_path)
        if datamodule.rank == 0:
            keep_configuration(cfg)
    classifier.save_hyperparameters(configuration, logger=False)
    return classifier


def earlier_configuration(ckpt_path: str) -> dict[str, Any]:
    """The configuration in the checkpoint from which a run goes on.

    Raises:
        ConfigError: if that is none of ours.
    """
    try:
        configuration: dict[str, Any] = load_checkpoint(Path(ckpt_path))["hyper_parameters"]
    except CheckpointError as error:
        raise ConfigError(f"ckpt_path={error}") from error
    return configuration
