"""Checkpoints of a run: written durably, loaded without trust, and enough to go on to the same bits."""

import copy
import hashlib
import io
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from torch import Tensor

from fmnist_lit.classifier import Classifier
from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import Criterion, was_not_logged
from fmnist_lit.data import FashionMNISTDataModule
from fmnist_lit.data.batches import TrainBatches
from fmnist_lit.processes.collectives import any_rank_is_to_stop, gather, gather_rows
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.run.answers import pack, write_answers
from fmnist_lit.run.files import link_durably, write_durably
from fmnist_lit.run.stopping import raise_if_diverged

MARKED_AS_FOLDER = 0x10  # in the attributes of a zip entry, under no checksum; torch reads other content then
OUR_KEYS = ("state_dict", "hyper_parameters", "loops")
SUMS = ("sums", "sums_before")  # of a position in an epoch, of each rank
COUNTERS = ("ready", "started", "processed", "completed")  # of Lightning's loops


class CheckpointError(RuntimeError):
    """A file is not a checkpoint that this project can use; the message names it and says why."""


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; nothing in the file is executed.

    Raises:
        CheckpointError: if there is no such file, or it is damaged, or holds more than tensors and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch writes checksums and does not check them
            folders = (entry.filename for entry in archive.infolist() if entry.external_attr & MARKED_AS_FOLDER)
            if (damaged := archive.testzip() or next(folders, None)) is not None:
                raise ValueError(f"{damaged} in it is damaged")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except Exception as error:  # torch raises nearly anything on a damaged file
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not a checkpoint that can be trusted or read ({reason[:200]})") from error
    is_ours = isinstance(content, dict) and all(isinstance(content.get(key), dict) for key in OUR_KEYS)
    if not is_ours:
        raise CheckpointError(f"{path}: not a checkpoint of a run; {', '.join(OUR_KEYS)} are not all in it")
    return content


