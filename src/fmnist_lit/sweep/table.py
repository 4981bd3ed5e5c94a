"""The table of a sweep, or of several as one: what varied, and how the jobs rank."""

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fmnist_lit.config.criterion import DEFAULT, Criterion
from fmnist_lit.sweep.jobs import STATUSES, Job, read_job, why_not_ranked
from fmnist_lit.sweep.plan import read_plan, run_folders
from fmnist_lit.sweep.values import LABELS, SEED, distinct, identity, is_number


class NotASweepError(ValueError):
    """A folder that holds no sweep; the message is for people."""


@dataclass(frozen=True, eq=False)
class Group:
    """The jobs that differ in their seed only; a single job where seeds do not vary.

    Attributes:
        settings: the varied keys other than the seed, and their values.
        jobs: all of them, whatever their status.
        counted: those whose metrics count: completed, one a seed, and each with the figure that selects.
    """

    settings: Mapping[str, Any]
    jobs: Sequence[Job]
    counted: Sequence[Job]

    @property
    def n(self) -> int:
        """Number of seeds that count."""
        return len(self.counted)

    def figures(self, name: str) -> list[float]:
        """A figure of results.json, of each counted seed that has it."""
        return [value for job in self.counted if (value := job.figure(name)) is not None]

    def mean(self, name: str) -> float | None:
        """The mean over the seeds; None where none has this figure."""
        values = self.figures(name)
        return statistics.fmean(values) if values else None

    def std(self, name: str) -> float | None:
        """The sample standard deviation (n - 1) over the seeds; None for fewer than two."""
        values = self.figures(name)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, eq=False)
class RankedGroup(Group):
    """A group with at least one seed that counts.

    Attributes:
        rank: its place by the mean of the figure that selects, from 1.
        criterion: which figure that is.
    """

    rank: int
    criterion: Criterion = DEFAULT

    @property
    def value(self) -> float:
        """The mean of the figure that selects."""
        return statistics.fmean(self.figures(self.criterion.column))

    @property
    def value_std(self) -> float | None:
        """Its sample standard deviation over the seeds; None for a single one."""
        return self.std(self.criterion.column)


@dataclass(frozen=True, eq=False)
class SweepTable:
    """The jobs of a sweep, or of several taken as one, in groups.

    Attributes:
        sweep_dir: the (first) sweep's folder.
        varied: the keys in which jobs differ, the seed included.
        ranked: the groups with a rank, best first.
        other_groups: the groups in which no job counts.
        unranked: the jobs that no rank counts, by status, then as in the sweep.
        datasets: what the completed jobs ran on; with more than one, nothing is ranked.
        criteria: by what their best epochs were chosen; likewise.
        problems: what could not be read of the sweep itself.
        unsampled: how many jobs a search has yet to sample, which are in no group.
    """

    sweep_dir: Path
    varied: Sequence[str]
    ranked: Sequence[RankedGroup]
    other_groups: Sequence[Group]
    unranked: Sequence[Job]
    datasets: Sequence[str]
    criteria: Sequence[Criterion]
    problems: Sequence[str]
    unsampled: int = 0

    @property
    def criterion(self) -> Criterion:
        """By what it ranks."""
        return self.criteria[0]

    @cached_property
    def groups(self) -> list[Group]:
        """All of them, the ranked ones first and best first."""
        return [*self.ranked, *self.other_groups]

    @cached_property
    def jobs(self) -> list[Job]:
        """Every job: the ranked ones, best first, then the others."""
        return [*(job for group in self.ranked for job in group.counted), *self.unranked]

    @property
    def seeded(self) -> bool:
        """Whether seeds vary, so that figures are means."""
        return SEED in self.varied

    @cached_property
    def parameters(self) -> list[str]:
        """The varied keys other than the seed."""
        return [key for key in self.varied if key != SEED]

    @cached_property
    def numbers(self) -> list[str]:
        """The parameters with two values or more, all of them numbers."""
        return [key for key in self.parameters if len(self.values(key)) > 1 and all(map(is_number, self.values(key)))]

    @cached_property
    def categories(self) -> list[str]:
        """The other parameters with two values or more."""
        return [key for key in self.parameters if len(self.values(key)) > 1 and key not in self.numbers]

    def values(self, key: str) -> list[Any]:
        """The values that a parameter takes; numbers are sorted."""
        return distinct(group.settings[key] for group in self.groups)


