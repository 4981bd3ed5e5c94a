"""One job of a sweep as its files say; a damaged or missing file is a remark on the job, not an exception."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from fmnist_lit.config.criterion import Criterion
from fmnist_lit.run.answers import Answers, read_answers
from fmnist_lit.run.files import read_json
from fmnist_lit.run.status import FINISHED, is_pruned
from fmnist_lit.sweep.values import SEED, is_number, one_line, parse_setting, select

CURVES = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")  # columns of metrics.csv
STATUSES = ("completed", "diverged", "failed", "interrupted", "running", "not started")  # the order of rows


@dataclass(frozen=True, eq=False)
class Job:
    """One run of a sweep, started or not.

    Attributes:
        run_dir: its folder, which need not exist.
        folder: the same, relative to the (first) sweep's folder.
        overrides: its command line; None if no file says.
        sweep_command: the command line of the sweep it is from; empty if unknown.
        status: one of STATUSES.
        reason: why it is not completed or not ranked, or which of its files is damaged; else empty.
        results: what results.json says.
        curve: by epoch (from 1), the figure that selects, or the validation accuracy where that has no curve.
        epoch_seconds: by epoch, how long its training took.
    """

    run_dir: Path
    folder: str
    overrides: tuple[str, ...] | None
    sweep_command: str
    status: str
    reason: str
    results: Mapping[str, Any]
    curve: Mapping[int, float]
    epoch_seconds: Mapping[int, float] = field(default_factory=dict)

    @cached_property
    def settings(self) -> dict[str, Any]:
        """What its command line sets, by key, without Hydra's own keys and ``ckpt_path``."""
        return dict(filter(None, map(parse_setting, self.overrides or ())))

    @cached_property
    def config(self) -> Mapping[str, Any]:
        """Its composed configuration; empty if it cannot be read."""
        content = yaml_or_none(self.run_dir / ".hydra" / "config.yaml")
        return content if isinstance(content, Mapping) else {}

    @cached_property
    def criterion(self) -> Criterion:
        """By what its best epoch was chosen, and it is ranked."""
        return Criterion.of(self.results.get("select"))

    @cached_property
    def labels(self) -> dict[str, str]:
        """What a person called it: ``tags`` and ``note``, each empty where there is none."""
        tags, note = self.results.get("tags"), self.results.get("note")
        listed = tags if isinstance(tags, list) else []
        return {"tags": ", ".join(map(one_line, listed)), "note": "" if note is None else one_line(note)}

    @cached_property
    def answers(self) -> Answers | None:
        """Which validation images its best epoch got right; None if it has not kept that, as older runs have not."""
        accuracy = self.figure("val_accuracy")
        return None if accuracy is None else read_answers(self.run_dir, self.results.get("best_epoch"), accuracy)

    def value(self, key: str) -> Any:
        """What it ran with: what its command line sets, else what its configuration says, else UNKNOWN."""
        if key in self.settings:
            return self.settings[key]
        if key == SEED and SEED in self.results:
            return self.results[SEED]
        value = select(self.config, key.split("."))
        if isinstance(value, Mapping):  # a group: Hydra remembers which option it is
            hydra = yaml_or_none(self.run_dir / ".hydra" / "hydra.yaml")
            value = select(hydra, ["hydra", "runtime", "choices", key])
        return value

    @property
    def has_ended(self) -> bool:
        """Whether a sweep has no more to do for it: it would only repeat it, or has pruned it."""
        return self.status in FINISHED or is_pruned(self.results)

    def because(self, reason: str) -> "Job":
        """The same job with one more reason."""
        return replace(self, reason="; ".join(filter(None, [reason, self.reason])))

    def figure(self, name: str) -> float | None:
        """A finite number of results.json, or the one that selects by the name of its column."""
        value = selected_value(self.results) if name == self.criterion.column else self.results.get(name)
        return value if is_number(value) else None


