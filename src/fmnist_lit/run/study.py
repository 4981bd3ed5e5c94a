"""The study of a search: optuna's journal in the sweep's folder, to which the sweep and its jobs write by turns."""

import contextlib
import importlib.metadata
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from fmnist_lit.config import ConfigError

if TYPE_CHECKING:
    import optuna

STUDY = "study.log"
NAME = "search"  # of the study in the journal; the brackets of hyperband depend on it
LOCK = ".study.lock"  # optuna-dashboard would take study.log.lock for one of its own, and remove it
PATIENCE = 30.0  # seconds
OLDEST = 5  # optuna's version
DIRECTIONS: dict[str, Literal["maximize", "minimize"]] = {"max": "maximize", "min": "minimize"}

# By what pruners are called here: optuna's class, and what of it may be set, with what it is unless it is set
PRUNERS: dict[str, tuple[str, dict[str, Any]]] = {
    "none": ("NopPruner", {}),
    "median": ("MedianPruner", {"n_startup_trials": 5, "n_warmup_steps": 0, "interval_steps": 1, "n_min_trials": 1}),
    "halving": (
        "SuccessiveHalvingPruner",
        {"min_resource": 1, "reduction_factor": 3, "min_early_stopping_rate": 0, "bootstrap_count": 0},
    ),
    "hyperband": ("HyperbandPruner", {"min_resource": 1, "reduction_factor": 3, "bootstrap_count": 0}),
}


def require_optuna() -> None:
    """Refuse to search without optuna, or with an old one; it is not imported.

    Raises:
        ConfigError: saying what to install.
    """
    try:
        version = importlib.metadata.version("optuna")
    except importlib.metadata.PackageNotFoundError:
        raise ConfigError("hydra/sweeper=search: is not installed; pip install 'fmnist_lit[search]'") from None
    if int(version.partition(".")[0]) < OLDEST:
        raise ConfigError(
            f"hydra/sweeper=search: needs optuna {OLDEST}, here is {version}; pip install -U 'fmnist_lit[search]'"
        )


def make_pruner(name: str, options: Mapping[str, Any], max_epochs: int) -> "optuna.pruners.BasePruner":
    """Optuna's pruner for trials of so many epochs."""
    import optuna

    kind, defaults = PRUNERS[name]
    longest = {"max_resource": max_epochs} if name == "hyperband" else {}
    pruner: optuna.pruners.BasePruner = getattr(optuna.pruners, kind)(**{**defaults, **longest, **options})
    return pruner


class JournalLock:
    """Lets one process at a time write to the journal, and a writer that was killed holds nobody up."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lock = FileLock(file.with_name(LOCK), timeout=PATIENCE)

    def acquire(self) -> bool:
        """Wait for the others; drop the part of a line that a power cut may have left."""
        self.lock.acquire()
        with open(self.file, "rb+") as journal:
            if journal.seek(0, os.SEEK_END):
                journal.seek(-1, os.SEEK_END)
                if journal.read() != b"\n":
                    journal.seek(0)
                    journal.truncate(journal.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        """Let the others write."""
        self.lock.release()


@contextlib.contextmanager
def study_errors(sweep_dir: Path) -> Iterator[None]:
    """Say in a line what is wrong with the journal, for which optuna has no error of its own.

    Raises:
        ConfigError: if it is locked, damaged, or cannot be read or written.
    """
    file = sweep_dir / STUDY
    try:
        yield
    except ConfigError:
        raise
    except Timeout:
        raise ConfigError(f"{file}: another program has kept it locked for {PATIENCE:.0f} s; end that first") from None
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read or written: {error.strerror or error}") from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise ConfigError(
            f"{file}: is damaged ({reason}); move it away, and the same command makes it anew from the jobs"
        ) from error


def open_study(
    sweep_dir: Path, mode: str, pruner: "optuna.pruners.BasePruner | None" = None
) -> "tuple[optuna.Study, optuna.storages.BaseStorage]":
    """The study in a sweep's folder, made if there is none, and its storage; within ``study_errors``.

    Args:
        sweep_dir: the sweep's folder.
        mode: ``max`` or ``min``: what of the figure that selects is the best.
        pruner: what a trial of it asks whether to go on; none by default.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = sweep_dir / STUDY
    with open(file, "ab"):  # says that it cannot be written
        pass
    lock = JournalLock(file)
    lock.acquire()  # likewise
    lock.release()
    storage = JournalStorage(JournalFileBackend(str(file), lock_obj=lock))  # type: ignore[arg-type]
    sampler = optuna.samplers.RandomSampler()  # of a trial that is there already nothing is sampled
    pruner = pruner or optuna.pruners.NopPruner()
    if storage.get_all_studies():
        return optuna.load_study(study_name=NAME, storage=storage, sampler=sampler, pruner=pruner), storage
    study = optuna.create_study(
        study_name=NAME, storage=storage, direction=DIRECTIONS[mode], sampler=sampler, pruner=pruner
    )
    return study, storage
