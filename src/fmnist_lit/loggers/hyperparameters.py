"""What a run varied, for TensorBoard's HParams tab and other loggers."""

from collections.abc import Iterable, Mapping
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.config.overrides import LIST_GROUPS, key_of
from fmnist_lit.loggers.tensorboard import TensorBoardLogger
from fmnist_lit.loggers.tracker import Tracker


def log_configuration(configuration: Mapping[str, Any], loggers: Iterable[Logger]) -> None:
    """Let trackers have the whole configuration, before training, so that those that fail can be told apart, too."""
    for logger in loggers:
        if isinstance(logger, Tracker):
            logger.log_hyperparams(configuration)


def log_hyperparameters(
    cfg: DictConfig, loggers: Iterable[Logger], metrics: Mapping[str, float], partial: str | None = None
) -> None:
    """One row in TensorBoard's HParams tab: the choices and numbers people vary, beside the accuracies."""
    choices: dict[str, Any] = {}
    varied: list[str] = []
    if HydraConfig.initialized():
        given = {key_of(line): line.partition("=")[2] for line in HydraConfig.get().overrides.task}
        choices = {group: given[group] for group in LIST_GROUPS if group in given}  # Hydra does not remember lists
        choices.update(HydraConfig.get().runtime.choices)
        varied = varied_in_job(HydraConfig.get())
    row: dict[str, Any] = {
        group: choices[group] for group in ("model", "loss", "optimizer", "scheduler") if group in choices
    }
    for group in ("optimizer", "scheduler", "model"):
        row |= {f"{group}.{key}": value for key, value in cfg[group].items() if not key.startswith("_")}
    for key in ("data.batch_size", "data.normalize", "regularization.l1", "trainer.max_epochs", "seed", *varied):
        row[key] = choices[key] if key in choices else OmegaConf.select(cfg, key)
    row |= {"tags": ", ".join(cfg.tags), "note": cfg.note, "partial": partial}
    row = {key: value for key, value in row.items() if value or key not in ("tags", "note", "partial")}
    plain = {key: value if isinstance(value, bool | int | float | str) else str(value) for key, value in row.items()}
    accuracies = {tag: metrics[tag] for tag in ("accuracy/val", "accuracy/test", cfg.select.metric) if tag in metrics}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(plain, accuracies, varied=varied)
        else:
            logger.log_hyperparams(plain)
        logger.save()


def varied_in_job(hydra: HydraConf) -> list[str]:
    """The keys that vary in the sweep that a job is of, from the job's ``hydra`` node; none outside a sweep."""
    if hydra.mode != RunMode.MULTIRUN:
        return []
    fixed = hydra.job.config.override_dirname.exclude_keys
    return [name for name in map(key_of, hydra.overrides.task) if name not in fixed]
