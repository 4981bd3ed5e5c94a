"""The verdict on a sweep: the best configuration, the command that reruns it, and how far to trust it."""

import itertools
import math
import re
import shlex
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmnist_lit.config.rules import DATASETS
from fmnist_lit.run.names import as_typed
from fmnist_lit.sweep.jobs import STATUSES
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable
from fmnist_lit.sweep.values import SEED, UNKNOWN, identity, is_number, parse_setting, select, show_value

VAL_SIZE = 5000  # images, by default; for a run whose configuration cannot be read
WAYS = {"lowest": "downwards", "highest": "upwards"}


@dataclass(frozen=True)
class Verdict:
    """What a sweep comes to, in plain text.

    Attributes:
        headline: the best configuration and its figures, or why there is none.
        command: reruns the best configuration, all its seeds; None if there is none.
        warnings: reasons not to trust the headline as it stands, the most serious first.
    """

    headline: str
    command: str | None
    warnings: tuple[str, ...]


def judge(table: SweepTable) -> Verdict:
    """The verdict on a sweep."""
    warnings = [*table.problems, *data_warnings(table), *status_warnings(table)]
    if len(table.datasets) > 1:
        return Verdict(
            "No ranking: the jobs ran on different data sets, whose figures do not compare.", None, tuple(warnings)
        )
    if not table.ranked:
        return Verdict(without_ranking(table), None, tuple(warnings))
    best = table.ranked[0]
    warnings += [*seed_warnings(best), *edge_warnings(table), *noise_warnings(table)]
    name = describe_settings(best.settings)
    figures = [
        f"{format_percent(best.mean(f'{split}_accuracy'), best.std(f'{split}_accuracy'))} {words} accuracy"
        for split, words in (("val", "validation"), ("test", "test"))
        if best.mean(f"{split}_accuracy") is not None
    ]
    headline = (
        f"{f'Best: {name} with' if name else 'The only configuration has'} {' and '.join(figures)}{seeds_remark(best)}."
    )
    return Verdict(headline, rerun_command(best), tuple(warnings))


def without_ranking(table: SweepTable) -> str:
    """Why nothing is ranked; and the mean test accuracy, if nothing but the seed varies."""
    completed = [job for job in table.jobs if job.status == "completed"]
    if not completed:
        return "No job has completed so far."
    text = "Nothing is ranked: no job has a validation accuracy (see data.val_size), and the test set does not choose."
    if table.parameters:
        return text
    group = Group({}, completed, list({identity(job.value(SEED)): job for job in completed}.values()))  # one a seed
    mean, std = group.mean("test_accuracy"), group.std("test_accuracy")
    return text if mean is None else f"{text} Test accuracy: {format_percent(mean, std)}{seeds_remark(group)}."


def seeds_remark(group: Group) -> str:
    """How many seeds a mean is over; nothing for a single one."""
    return f" (mean ± standard deviation of {group.n} seeds)" if group.n > 1 else ""


def rerun_command(group: RankedGroup) -> str:
    """The command line, quoted for a POSIX shell, that runs a configuration again with all the seeds that count."""
    job = group.counted[0]
    settings = [(line, setting[0]) for line in job.overrides or () if (setting := parse_setting(line)) is not None]
    overrides = [line for line, key in settings if key != SEED or group.n == 1]
    if group.n > 1:
        seeds = [show_value(other.value(SEED)) for other in group.counted]
        overrides.append(f"{SEED}={','.join(seeds)}")
    elif job.settings.get("study") is not None:
        overrides.append("hydra.mode=RUN")  # or the study would make it a sweep
    multirun = ["-m"] if group.n > 1 else []
    return as_typed(["python", "-m", "fmnist_lit", *config_flags(job.sweep_command), *multirun, *overrides])


