"""The range test itself: a run of a few dozen steps, each at a higher learning rate than the one before."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch.tuner.tuning import Tuner
from omegaconf import DictConfig, OmegaConf
from torch.optim import Optimizer

from fmnist_lit.build import make_classifier, make_datamodule, make_model, make_trainer
from fmnist_lit.command_line.compose import CONF
from fmnist_lit.config import ConfigError
from fmnist_lit.config.tree import plain
from fmnist_lit.find_lr.curve import FEWEST, SKIP_BEGIN, Curve, Range
from fmnist_lit.processes.setup import quieten_lightning, set_num_threads
from fmnist_lit.processes.signals import stop_request
from fmnist_lit.run.status import DivergedError

# Of the Trainer's options, those that steps depend on; the others are about a whole run
KEPT = (
    *("accelerator", "devices", "strategy", "precision", "matmul_precision", "deterministic", "benchmark"),
    *("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches"),
    *("limit_train_batches", "overfit_batches", "detect_anomaly"),
)
ENDLESS = {
    "max_epochs": -1,
    "max_steps": -1,
    "steps_per_batch": 1,
    "cuda_graph": False,
    "checkpoint_every_n_steps": None,
}


@dataclass(frozen=True)
class RangeTest:
    """What was measured.

    Attributes:
        curve: the losses.
        lightning: the suggestion of Lightning's finder; None if it has too few points for one.
        dataset: on which.
    """

    curve: Curve
    lightning: float | None
    dataset: str


def run_range_test(cfg: DictConfig, wanted: Range, scratch: Path) -> RangeTest:
    """Train from the start as the run of ``cfg`` would, but for its schedule, callbacks and loggers.

    Args:
        cfg: a run's configuration; it is left as it is.
        wanted: the learning rates.
        scratch: a folder for the weights of the start, which Lightning puts back in the end.

    Raises:
        DivergedError: if the loss of the first step is not a finite number.
        InterruptedRunError: if a signal asks to stop.
    """
    cfg = as_range_test(cfg, scratch)
    quieten_lightning()
    set_num_threads(cfg)
    trainer = make_trainer(cfg)
    datamodule = make_datamodule(cfg, trainer)
    classifier = make_classifier(cfg, make_model(cfg, len(datamodule.classes)), datamodule)
    assert classifier.make_optimizer is not None
    classifier.make_optimizer = partial(in_proportion, classifier.make_optimizer)
    with stop_request.deferring(), bar_in_a_terminal_only():
        finder = Tuner(trainer).lr_find(
            classifier,
            datamodule=datamodule,
            min_lr=wanted.lowest,
            max_lr=wanted.highest,
            num_training=wanted.steps,
            update_attr=False,
        )
    stop_request.raise_if_received()
    assert finder is not None  # only fast_dev_run skips it
    curve = Curve.of(finder.results["lr"], finder.results["loss"])
    if not curve.rates:
        raise DivergedError(1)
    enough = len(curve.rates) >= SKIP_BEGIN + FEWEST
    return RangeTest(curve, finder.suggestion() if enough else None, datamodule.dataset)


def bar_in_a_terminal_only() -> contextlib.AbstractContextManager[Any]:
    """Lightning's finder draws a progress bar wherever standard error goes."""
    return contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())


def as_range_test(cfg: DictConfig, scratch: Path) -> DictConfig:
    """The configuration without what is for a whole run."""
    kept = {key: value for key, value in plain(cfg.trainer, resolve=True).items() if key in KEPT}
    changed: dict[str, Any] = {
        "trainer": {**kept, **ENDLESS},
        "scheduler": OmegaConf.load(CONF / "scheduler" / "constant.yaml"),
        "callbacks": {},
        "logger": {},
        "evaluate_each_epoch": [],
        "run_dir": str(scratch),
        "ckpt_path": None,
    }
    node = {key: value for key, value in plain(cfg, resolve=False).items() if key not in changed and key != "hydra"}
    return OmegaConf.create({**node, **changed})


def in_proportion(make: Callable[..., Optimizer], parameters: list[Any], lr: float) -> Optimizer:
    """An optimiser whose groups keep the proportions of their learning rates, as Muon and its AdamW have two.

    Lightning's finder sets all groups alike. Were the other rates to stay, the loss would fall through them whatever
    the one under test. It is also here that a signal is heeded, between two steps.

    Args:
        make: makes an optimiser from parameters and ``lr``.
        parameters: parameters with their names, or groups of them.
        lr: which the finder then varies.

    Raises:
        ConfigError: if no group has it.
    """
    optimizer = make(parameters, lr=lr)
    proportions = [group["lr"] / lr for group in optimizer.param_groups]
    if 1.0 not in proportions:
        raise ConfigError(f"optimizer.lr={lr:g}: no parameter of {type(optimizer).__name__} has it")
    main = proportions.index(1.0)

    def scale(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        stop_request.raise_if_received()
        rate = optimizer.param_groups[main]["lr"]
        for group, proportion in zip(optimizer.param_groups, proportions, strict=True):
            group["lr"] = proportion * rate

    optimizer.register_step_pre_hook(scale)
    return optimizer
