"""Which file holds what a run has trained; does without torch, so that a mistyped path is answered at once."""

import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fmnist_lit.config import ConfigError
from fmnist_lit.run.files import read_json
from fmnist_lit.run.latest import LATEST, NEW_RUNS, latest_run


class NoSuchRunError(ValueError):
    """A path that is neither a run with a checkpoint nor a file; the message names it and what was looked for."""


@dataclass(frozen=True)
class Trained:
    """A file with trained weights, and what is known about the run that it is from.

    Attributes:
        file: a checkpoint, or an exported .safetensors file.
        run_dir: the run folder that the checkpoint is in; None for a file that lies elsewhere.
        results: the content of the run's ``results.json`` if that is about this checkpoint, else empty.
    """

    file: Path
    run_dir: Path | None = None
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What to call it in a table: the run folder, with the checkpoint unless ``results.json`` is about it."""
        if self.run_dir is None:
            return self.file.name
        return self.run_dir.name + ("" if self.results else f" ({self.file.stem})")

    @property
    def folder(self) -> Path:
        """The folder for what is made from it, such as an evaluation."""
        return self.run_dir or self.file.parent


def find_trained(path: str | Path) -> Trained:
    """The file that ``path`` means.

    Args:
        path: a run folder, which means the checkpoint that its ``results.json`` is about, or else the best, or else
            the last; or a file, which means itself; or ``latest``, the run in ``outputs/runs`` last written to.

    Raises:
        NoSuchRunError: if there is no such file.
    """
    if str(path) == LATEST:
        newest = latest_run(NEW_RUNS)
        if newest is None:
            raise NoSuchRunError(f"{LATEST}: there is no run with a checkpoint in {NEW_RUNS}")
        print(f"{LATEST} is {newest}", file=sys.stderr)
        path = newest
    given = Path(os.path.expanduser(path))
    if given.is_dir():
        chosen = read_json(given / "results.json").get("checkpoint")
        candidates = [*([chosen] if isinstance(chosen, str) else []), "checkpoints/best.ckpt", "checkpoints/last.ckpt"]
        files = [file for name in candidates if (file := given / name).is_file()]
        if not files:
            runs = sorted(results.parent.name for results in given.glob("*/results.json"))
            hint = f"; name one of the runs in it, such as {given / runs[0]}" if runs else ""
            raise NoSuchRunError(f"{path}: not a run with a checkpoint, there is no checkpoints/last.ckpt in it{hint}")
        file = files[0].absolute()
    elif given.is_file():
        file = given.absolute()
    else:
        raise NoSuchRunError(f"{path}: no such run folder or checkpoint")
    run_dir = file.parent.parent
    if file.parent.name != "checkpoints" or not (run_dir / "results.json").is_file():
        return Trained(file, given.absolute() if given.is_dir() else None)
    results = read_json(run_dir / "results.json")
    is_about_file = results.get("status") == "completed" and results.get("checkpoint") == f"checkpoints/{file.name}"
    return Trained(file, run_dir, results if is_about_file else {})


def find_initial(init_from: str) -> Trained:
    """The file that ``init_from`` means.

    Raises:
        ConfigError: if there is none.
    """
    if init_from == LATEST:  # which is another one each time, and the jobs of a sweep would not start alike
        raise ConfigError(f"init_from={LATEST}: must name the run, such as {latest_run(NEW_RUNS) or 'a run folder'}")
    try:
        return find_trained(init_from)
    except NoSuchRunError as error:
        raise ConfigError(f"init_from={error}") from error