def read_job(run_dir: Path, folder: str, overrides: tuple[str, ...] | None, sweep_command: str, live: bool) -> Job:
    """Read a job's folder, which need not exist.

    Args:
        run_dir: the folder.
        folder: the same, relative to the (first) sweep's folder.
        overrides: as planned; None to read them from ``.hydra/overrides.yaml``.
        sweep_command: the command line of its sweep.
        live: whether the job may still run; otherwise one whose status is ``running`` was killed.
    """
    criterion = Criterion.of(read_json(run_dir / "results.json").get("select"))
    column = criterion.column if criterion.column in CURVES else CURVES[0]
    (curve, epoch_seconds), damage = read_curves(run_dir / "metrics.csv", (column, "seconds"))
    status, reason, results = read_results(run_dir, live, epoch=max(curve, default=0))
    reasons = [reason]
    if overrides is None:
        lines = yaml_or_none(run_dir / ".hydra" / "overrides.yaml")
        overrides = tuple(map(str, lines)) if isinstance(lines, list) else None
    if overrides is None:
        reasons.append("not ranked: .hydra/overrides.yaml is missing or damaged, what it ran is unknown")
    if status == "completed" or "damaged" in damage:  # one that ended in its first epoch has no curve yet
        reasons.append(damage)
    return Job(
        run_dir,
        folder,
        overrides,
        sweep_command,
        status,
        "; ".join(filter(None, reasons)),
        results,
        curve,
        epoch_seconds,
    )


def read_results(run_dir: Path, live: bool, epoch: int) -> tuple[str, str, dict[str, Any]]:
    """A job's status, the reason for it, and what else ``results.json`` says."""
    if not run_dir.is_dir():
        return "not started", "", {}
    try:
        results = json.loads((run_dir / "results.json").read_bytes())
        status = str(results["status"])
    except FileNotFoundError:
        return ("running", "has just started", {}) if live else ("interrupted", "ended without results.json", {})
    except (OSError, ValueError, LookupError, TypeError):
        return "interrupted", "results.json is damaged", {}
    if status == "running":
        return ("running" if live else "interrupted"), f"{'' if live else 'killed '}after epoch {epoch}", results
    step = f" at step {results['diverged_step']}" if "diverged_step" in results else ""
    reasons = {
        "completed": why_not_ranked(results),
        "diverged": f"the loss is not finite{step}",
        "failed": results.get("error", "unknown error"),
        "interrupted": str(results.get("stopped_by"))
        if is_pruned(results)
        else f"by {results.get('signal', 'an unknown signal')} after epoch {epoch}",
    }
    if status not in reasons:
        return "interrupted", "results.json is damaged: unknown status", {}
    return status, one_line(reasons[status]), results


def why_not_ranked(results: Mapping[str, Any]) -> str:
    """Why a completed job is not ranked; empty if it is."""
    if results.get("partial"):
        return f"not ranked: its figures are partial, {results['partial']}"
    if is_number(selected_value(results)):
        return ""
    return f"not ranked: no {Criterion.of(results.get('select')).words}"


def selected_value(results: Mapping[str, Any]) -> Any:
    """The figure that selects; ``results.json`` of version 0.1 has it under its own name alone."""
    chosen = results.get("select")
    if isinstance(chosen, Mapping) and "value" in chosen:
        return chosen["value"]
    return results.get(Criterion.of(chosen).column)


def read_curves(file: Path, columns: Sequence[str]) -> tuple[list[dict[int, float]], str]:
    """Columns of ``metrics.csv`` by epoch, as far as it can be read, and what is wrong with the file."""
    curves: list[dict[int, float]] = [{} for _ in columns]
    try:
        with open(file, newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            for row in rows:
                if None in row.values():
                    return curves, "metrics.csv is damaged"
                for curve, column in zip(curves, columns, strict=True):
                    if row.get(column):
                        curve[int(row["epoch"])] = float(row[column])
            return curves, "" if rows.fieldnames else "metrics.csv is empty"
    except FileNotFoundError:
        return curves, "metrics.csv is missing"
    except (OSError, ValueError, LookupError, csv.Error):
        return curves, "metrics.csv is damaged"


def yaml_or_none(file: Path) -> Any:
    """The content of a YAML file; None if it is missing or damaged."""
    # libyaml where PyYAML has it: ten times as fast
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return yaml.load(file.read_bytes(), loader)
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return None
