"""Ends a job of a sweep that does badly beside the others; who wants to see it to its end resumes it."""

import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.pytorch import Callback, LightningModule, Trainer
from omegaconf import DictConfig

from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.run.status import PrunedError
from fmnist_lit.run.study import NAME, make_pruner, open_study, study_errors

if TYPE_CHECKING:
    from optuna.trial import Trial

log = logging.getLogger(__name__)


def pruning_of(cfg: DictConfig) -> list[Callback]:
    """What a job of a sweep that prunes or halves has among its callbacks; any other run nothing, and no optuna."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return []
    hydra = HydraConfig.get()
    if cfg.sweep.until_epoch is not None:
        return [StopToCompare(cfg.sweep.until_epoch)]
    if hydra.sweeper.get("pruner", "none") == "none":
        return []
    return [Pruning(Path(hydra.sweep.dir), int(hydra.job.num), Criterion.of(cfg.select), cfg.trainer.max_epochs)]


class StopToCompare(Callback):
    """Ends a job of a sweep that halves its jobs where it is compared with the others; the best go on from there.

    Args:
        epoch: after which.
    """

    copes_with_chunks = True

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch >= self.epoch:  # the checkpoint of that epoch is written
            raise PrunedError(f"halving, after epoch {trainer.current_epoch} of {trainer.max_epochs}")


class Pruning(Callback):
    """Tells the study the figure of each epoch, and asks whether to go on before the next one begins.

    By then the checkpoint of the epoch is written, and nothing that is pruned loses anything. A study that cannot be
    read or written costs the job no more than that nothing prunes it.

    Args:
        sweep_dir: the sweep's folder.
        number: of the trial.
        criterion: which figure.
        max_epochs: of the job.
    """

    copes_with_chunks = True

    def __init__(self, sweep_dir: Path, number: int, criterion: Criterion, max_epochs: int) -> None:
        self.sweep_dir, self.number = sweep_dir, number
        self.criterion = criterion
        self.max_epochs = max_epochs
        self.trial: Trial | None = None
        self.reported: set[int] = set()  # epochs, of an earlier part of the job too

    def setup(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        if trainer.is_global_zero and stage == "fit":
            with self.at_no_cost():
                self.trial = self.find_trial()

    @contextlib.contextmanager
    def at_no_cost(self) -> Iterator[None]:
        """Say what is wrong with the study, and ask it no more."""
        try:
            with study_errors(self.sweep_dir):
                yield
        except ConfigError as error:
            self.trial = None
            log.warning("WARNING: this job goes on and is not pruned: %s", error)

    def find_trial(self) -> "Trial":
        """The trial of this job."""
        import optuna

        sweeper = HydraConfig.get().sweeper
        pruner = make_pruner(sweeper.pruner, sweeper.pruner_options or {}, self.max_epochs)
        study, storage = open_study(self.sweep_dir, self.criterion.mode, pruner)
        trial_id = storage.get_trial_id_from_study_id_trial_number(storage.get_study_id_from_name(NAME), self.number)
        self.reported = set(storage.get_trial(trial_id).intermediate_values)
        return optuna.trial.Trial(study, trial_id)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        value, badly = self.report(trainer, module), False
        if value is not None and self.trial is not None:
            with self.at_no_cost():
                badly = self.trial.should_prune()
        if trainer.strategy.broadcast(badly):
            value = trainer.strategy.broadcast(value)
            assert value is not None
            raise PrunedError(
                f"{HydraConfig.get().sweeper.pruner}, {self.criterion.words} {self.criterion.shown(value)} "
                f"after epoch {trainer.current_epoch}"
            )

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.report(trainer, module)

    def report(self, trainer: Trainer, module: LightningModule) -> float | None:
        """Tell the study the figure of the epoch that has ended, if it has one, and it was not told before a kill."""
        assert isinstance(module, Classifier)
        value = module.figures.get(self.criterion.metric)  # which are still those of that epoch
        if value is not None and self.trial is not None and trainer.current_epoch not in self.reported:
            with self.at_no_cost():
                self.trial.report(value, trainer.current_epoch)
                self.reported.add(trainer.current_epoch)
        return value
