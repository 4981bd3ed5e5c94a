"""Fashion-MNIST with Lightning and Hydra: the PyTorch optimisation tutorial as real software.

In Python and in notebooks: ``train``, ``sweep``, ``load_run``, ``load_sweep`` and ``load_classifier``.
"""

import importlib
import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from fmnist_lit.api.run import Run, RunFailedError
    from fmnist_lit.api.sweep import Sweep
    from fmnist_lit.config import ConfigError
    from fmnist_lit.run.checkpoint import CheckpointError
    from fmnist_lit.run.find import NoSuchRunError
    from fmnist_lit.trained.classifier import TrainedClassifier

__all__ = [
    "CheckpointError",
    "ConfigError",
    "NoSuchRunError",
    "Run",
    "RunFailedError",
    "Sweep",
    "__version__",
    "load_classifier",
    "load_run",
    "load_sweep",
    "sweep",
    "train",
]
__version__ = "0.2.0"

# Imported when first asked for, because importing torch takes seconds
CLASSES = {
    "CheckpointError": "fmnist_lit.run.checkpoint",
    "ConfigError": "fmnist_lit.config",
    "NoSuchRunError": "fmnist_lit.run.find",
    "Run": "fmnist_lit.api.run",
    "RunFailedError": "fmnist_lit.api.run",
    "Sweep": "fmnist_lit.api.sweep",
}


def train(*overrides: str, trust: "Iterable[str]" = (), ckpt_path: "str | Path | None" = None) -> "Run":
    """Train a run and wait for its end, as ``python -m fmnist_lit`` does: the same checks, folder, files and bits.

    Args:
        *overrides: as on the command line, such as ``optimizer=adam`` and ``trainer.max_epochs=3``.
        trust: packages of which configurations may name classes, for parts of your own.
        ckpt_path: a run folder or a checkpoint to go on from.

    Returns:
        The run. One whose loss is no longer finite is returned too, with the status ``diverged``.

    Raises:
        fmnist_lit.ConfigError: if anything is not allowed, with the command line's sentence; nothing has been written.
        fmnist_lit.RunFailedError: if the run failed; its ``run`` is what it left, its cause is the error.
        KeyboardInterrupt: if Ctrl-C or a notebook's stop button interrupted it, at an optimiser step, with a
            checkpoint; the message says how to go on.
    """
    from fmnist_lit.api.run import started
    from fmnist_lit.api.starting import words_of
    from fmnist_lit.config.overrides import quoted

    resumed = [] if ckpt_path is None else [f"ckpt_path={quoted(ckpt_path)}"]
    return started([*words_of(overrides, trust), *resumed])


def sweep(*overrides: str, trust: "Iterable[str]" = ()) -> "Sweep":
    """Run every combination of values and wait for the end, as ``python -m fmnist_lit -m`` does.

    Args:
        *overrides: as on the command line, such as ``optimizer.lr=1e-3,1e-2`` or ``study=optimizers``; with
            ``hydra.sweep.dir=FOLDER`` a sweep is continued.
        trust: as for ``train``.

    Returns:
        The sweep. Jobs that diverged or failed are in its rows.

    Raises:
        fmnist_lit.ConfigError: if anything is not allowed; nothing has been written.
        KeyboardInterrupt: as for ``train``; the jobs that were running have a checkpoint, and the summary is written.
    """
    from fmnist_lit.api.starting import carry_out, words_of
    from fmnist_lit.api.sweep import Sweep

    ended = carry_out(words_of(overrides, trust), sweep=True)
    return Sweep(ended.folder, ended.context)


def load_run(folder: "str | Path") -> "Run":
    """The run in a folder, whoever started it; it may still be running. ``latest`` is the last written to here.

    Raises:
        fmnist_lit.NoSuchRunError: if there is none.
    """
    from fmnist_lit.api.run import find_run

    return find_run(folder)


def load_sweep(folder: "str | Path") -> "Sweep":
    """The sweep in a folder, whoever started it; it may still be running.

    Raises:
        ValueError: if there is none.
    """
    from fmnist_lit.api.sweep import find_sweep

    return find_sweep(folder)


def load_classifier(path: "str | Path", trust: "Iterable[str]" = ()) -> "TrainedClassifier":
    """What a run has trained, ready to predict; torch is imported only now.

    Args:
        path: a run folder, which means its best checkpoint, or the last where none was selected; a checkpoint; or a
            .safetensors file that ``python -m fmnist_lit.export`` wrote.
        trust: packages of which the checkpoint may name classes, for a model of your own.

    Returns:
        A classifier whose ``predict(images)`` takes arrays or tensors (N, 28, 28), or photos of any size.

    Raises:
        fmnist_lit.NoSuchRunError: if there is nothing at ``path``.
        fmnist_lit.CheckpointError: if what is there is damaged, or cannot be trusted.
    """
    from fmnist_lit.config.trust import trusting
    from fmnist_lit.trained.load import load_trained

    with trusting(trust):
        return load_trained(path)


class CallableModule(ModuleType):
    """A module with the name of one of the functions here, which it does not hide from whoever imports it first."""

    def __reduce__(self) -> tuple[Callable[[str], ModuleType], tuple[str]]:
        return importlib.import_module, (self.__name__,)


class Package(CallableModule):
    """The package, of which ``fmnist_lit.train`` and ``fmnist_lit.sweep`` are modules and can be called."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name in CALLED and isinstance(value, ModuleType):  # Python has imported it
            value.__class__ = CALLED[name]
        super().__setattr__(name, value)


CALLED = {
    function.__name__: type("CallableModule", (CallableModule,), {"__call__": staticmethod(function)})
    for function in (train, sweep)
}

if not TYPE_CHECKING:  # a type checker would take any name for one of the package's

    def __getattr__(name: str) -> Any:
        if name == "sweep":
            return importlib.import_module("fmnist_lit.sweep")
        if name not in CLASSES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(CLASSES[name]), name)

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})

    sys.modules[__name__].__class__ = Package
    del sweep  # it is a module from the first: Hydra, which looks for classes in it, is content with nothing else
