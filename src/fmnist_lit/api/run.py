"""A run as Python and notebooks see it: a view of its folder."""

import csv
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmnist_lit.api.starting import carry_out, words_of
from fmnist_lit.command_line.job import summary
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import quoted
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.rules import DATASETS, title_of
from fmnist_lit.config.trust import split_trust, trusting
from fmnist_lit.processes.lock import is_held
from fmnist_lit.run.files import read_json
from fmnist_lit.run.find import NoSuchRunError
from fmnist_lit.run.latest import LATEST, NEW_RUNS, latest_run
from fmnist_lit.run.names import relative
from fmnist_lit.run.resume import earlier_config

if TYPE_CHECKING:  # they take seconds to import
    from matplotlib.figure import Figure

    from fmnist_lit.trained.classifier import TrainedClassifier

WIDTH, LEAST = 100, 30  # characters of a line, and how many of them are for the folder


class RunFailedError(RuntimeError):
    """A run that did not get to its end, for a reason other than its loss or a signal; the message says which.

    Attributes:
        run: what it left.
    """

    def __init__(self, run: "Run") -> None:
        super().__init__(f"{run.results.get('error')} ({run.folder / 'train.log'})")
        self.run = run

    def __reduce__(self) -> tuple[type, tuple["Run"]]:
        return type(self), (self.run,)


class Run:
    """What a run leaves behind, as its folder says when it is asked.

    Attributes:
        folder: its folder.
    """

    def __init__(self, folder: str | Path, context: Sequence[str] = ()) -> None:
        """See a folder as a run.

        Args:
            folder: the run's.
            context: words of a command line with which to go on with it: whom it trusts, where configurations are.
        """
        self.folder = Path(folder).absolute()
        self._context = tuple(context)

    @property
    def results(self) -> dict[str, Any]:
        """What ``results.json`` says: status, data set, accuracies as fractions, …; empty if there is none yet."""
        return read_json(self.folder / "results.json")

    @property
    def status(self) -> str:
        """``completed``, ``diverged``, ``failed``, ``interrupted``, or ``running`` if it does, wherever that is."""
        status = str(self.results.get("status", "interrupted"))
        was_killed = status == "running" and not is_held(self.folder, otherwise=True)
        return "interrupted" if was_killed else status

    @property
    def metrics(self) -> list[dict[str, float | None]]:
        """What ``metrics.csv`` says, a row an epoch: accuracies as fractions, None where nothing was evaluated."""
        try:
            with open(self.folder / "metrics.csv", newline="", encoding="utf-8") as file:
                return [{name: figure_in(name, text) for name, text in row.items()} for row in csv.DictReader(file)]
        except FileNotFoundError:
            return []

    @property
    def data(self) -> str:
        """Which data its figures are of, for people."""
        dataset = self.results.get("dataset")
        return title_of(str(dataset or self._data_so_far()))

    def _data_so_far(self) -> str:
        """The data of a run that has not come to its end: as configured, or what its checkpoint says it found."""
        from fmnist_lit.run.checkpoint import CheckpointError, load_checkpoint  # torch takes seconds

        try:
            source = earlier_config(self.folder)["data"]["source"]
        except (ConfigError, LookupError, TypeError):
            source = "auto"
        if source in DATASETS:
            return str(source)
        try:
            return str(load_checkpoint(self.folder / "checkpoints" / "last.ckpt")["hyper_parameters"]["dataset"])
        except (CheckpointError, LookupError, TypeError):
            return "unknown data"

    def plot(self) -> "Figure":
        """Accuracy and loss by epoch; a figure that pyplot does not know, and that a notebook shows."""
        from fmnist_lit.api.curves import draw_curves

        return draw_curves(self.metrics, f"{self.data}: {self._outcome}", self.results.get("best_epoch"))

    def classifier(self) -> "TrainedClassifier":
        """What it has trained, ready to predict, as ``fmnist_lit.load_classifier``."""
        from fmnist_lit.trained.load import load_trained

        with trusting(split_trust(self._context)[0]):
            return load_trained(self.folder)

    def resume(self, *overrides: str) -> "Run":
        """Go on with it in its folder, to the bits of a run that was never stopped.

        Args:
            *overrides: as on the command line, such as ``trainer.max_epochs=20``.

        Returns:
            The run; this one shows what has become of it too.

        Raises:
            fmnist_lit.ConfigError: if there is nothing to go on from, or an override would make it another run.
            fmnist_lit.RunFailedError, KeyboardInterrupt: as ``fmnist_lit.train``.
        """
        return started([*self._context, *words_of(overrides), f"ckpt_path={quoted(self.folder)}"])

    @property
    def _outcome(self) -> str:
        """How it ended, in a few words."""
        results, status = self.results, self.status
        if status == "completed":
            accuracy, part = results.get("test_accuracy"), " (PARTIAL)" if results.get("partial") else ""
            shown = "no test image" if accuracy is None else f"test accuracy {100 * accuracy:.1f} %"
            return f"{shown}{part}"
        reasons = {
            "diverged": f" at step {results.get('diverged_step')}",
            "failed": f": {results.get('error')}",
            "interrupted": f" by {results['signal']}" if results.get("signal") else "",
        }
        return f"{status}{reasons.get(status, '')}"

    def __repr__(self) -> str:
        epochs = len(self.metrics)
        told = f"{self._outcome}, {self.data}, {epochs} epoch{'s' * (epochs != 1)}"
        return shown_in_a_line("Run", told, self.folder)

    def _repr_html_(self) -> str:
        """What a notebook shows: how it ended, on which data, and its curves."""
        from fmnist_lit.api.pages import page_of_run

        told = f"{self.data}\n  {self._outcome}\n  run folder    {self.folder}"
        if self.status == "completed":
            told = summary(self.folder, self.results)
        return page_of_run(told, self.plot() if self.metrics else None)


