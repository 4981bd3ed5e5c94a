"""The verdict on a sweep: the best configuration, the command that reruns it, and how far to trust it."""

import itertools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fmnist_lit.config.rules import DATASETS, title_of
from fmnist_lit.run.names import shell_command
from fmnist_lit.run.status import is_pruned
from fmnist_lit.sweep.comparison import Comparison, compare_with_best
from fmnist_lit.sweep.jobs import STATUSES
from fmnist_lit.sweep.table import Group, RankedGroup, SweepTable
from fmnist_lit.sweep.values import SEED, UNKNOWN, identity, is_number, parse_setting, show_value

MOST_SEEDS = 1000  # that are told as a number
ONE_SEED = "one seed knows nothing of luck in training."
WAYS = {"lowest": "downwards", "highest": "upwards"}


@dataclass(frozen=True)
class Verdict:
    """What a sweep comes to, in plain text.

    Attributes:
        headline: the best configuration and its figures, or why there is none.
        command: reruns the best configuration, all its seeds; None if there is none.
        warnings: reasons not to trust the headline as it stands, the most serious first.
        comparisons: the other ranked configurations beside the best, in the order of rank.
    """

    headline: str
    command: str | None
    warnings: tuple[str, ...]
    comparisons: tuple[Comparison, ...] = ()


def judge(table: SweepTable) -> Verdict:
    """The verdict on a sweep."""
    warnings = [*table.problems, *data_warnings(table), *status_warnings(table)]
    if len(table.datasets) > 1:
        return Verdict(
            "No ranking: the jobs ran on different data sets, whose figures do not compare.", None, tuple(warnings)
        )
    if len(table.criteria) > 1:
        told = ", ".join(f"the {criterion.superlative}" for criterion in table.criteria)
        return Verdict(f"No ranking: the jobs were chosen by different figures: {told}.", None, tuple(warnings))
    if not table.ranked:
        return Verdict(without_ranking(table), None, tuple(warnings))
    best = table.ranked[0]
    comparisons = compare_with_best(table.ranked)
    warnings += [*seed_warnings(best), *edge_warnings(table), *chance_warnings(comparisons)]
    name = describe_settings(best.settings)
    figures = [
        f"{format_percent(best.mean(f'{split}_accuracy'), best.std(f'{split}_accuracy'))} {words} accuracy"
        for split, words in (("val", "validation"), ("test", "test"))
        if best.mean(f"{split}_accuracy") is not None
    ]
    if best.criterion.metric != "accuracy/val":
        figures.insert(0, f"{best.criterion.words} {best.criterion.shown(best.value, best.value_std)}")
    listed = " and ".join(filter(None, [", ".join(figures[:-1]), figures[-1]]))
    headline = f"{f'Best: {name} with' if name else 'The only configuration has'} {listed}{seeds_remark(best)}."
    return Verdict(headline, rerun_command(best), tuple(warnings), tuple(comparisons))


def without_ranking(table: SweepTable) -> str:
    """Why nothing is ranked; and the mean test accuracy, if nothing but the seed varies."""
    completed = [job for job in table.jobs if job.status == "completed"]
    if not completed:
        return "No job has completed so far."
    if all(job.results.get("partial") for job in completed):
        return f"Nothing is ranked: all figures are partial, {completed[0].results['partial']}."
    hint = " (see data.val_size)" if table.criterion.is_default else ""
    text = f"Nothing is ranked: no job has a {table.criterion.words}{hint}, and the test set does not choose."
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
    return shell_command(["python", "-m", "fmnist_lit", *config_flags(job.sweep_command), *multirun, *overrides])


def config_flags(command: str) -> list[str]:
    """The words of a command line that choose where configurations are from, and whom it trusts."""
    try:
        words = shlex.split(command)
    except ValueError:
        return []
    flags = []
    for word, following in itertools.pairwise([*words, ""]):
        if match := re.fullmatch(r"(--config-(?:dir|name|path)|-c[dnp]|--trust)(=.*)?", word):
            flags += [word] if match[2] else [word, following]
        elif re.match(r"[+]{0,2}hydra\.searchpath=", word):
            flags.append(word)
    return flags


def data_warnings(table: SweepTable) -> Iterator[str]:
    """Data other than the Fashion-MNIST that a reader expects."""
    if len(table.datasets) > 1:
        counts = ", ".join(
            f"{sum(str(job.results.get('dataset')) == name for job in table.jobs)} on {title_of(name)}"
            for name in table.datasets
        )
        yield f"Data sets are mixed: {counts}. Sweep each by itself."
    elif "synthetic" in table.datasets:
        yield f"All figures are from the {DATASETS['synthetic']}; they say nothing about Fashion-MNIST."