class DurableCheckpointIO(TorchCheckpointIO):
    """Writes beside, syncs and renames; loads tensors and plain values only."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        serialized = io.BytesIO()  # torch.save into a file would hide why a write fails behind an error of its own
        torch.save(checkpoint, serialized)
        write_durably(Path(path), lambda file: file.write(serialized.getbuffer()))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return load_checkpoint(Path(path))


class RunCheckpoint(Checkpoint):
    """``checkpoints/last.ckpt`` after each epoch, ``checkpoints/best.ckpt`` of the best, which ``metric`` chooses.

    A checkpoint says to the Trainer "at the start of epoch E" and to the data "B batches of it are done": then
    resuming in mid-epoch is resuming between epochs, with less to do. What differs between ranks is saved of each.

    Args:
        run_dir: the run folder.
        every_n_steps: also save after so many optimiser steps of an epoch; None for epochs only.
        metric: a figure of ours by TensorBoard tag, or one that a callback logs.
        mode: ``max`` or ``min``: what of it is the best.
    """

    copes_with_chunks = True

    def __init__(
        self, run_dir: str | Path, every_n_steps: int | None = None, metric: str = "accuracy/val", mode: str = "max"
    ) -> None:
        self.folder = Path(run_dir) / "checkpoints"
        self.every_n_steps = every_n_steps
        self.criterion = Criterion(metric, mode)
        self.best_epoch: int | None = None
        self.best_metrics: dict[str, float] = {}
        self.best_answers: dict[str, Any] | None = None
        self.generators: dict[str, Any] | None = None
        self.plateau_is_due = False
        self.stop_is_due = False
        self.has_final = False
        self.start = time.perf_counter()  # moved back by what earlier parts of a resumed run took

    @property
    def last(self) -> Path:
        return self.folder / "last.ckpt"

    @property
    def best(self) -> Path:
        return self.folder / "best.ckpt"

    @property
    def final(self) -> Path:
        """The weights that training ended with, where they are not those of its last step."""
        return self.folder / "final.ckpt"

    @property
    def seconds(self) -> float:
        """How long the run has taken up to now."""
        return time.perf_counter() - self.start

    def on_save_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(module, Classifier)
        epoch, position = trainer.current_epoch, None
        if module.epoch_is_finished:
            epoch += 1
        elif module.progress.batches:
            position = module.progress.position()
            position |= {key: gather(trainer, position[key]) for key in SUMS}
        checkpoint["loops"]["fit_loop"] = at_start_of_epoch(checkpoint["loops"]["fit_loop"], epoch)
        checkpoint["position"] = position
        checkpoint["metrics"] = dict(module.figures)
        checkpoint["images"] = dict(module.images)
        checkpoint["best"] = {
            "epoch": self.best_epoch,
            "metrics": self.best_metrics,
            "answers": self.best_answers,
        }
        checkpoint["seconds"] = self.seconds
        # Lightning steps a schedule that watches a metric after the epoch's checkpoint
        checkpoint["plateau_is_due"] = module.epoch_is_finished and module.automatic_optimization
        states = generator_states(module.device)
        checkpoint["generators"] = {name: gather(trainer, state) for name, state in states.items()}

    def on_load_checkpoint(self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]) -> None:
        assert isinstance(module, Classifier)
        if not trainer.training or trainer.ckpt_path is None:  # to test, or to undo what one of Lightning's finders did
            return
        # a clock begins anew: a run that a time budget ended goes on with another budget
        checkpoint["callbacks"] = {key: state for key, state in checkpoint["callbacks"].items() if "Timer" not in key}
        position, rank = checkpoint["position"], trainer.global_rank
        num_ranks = len(checkpoint["generators"]["cpu"])
        if num_ranks != trainer.world_size:
            raise ConfigError(
                f"trainer.devices={trainer.num_devices}: the run in {trainer.ckpt_path} had {num_ranks} processes; "
                f"this would have {trainer.world_size}"
            )
        if position is not None:
            module.resumed = position | {key: position[key][rank] for key in SUMS if key in position}
        module.figures = dict(checkpoint["metrics"])
        module.images = dict(checkpoint.get("images", {}))  # older checkpoints did not count them
        batches = trainer.datamodule.train_dataloader()  # type: ignore[attr-defined]  # set by Trainer.fit
        checkpoint["loops"]["fit_loop"] = to_go_on(
            checkpoint["loops"]["fit_loop"], checkpoint["global_step"], position, batches
        )
        self.generators = {name: states[rank] for name, states in checkpoint["generators"].items()}
        self.plateau_is_due = checkpoint.get("plateau_is_due", False)  # older checkpoints had stepped it
        self.start -= checkpoint["seconds"]
        if trainer.is_global_zero:
            self.recover_best(Path(trainer.ckpt_path), checkpoint)
            for logger in trainer.loggers:
                if hasattr(logger, "go_on_from"):  # of ours; what was logged after this checkpoint is void
                    logger.go_on_from(**moment(checkpoint))
        trainer.strategy.barrier()
        epoch = checkpoint["best"]["epoch"]
        # best.ckpt may be missing, or of a later epoch that is now done again
        if epoch is not None and self.best.exists() and load_checkpoint(self.best)["epoch"] + 1 == epoch:
            self.best_epoch, self.best_metrics = epoch, checkpoint["best"]["metrics"]
            self.best_answers = checkpoint["best"].get("answers")  # older checkpoints have none

    def recover_best(self, resumed: Path, checkpoint: dict[str, Any]) -> None:
        """Make ``best.ckpt`` what ``checkpoint`` says it is, where that can be."""
        epoch = checkpoint["best"]["epoch"]
        beside = resumed.with_name(self.best.name)
        if checkpoint["position"] is None and epoch == checkpoint["epoch"] + 1:
            link_durably(resumed, self.best)  # a kill may have come between the two names of the one file
        elif epoch is not None and not self.best.exists() and beside.exists():  # it goes on in another folder
            link_durably(beside, self.best)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if trainer.is_global_zero:
            self.final.unlink(missing_ok=True)  # of an earlier end
        stop_request.install()  # Lightning puts its own before it, which ends a validation without a checkpoint
        if self.plateau_is_due:
            self.plateau_is_due = False
            for schedule in trainer.lr_scheduler_configs:
                if schedule.reduce_on_plateau and schedule.interval == "epoch":
                    if module.monitor not in module.figures:
                        raise ConfigError(was_not_logged(f"scheduler=plateau follows {module.monitor}", module.figures))
                    module.lr_scheduler_step(schedule.scheduler, torch.tensor(module.figures[module.monitor]))
        if self.generators is not None:
            restore_generators(self.generators)
            self.generators = None

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, *args: Any) -> None:
        assert isinstance(module, Classifier)
        if trainer.fit_loop.restarting:  # else Lightning would not step a plateau schedule at the end of this epoch
            trainer.fit_loop.restarting = False
        if trainer.should_stop and not (module.epoch_is_finished or module.progress.between_steps):
            trainer.should_stop, self.stop_is_due = False, True  # a clock does not wait for the gradient under way
        if module.epoch_is_finished or not module.progress.between_steps:
            return
        trainer.should_stop |= self.stop_is_due
        due = self.every_n_steps and module.progress.steps % self.every_n_steps == 0
        if due or trainer.should_stop:
            module.progress.flush()
            raise_if_diverged(trainer, module)
            trainer.save_checkpoint(self.last)
        if trainer.should_stop or trainer.world_size == 1:  # several ranks stop where they have all agreed to
            stop_request.raise_if_received()

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        assert isinstance(module, Classifier)
        if not module.epoch_is_finished:  # stopped in the middle of it; the checkpoint to resume from is written
            return
        metric = self.criterion.metric
        for name in (metric, module.monitor):
            take_figure(trainer, module, name)
        improved = self.criterion.improves(module.figures.get(metric), self.best_metrics.get(metric))
        if improved:
            self.best_epoch, self.best_metrics = trainer.current_epoch + 1, dict(module.figures)
            self.best_answers = validation_answers(trainer, module)
        trainer.save_checkpoint(self.last)
        if improved and trainer.is_global_zero:
            link_durably(self.last, self.best)
        if any_rank_is_to_stop(trainer):
            stop_request.raise_if_received()
        if metric not in module.figures and is_evaluated(module) and not self.criterion.is_default:
            logged = {*module.figures, *trainer.callback_metrics}
            raise ConfigError(was_not_logged(f"select.metric={metric}", logged))

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Keep weights that a callback has put into the model since the last checkpoint, such as an average."""
        self.stop_is_due = False
        if self.last.exists() and not same_weights(module.state_dict(), load_checkpoint(self.last)["state_dict"]):
            trainer.save_checkpoint(self.final)
            self.has_final = True

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        if self.best_epoch is not None and self.best_answers is not None and trainer.is_global_zero:
            write_answers(self.folder.parent, self.best_epoch, self.best_answers)