def figure_in(name: str, text: str | None) -> float | None:
    """A cell of ``metrics.csv``; epochs are whole."""
    if not text:
        return None
    return int(text) if name == "epoch" else float(text)


def shown_in_a_line(kind: str, told: str, folder: Path) -> str:
    """What ``repr`` shows, in a line that fits the screen; of a long folder's name the end, which tells it apart."""
    told = textwrap.shorten(told, WIDTH - LEAST, placeholder=" …")
    room = WIDTH - len(f"<{kind}: {told}, >")
    place = "".join(letter if letter.isprintable() else "?" for letter in str(relative(folder)))
    if len(place) > room:
        place = f"…{place[1 - room :]}"
    return f"<{kind}: {told}, {place}>"


def started(words: Sequence[str]) -> Run:
    """Run a command line's one run.

    Raises:
        ConfigError, KeyboardInterrupt: as ``carry_out``.
        RunFailedError: if the run failed.
    """
    ended = carry_out(words, sweep=False)
    run = Run(ended.folder, ended.context)
    if run.status == "failed":
        raise RunFailedError(run) from ended.error
    return run


def find_run(folder: str | Path) -> Run:
    """As ``fmnist_lit.load_run``, which says more."""
    if str(folder) == LATEST:
        newest = latest_run(NEW_RUNS)
        if newest is None:
            raise NoSuchRunError(f"{LATEST}: there is no run with a checkpoint in {NEW_RUNS}")
        return Run(newest)
    place = Path(expanded(str(folder), str(folder)))
    if (place / "sweep.json").exists():
        raise NoSuchRunError(f"{folder}: a sweep; fmnist_lit.load_sweep shows it")
    if not ((place / "results.json").exists() or (place / ".hydra").is_dir()):
        raise NoSuchRunError(f"{folder}: no such run folder, there is no results.json in it")
    return Run(place)
