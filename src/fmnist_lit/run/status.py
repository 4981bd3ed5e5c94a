"""How a run can end, and the exit code that goes with it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmnist_lit.run.files import read_json

# A run that a signal interrupted exits with 128 + the signal's number instead.
EXIT_CODES = {"completed": 0, "diverged": 1, "failed": 1}
PRUNED = "pruned: "  # how stopped_by begins then
FINISHED = ("completed", "diverged")  # to run one of these again would only repeat it


class DivergedError(ArithmeticError):
    """The loss, or what leads to it, is no longer a finite number.

    Attributes:
        step: the optimiser step, from 1, whose loss it was; for an evaluation, the last step before it.
        what: in words, what is not finite.
    """

    def __init__(self, step: int, what: str = "the loss") -> None:
        super().__init__(f"{what} is not a finite number at step {step}")
        self.step, self.what = step, what

    def __reduce__(self) -> tuple[type, tuple[int, str]]:
        return type(self), (self.step, self.what)


def read_status(run_dir: Path) -> str | None:
    """The status in a run folder; None if it has none that can be read."""
    status = read_json(run_dir / "results.json").get("status")
    return status if isinstance(status, str) else None


class PrunedError(Exception):
    """A search has ended a run before its time, because it did badly; why is the message."""


def is_pruned(results: Mapping[str, Any]) -> bool:
    """Whether a search ended the run of that ``results.json``, and nobody has gone on with it since."""
    return results.get("status") == "interrupted" and str(results.get("stopped_by")).startswith(PRUNED)


def has_ended(run_dir: Path) -> bool:
    """Whether a sweep has no more to do for a job: it would only repeat it, or has pruned it."""
    results = read_json(run_dir / "results.json")
    return results.get("status") in FINISHED or is_pruned(results)