def config_flags(command: str) -> list[str]:
    """The options of a command line that choose the configuration folder and file."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    flags = []
    for word, following in itertools.pairwise([*words, ""]):
        if match := re.fullmatch(r"(--config-(?:dir|name|path)|-c[dnp])(=.*)?", word):
            flags += [word] if match[2] else [word, following]
    return flags


def data_warnings(table: SweepTable) -> Iterator[str]:
    """Data other than the Fashion-MNIST that a reader expects."""
    if len(table.datasets) > 1:
        counts = ", ".join(
            f"{sum(str(job.results.get('dataset')) == name for job in table.jobs)} on {DATASETS.get(name, name)}"
            for name in table.datasets
        )
        yield f"Data sets are mixed: {counts}. Sweep each by itself."
    elif "synthetic" in table.datasets:
        yield f"All figures are from the {DATASETS['synthetic']}; they say nothing about Fashion-MNIST."


def status_warnings(table: SweepTable) -> Iterator[str]:
    """Jobs that are missing from the ranking."""
    counts = {status: sum(job.status == status for job in table.jobs) for status in STATUSES}
    missing = [f"{counts[status]} {status}" for status in STATUSES[2:] if counts[status]]
    if missing:
        yield f"The sweep is not complete: {', '.join(missing)} of {len(table.jobs)} jobs. The best may change."
    if diverged := [job for job in table.unranked if job.status == "diverged"]:
        keys = [key for key in table.varied if key != SEED]
        names = dict.fromkeys(
            describe_settings({key: job.value(key) for key in keys}) or job.folder for job in diverged
        )
        shown = "; ".join([*list(names)[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])])
        yield f"{len(diverged)} of {len(table.jobs)} jobs diverged: {shown}."


def seed_warnings(best: RankedGroup) -> Iterator[str]:
    """Seeds of the best configuration that its mean leaves out."""
    for status in ("diverged", "failed"):
        if count := sum(job.status == status for job in best.jobs):
            yield f"Of the best configuration's {len(best.jobs)} jobs, {count} {status}: its mean leaves them out."


def edge_warnings(table: SweepTable) -> Iterator[str]:
    """Numbers whose best value is the lowest or the highest that was tried, for each optimiser, loss, … by itself.

    Each has its own range, and a comparison is fair only where each is tuned.
    """
    categories: dict[tuple[Any, ...], list[Group]] = {}  # the winner's first, and the best of each first
    for group in table.groups:
        categories.setdefault(tuple(identity(group.settings[key]) for key in table.categories), []).append(group)
    winners, *others = [groups for groups in categories.values() if isinstance(groups[0], RankedGroup)]
    for key in table.numbers:
        if edge := edge_of(winners, key):
            value = show_value(winners[0].settings[key])
            yield f"{key}={value} is the {edge} value that was tried: widen the range {WAYS[edge]}."
    for key in table.numbers:
        names = [
            f"{describe_settings({name: groups[0].settings[name] for name in table.categories})} ({edge}, "
            f"{show_value(groups[0].settings[key])})"
            for groups in others
            if (edge := edge_of(groups, key))
        ]
        if names:
            yield f"Not tuned to the end: {key} is best at an edge of its range for {'; '.join(names)}."


def edge_of(groups: Sequence[Group], key: str) -> str | None:
    """Whether the first of the groups has the lowest or the highest value that was tried among them."""
    ran = [group for group in groups if any(job.status in ("completed", "diverged") for job in group.jobs)]
    tried = sorted({value for group in ran if is_number(value := group.settings[key])})
    value = groups[0].settings[key]
    if len(tried) < 2 or value not in (tried[0], tried[-1]) or value == 0:
        return None  # 0 is the natural end of a range
    return "lowest" if value == tried[0] else "highest"


def noise_warnings(table: SweepTable) -> Iterator[str]:
    """Configurations behind the best by no more than the standard error of the difference."""
    best, *others = table.ranked
    close = []
    for other in others:
        behind = best.val_accuracy - other.val_accuracy
        error, source = difference_error(best, other)
        if behind <= error:
            close.append((other, behind, error, source))
    if close:
        other, behind, error, source = close[0]
        more = {1: "", 2: " 1 more is as close."}.get(len(close), f" {len(close) - 1} more are as close.")
        yield (
            f"Within noise: {describe_settings(other.settings)} is {100 * behind:.2f} points behind, and the standard "
            f"error of that difference is {100 * error:.2f} points ({source}).{more}"
        )


def difference_error(a: RankedGroup, b: RankedGroup) -> tuple[float, str]:
    """The standard error of the difference of two validation accuracies, and what it is estimated from."""
    if a.n > 1 and b.n > 1:
        variances = [statistics.variance(group.figures("val_accuracy")) / group.n for group in (a, b)]
        return math.sqrt(sum(variances)), "from the seeds"
    val_size = select(a.counted[0].config, ["data", "val_size"])
    val_size = val_size if is_number(val_size) and val_size > 0 else VAL_SIZE
    binomial = [group.val_accuracy * (1 - group.val_accuracy) for group in (a, b)]
    error = math.sqrt(sum(binomial) / val_size)
    return error, f"one seed, {val_size} validation images"


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Settings as ``key=value, …``, the unknown ones left out."""
    return ", ".join(f"{key}={show_value(value)}" for key, value in settings.items() if value is not UNKNOWN)


def format_percent(mean: float | None, std: float | None = None) -> str:
    """A fraction as a percentage, with its standard deviation if there is one."""
    if mean is None:
        return ""
    return f"{100 * mean:.2f} %" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f} %"