def status_warnings(table: SweepTable) -> Iterator[str]:
    """Jobs that are missing from the ranking."""
    pruned = sum(is_pruned(job.results) for job in table.jobs)
    counts = {status: sum(job.status == status for job in table.jobs) for status in STATUSES}
    counts["interrupted"] -= pruned
    missing = [f"{counts[status]} {status}" for status in STATUSES[2:] if counts[status]]
    if table.unsampled:
        missing.append(f"{table.unsampled} not sampled")
    if missing:
        total = len(table.jobs) + table.unsampled
        yield f"The sweep is not complete: {', '.join(missing)} of {total} jobs. The best may change."
    if pruned:
        yield (
            f"{pruned} of {len(table.jobs)} jobs were pruned: they did badly early, and are not ranked; "
            "python -m fmnist_lit ckpt_path=FOLDER sees one to its end."
        )
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
    ran = [group for group in groups if any(job.has_ended for job in group.jobs)]
    tried = sorted({value for group in ran if is_number(value := group.settings[key])})
    value = groups[0].settings[key]
    if len(tried) < 2 or value not in (tried[0], tried[-1]) or value == 0:
        return None  # 0 is the natural end of a range
    return "lowest" if value == tried[0] else "highest"


def chance_warnings(comparisons: Sequence[Comparison]) -> Iterator[str]:
    """Configurations that may be behind the best by chance alone, by which test, and what that does not cover."""
    close = [comparison for comparison in comparisons if not (comparison.p is None or comparison.is_told_apart)]
    if untested := [comparison for comparison in comparisons if comparison.p is None]:
        names = [describe_comparison(comparison) for comparison in untested[:3]]
        names += [f"{len(untested) - 3} more"] if len(untested) > 3 else []
        yield (
            f"Not tested against the best: {'; '.join(names)}. With one seed each there is a test for "
            "select.metric=accuracy/val only; run several, such as seed=0,1,2."
        )
    elif not close and not all(comparison.covers_training for comparison in comparisons):
        yield "All others are told apart from the best on these validation images; but " + ONE_SEED
    if not close:
        return
    shown = [describe_comparison(comparison) for comparison in close[:3]]
    if len(close) > 3:
        shown.append(f"{len(close) - 3} more")
    text = f"{'This' if len(close) == 1 else 'These'} cannot be told apart from the best: {'; '.join(shown)}. "
    text += f"p is by {' or '.join(dict.fromkeys(comparison.test for comparison in close))}"
    if len(comparisons) > 1:
        text += f", corrected for the choice among {len(comparisons) + 1} (Holm, all pairs)"
    text += ". "
    if all(comparison.covers_training for comparison in close):
        text += "It covers luck in training, not the choice of the validation images."
    else:
        text += f"It covers the choice of the validation images; {ONE_SEED}"
    yield text
    if any(comparison.seeds for comparison in close[:3]):
        source = (
            "" if all(comparison.covers_training for comparison in close[:3]) else ", a guess from the images alone"
        )
        yield (
            "How many seeds would settle it: as many new ones of each as are named, in a sweep of the two alone, tell "
            f"such a gap in 4 of 5 cases{source}."
        )


def describe_comparison(comparison: Comparison) -> str:
    """A configuration, its gap to the best, how likely that is by chance, and the seeds that would settle it."""
    seeds = comparison.seeds
    needed = "" if seeds is None else f", {seeds if seeds <= MOST_SEEDS else f'over {MOST_SEEDS}'} seeds"
    is_share = comparison.other.criterion.is_share
    gap = f"{100 * comparison.behind:.2f} points behind" if is_share else f"{comparison.behind:.4f} behind"
    chance = "" if comparison.p is None else f", p = {comparison.p:.2f}"
    return f"{describe_settings(comparison.other.settings)} ({gap if comparison.behind else 'equal'}{chance}{needed})"


def describe_settings(settings: Mapping[str, Any]) -> str:
    """Settings as ``key=value, …``, the unknown ones left out."""
    return ", ".join(f"{key}={show_value(value)}" for key, value in settings.items() if value is not UNKNOWN)


def format_percent(mean: float | None, std: float | None = None) -> str:
    """A fraction as a percentage, with its standard deviation if there is one."""
    if mean is None:
        return ""
    return f"{100 * mean:.2f} %" if std is None else f"{100 * mean:.2f} ± {100 * std:.2f} %"