def collect(folders: Sequence[Path], *, live: bool = False) -> SweepTable:
    """Read one or several sweeps as one table. A job's row says which of its files are damaged or missing.

    Args:
        folders: the sweeps' folders.
        live: whether a sweep is still going on; if not, a job whose status is ``running`` was killed.

    Raises:
        NotASweepError: if a folder is none.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in folders))
    jobs: list[Job] = []
    declared: list[str] = []
    problems: list[str] = []
    unsampled = 0
    for sweep_dir in folders:
        found = run_dirs(sweep_dir)
        command, planned = "", {}
        try:
            plan = read_plan(sweep_dir)
            command, planned = plan.command, {job.folder: job.overrides for job in plan.jobs}
            declared += plan.varied
            unsampled += max(0, plan.trials - len(plan.jobs))
        except FileNotFoundError as error:
            if not found:  # with run folders it may be missing: some sweepers do not know their jobs beforehand
                raise NotASweepError(f"{sweep_dir}: not a sweep, has neither sweep.json nor run folders") from error
        except (OSError, ValueError, LookupError, TypeError):
            problems.append(f"{sweep_dir / 'sweep.json'} is damaged: jobs that had not started are not listed.")
        for name in [*planned, *(name for name in found if name not in planned)]:
            folder = os.path.relpath(sweep_dir / name, folders[0])
            jobs.append(read_job(sweep_dir / name, folder, planned.get(name), command, live))
    keys = dict.fromkeys([*declared, *(key for job in jobs for key in job.settings if key not in LABELS)])
    varied = [key for key in keys if key in declared or len(distinct(job.value(key) for job in jobs)) > 1]
    return replace(rank_jobs(folders[0], jobs, varied, problems), unsampled=unsampled)


def rank_jobs(sweep_dir: Path, jobs: Sequence[Job], varied: Sequence[str], problems: Sequence[str]) -> SweepTable:
    """Group jobs over seeds and rank the groups by the mean of the figure that selects.

    Ties go to the lower validation loss, then to the earlier job. Test figures play no part.
    """
    parameters = [key for key in varied if key != SEED]
    datasets = list(dict.fromkeys(str(job.results.get("dataset")) for job in jobs if job.status == "completed"))
    criteria = list(dict.fromkeys(job.criterion for job in jobs if job.status == "completed"))
    by_settings: dict[tuple[Any, ...], list[Job]] = {}
    for job in jobs:
        by_settings.setdefault(tuple(identity(job.value(key)) for key in parameters), []).append(job)
    groups: list[Group] = []
    unranked: list[Job] = []
    for members in by_settings.values():
        counted: dict[Any, Job] = {}
        for job in members:
            seed = identity(job.value(SEED))
            if job.status != "completed" or why_not_ranked(job.results) or job.overrides is None:
                unranked.append(job)
            elif len(datasets) > 1:
                unranked.append(job.because(f"ran on {job.results.get('dataset')}, other jobs did not: not ranked"))
            elif len(criteria) > 1:
                chosen = f"chosen by the {job.criterion.superlative}"
                unranked.append(job.because(f"{chosen}, other jobs were not: not ranked"))
            elif seed in counted:
                unranked.append(job.because(f"same configuration and seed as {counted[seed].folder}: counted once"))
            else:
                counted[seed] = job
        settings = {key: members[0].value(key) for key in parameters}
        groups.append(Group(settings, members, list(counted.values())))

    criterion, *_ = criteria or [*(job.criterion for job in jobs if job.results), DEFAULT]
    ranked = [RankedGroup(group.settings, group.jobs, group.counted, 0, criterion) for group in groups if group.counted]

    def best_first(group: RankedGroup) -> tuple[float, float]:
        loss = group.mean("val_loss")
        return criterion.cost(group.value), math.inf if loss is None else loss

    places = {job.run_dir: place for place, job in enumerate(jobs)}
    return SweepTable(
        sweep_dir,
        varied,
        [replace(group, rank=rank) for rank, group in enumerate(sorted(ranked, key=best_first), start=1)],
        [group for group in groups if not group.counted],
        sorted(unranked, key=lambda job: (STATUSES.index(job.status), places[job.run_dir])),
        datasets,
        criteria or [criterion],
        problems,
    )


def run_dirs(sweep_dir: Path) -> list[str]:
    """The names of the run folders in a sweep's folder.

    Raises:
        NotASweepError: if it is no folder that can be read, or is a run's own.
    """
    try:
        if (sweep_dir / "results.json").exists():
            raise NotASweepError(f"{sweep_dir}: not a sweep but a single run")
        return run_folders(sweep_dir)
    except OSError as error:
        raise NotASweepError(f"{sweep_dir}: not a sweep: {error.strerror}") from error
