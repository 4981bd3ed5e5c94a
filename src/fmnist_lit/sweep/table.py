"""A sweep, or several as one: what varied, and how the jobs rank."""

import json
import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fmnist_lit.sweep.jobs import STATUSES, Job, read_job
from fmnist_lit.sweep.values import SEED, distinct, identity, is_number


class NotASweepError(ValueError):
    """A folder that holds no sweep; the message is for people."""


@dataclass(frozen=True, eq=False)
class Group:
    """The jobs that differ in their seed only; a single job where seeds do not vary.

    Attributes:
        settings: the varied keys other than the seed, and their values.
        jobs: all of them, however they ended.
        counted: those whose figures count: completed, one a seed.
        rank: from 1, by validation accuracy; None where nothing counts.
    """

    settings: Mapping[str, Any]
    jobs: Sequence[Job]
    counted: Sequence[Job]
    rank: int | None = None

    @property
    def n(self) -> int:
        """Number of seeds that count."""
        return len(self.counted)

    def figures(self, name: str) -> list[float]:
        """A figure of each seed that has it."""
        return [value for job in self.counted if (value := job.figure(name)) is not None]

    def mean(self, name: str) -> float | None:
        """The mean over the seeds."""
        values = self.figures(name)
        return statistics.fmean(values) if values else None

    def std(self, name: str) -> float | None:
        """The sample standard deviation (n - 1) over the seeds; None for fewer than two."""
        values = self.figures(name)
        return statistics.stdev(values) if len(values) > 1 else None


@dataclass(frozen=True, eq=False)
class Table:
    """A sweep, or several taken as one.

    Attributes:
        sweep_dir: the (first) sweep's folder.
        varied: the keys in which jobs differ, the seed included.
        groups: all of them, the ranked ones first and best first.
        unranked: the jobs that no rank counts, by status, then as in the sweep.
        datasets: what the completed jobs ran on; with more than one, nothing is ranked.
        problems: what could not be read of the sweep itself.
    """

    sweep_dir: Path
    varied: Sequence[str]
    groups: Sequence[Group]
    unranked: Sequence[Job]
    datasets: Sequence[str]
    problems: Sequence[str]

    @cached_property
    def ranked(self) -> list[Group]:
        """The groups with a rank, best first."""
        return [group for group in self.groups if group.rank is not None]

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


def collect(folders: Sequence[Path], *, live: bool = False) -> Table:
    """Read one or several sweeps as one table. Damaged or missing files of a job are told in its row, not raised.

    Args:
        folders: the sweeps' folders.
        live: whether a sweep is still going on; if not, a job whose status is ``running`` was killed.

    Raises:
        NotASweepError: if a folder is none.
    """
    folders = list(dict.fromkeys(Path(folder).absolute() for folder in folders))
    jobs, declared, problems = [], [], []
    for sweep_dir in folders:
        found = run_dirs(sweep_dir)
        try:
            command, keys, planned = read_plan(sweep_dir / "sweep.json")
        except (OSError, ValueError, LookupError, TypeError) as error:
            command, keys, planned = "", [], {}
            if not isinstance(error, FileNotFoundError):
                problems.append(f"{sweep_dir / 'sweep.json'} is damaged: jobs that had not started are not listed.")
            elif not found:  # with run folders it may be missing: some sweepers do not know their jobs beforehand
                raise NotASweepError(f"{sweep_dir}: not a sweep, has neither sweep.json nor run folders") from error
        declared += keys
        for name in [*planned, *(name for name in found if name not in planned)]:
            folder = os.path.relpath(sweep_dir / name, folders[0])
            jobs.append(read_job(sweep_dir / name, folder, planned.get(name), command, live))
    keys = dict.fromkeys([*declared, *(key for job in jobs for key in job.settings)])
    varied = [key for key in keys if key in declared or len(distinct(job.value(key) for job in jobs)) > 1]
    return rank(folders[0], jobs, varied, problems)


def rank(sweep_dir: Path, jobs: Sequence[Job], varied: Sequence[str], problems: Sequence[str]) -> Table:
    """Group jobs over seeds and rank the groups by mean validation accuracy.

    Ties go to the lower validation loss, then to the earlier job. Test figures play no part.
    """
    parameters = [key for key in varied if key != SEED]
    datasets = list(dict.fromkeys(str(job.results.get("dataset")) for job in jobs if job.status == "completed"))
    alike: dict[tuple, list[Job]] = {}
    for job in jobs:
        alike.setdefault(tuple(identity(job.value(key)) for key in parameters), []).append(job)
    groups, unranked = [], []
    for members in alike.values():
        counted: dict[Any, Job] = {}
        for job in members:
            seed = identity(job.value(SEED))
            if job.status != "completed" or job.figure("val_accuracy") is None or job.overrides is None:
                unranked.append(job)
            elif len(datasets) > 1:
                unranked.append(job.because(f"ran on {job.results.get('dataset')}, other jobs did not: not ranked"))
            elif seed in counted:
                unranked.append(job.because(f"same configuration and seed as {counted[seed].folder}: counted once"))
            else:
                counted[seed] = job
        settings = {key: members[0].value(key) for key in parameters}
        groups.append(Group(settings, members, list(counted.values())))

    def order(group: Group) -> tuple[float, float]:
        loss = group.mean("val_loss")
        return -group.mean("val_accuracy"), math.inf if loss is None else loss

    ranked = sorted((group for group in groups if group.counted), key=order)
    places = {job.run_dir: place for place, job in enumerate(jobs)}
    return Table(
        sweep_dir,
        varied,
        [replace(group, rank=place) for place, group in enumerate(ranked, start=1)]
        + [group for group in groups if not group.counted],
        sorted(unranked, key=lambda job: (STATUSES.index(job.status), places[job.run_dir])),
        datasets,
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
        folders = sorted(folder for folder in sweep_dir.iterdir() if folder.is_dir())
    except OSError as error:
        raise NotASweepError(f"{sweep_dir}: not a sweep: {error.strerror}") from error
    return [folder.name for folder in folders if (folder / ".hydra").is_dir() or (folder / "results.json").exists()]


def read_plan(file: Path) -> tuple[str, list[str], dict[str, tuple[str, ...]]]:
    """What ``sweep.json`` says: the command, the varied keys, and the overrides of each job by folder.

    Raises:
        OSError, ValueError, LookupError, TypeError: if it cannot be read, is no JSON, or says something else.
    """
    plan = json.loads(file.read_bytes())
    jobs = {str(job["folder"]): tuple(map(str, job["overrides"])) for job in plan["jobs"]}
    return str(plan["command"]), list(map(str, plan["varied"])), jobs