def moment(checkpoint: Mapping[str, Any]) -> dict[str, int]:
    """When a checkpoint was saved: finished epochs, optimiser steps, and the Trainer's batches that took one."""
    fit_loop = checkpoint["loops"]["fit_loop"]
    return {
        "epoch": fit_loop["epoch_progress"]["current"]["completed"],
        "step": checkpoint["global_step"],
        "batch": fit_loop["epoch_loop.state_dict"]["_batches_that_stepped"],
    }


def is_evaluated(module: Classifier) -> bool:
    """Whether what an epoch evaluates was evaluated at its end, and not in its middle only or in an earlier one."""
    return not module.watched or module.evaluated_step == module.global_step


def take_figure(trainer: Trainer, module: Classifier, metric: str) -> None:
    """Add what a callback has logged in an epoch to the epoch's figures; all ranks take the value of the first."""
    if metric not in module.figures and is_evaluated(module):
        logged = trainer.callback_metrics.get(metric)
        value = trainer.strategy.broadcast(None if logged is None else float(logged))
        if value is not None:
            module.figures[metric] = value


def same_weights(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    """Whether two state dictionaries hold the same bits."""
    return a.keys() == b.keys() and all(torch.equal(a[name].cpu(), b[name].cpu()) for name in a)


def weights_digest(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of the names, types, shapes and bits of weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state_dict.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def validation_answers(trainer: Trainer, module: Classifier) -> dict[str, Any] | None:
    """Which validation images were right in the epoch that ends, packed; None where not all were evaluated."""
    if "accuracy/val" not in module.figures:
        return None
    correct = gather_rows(trainer, torch.cat(module.evaluated["val"].correct).byte()).tolist()
    data: FashionMNISTDataModule = trainer.datamodule  # type: ignore[attr-defined]  # set by Trainer.fit
    return pack(data.val_fingerprint, correct) if len(correct) == len(data.val_images) else None


def at_start_of_epoch(fit_loop: dict[str, Any], epoch: int) -> dict[str, Any]:
    """The state of Lightning's fit loop with its counters moved to the start of ``epoch`` (from 0)."""
    return {
        **fit_loop,
        "epoch_progress": {which: dict.fromkeys(COUNTERS, epoch) for which in ("total", "current")},
        "epoch_loop.batch_progress": {
            "total": dict.fromkeys(COUNTERS, fit_loop["epoch_loop.batch_progress"]["total"]["processed"]),
            "current": dict.fromkeys(COUNTERS, 0),
            "is_last_batch": False,
        },
    }


def to_go_on(
    fit_loop: dict[str, Any], global_step: int, position: Mapping[str, Any] | None, loader: TrainBatches
) -> dict[str, Any]:
    """The state of Lightning's fit loop for going on in an epoch, with whichever class and chunk this run has.

    Args:
        fit_loop: as ``at_start_of_epoch`` made it, with automatic or with manual optimisation.
        global_step: optimiser steps of the run so far.
        position: where in the epoch, as the checkpoint has it; None for its start.
        loader: of this run; the Trainer counts its chunks.
    """
    steps = {"ready": global_step, "completed": global_step}
    fit_loop = copy.deepcopy(fit_loop)
    fit_loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]["step"]["total"] = dict(steps)
    fit_loop["epoch_loop.manual_optimization.optim_step_progress"]["total"] = dict(steps)
    if position is not None:
        for progress in fit_loop["epoch_progress"].values():
            progress["ready"] += 1  # what tells Lightning that the epoch is not finished
        fit_loop["state_dict"]["combined_loader"] = [{"batches": position["batches"]}]
        done = loader.chunks_before(position["batches"])
        fit_loop["epoch_loop.batch_progress"]["current"] = dict.fromkeys(COUNTERS, done)
    return fit_loop


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's global generators, which dropout draws from."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def restore_generators(states: dict[str, Tensor]) -> None:
    """Undo what has been drawn since ``generator_states``."""
    torch.set_rng_state(states["cpu"].clone())  # torch 2.15 crashes on a tensor that is a part of another
    if "cuda" in states and torch.cuda.is_available():
        torch.cuda.set_rng_state(states["cuda"].clone())
