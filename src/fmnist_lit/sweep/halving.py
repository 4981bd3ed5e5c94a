"""Successive halving of a grid: all jobs train a few epochs, the best of them more, and so on to the full length.

Jamieson and Talwalkar (2016), Non-stochastic Best Arm Identification and Hyperparameter Optimization,
https://arxiv.org/abs/1502.07943. Every job has its schedule for the full length from the start and goes on where it
was, so those that are left in the end are, bit for bit, what they would be without.
"""

import math
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from fmnist_lit.config.criterion import Criterion
from fmnist_lit.run.status import FINISHED, read_status
from fmnist_lit.sweep.jobs import read_curves
from fmnist_lit.sweep.plan import Halving, Plan, PlannedJob, job_to_run, settings_of, still_to_do
from fmnist_lit.sweep.values import SEED


def halving_of(plan: Plan, factor: int, max_epochs: int) -> Halving:
    """After how many epochs the jobs of a plan are compared: as often as there is something to choose."""
    rungs, several = [max_epochs], len(list(configurations(plan)))
    while rungs[0] >= factor and factor ** (len(rungs) - 1) < several:
        rungs.insert(0, rungs[0] // factor)
    return Halving(factor, tuple(rungs))


def epochs_in_all(halving: Halving, jobs: int) -> int:
    """How many epochs so many jobs train in all, if none ends before its time."""
    epochs = before = 0
    for rung in halving.rungs:
        epochs += jobs * (rung - before)
        jobs, before = math.ceil(jobs / halving.factor), rung
    return epochs


def rounds(
    sweep_dir: Path, plan: Plan, criterion: Criterion
) -> Iterator[tuple[int | None, list[tuple[int, list[str]]]]]:
    """What a grid launches together: until which epoch, and the jobs that are not there yet.

    Which ones go on is decided by their figures up to that epoch, so a sweep that is continued decides the same again.
    Without halving all that has not ended goes to its end.

    Args:
        sweep_dir: the sweep's folder.
        plan: its jobs, and by what they are halved.
        criterion: which figure; of several seeds the mean counts.
    """
    if plan.halving is None:
        yield None, list(still_to_do(sweep_dir, plan))
        return
    left = list(configurations(plan))
    for rung in plan.halving.rungs:
        numbers = sorted(number for numbers in left for number in numbers)
        yield (
            rung,
            [
                (number, job_to_run(sweep_dir, plan.jobs[number]))
                for number in numbers
                if not has_come_to(sweep_dir, plan.jobs[number], rung, criterion)
            ],
        )
        figures = [(figure_at(sweep_dir, plan, numbers, rung, criterion), numbers) for numbers in left]
        ranked = sorted(((criterion.cost(figure), numbers) for figure, numbers in figures if figure is not None))
        left = [numbers for _, numbers in ranked[: math.ceil(len(left) / plan.halving.factor)]]


def configurations(plan: Plan) -> Iterator[list[int]]:
    """The numbers of the jobs that are asked for, those together that differ in their seed only."""
    alike: dict[frozenset[tuple[str, str, str]], list[int]] = {}
    for number in plan.asked:
        settings = settings_of(plan.jobs[number].overrides)
        alike.setdefault(frozenset(each for each in settings if each[0] != SEED), []).append(number)
    yield from alike.values()


def has_come_to(sweep_dir: Path, job: PlannedJob, epoch: int, criterion: Criterion) -> bool:
    """Whether a job has nothing more to do up to an epoch."""
    folder = sweep_dir / job.folder
    status = read_status(folder)
    return status in FINISHED or (status == "interrupted" and max(curve_of(folder, criterion), default=0) >= epoch)


def curve_of(run_dir: Path, criterion: Criterion) -> dict[int, float]:
    """The figure by epoch, as far as the job has come."""
    (curve,), _ = read_curves(run_dir / "metrics.csv", [criterion.column])
    return curve


def figure_at(sweep_dir: Path, plan: Plan, numbers: Sequence[int], epoch: int, criterion: Criterion) -> float | None:
    """The best figure of a configuration up to an epoch, the mean over its seeds; None if a seed has none."""
    figures = []
    for number in numbers:
        folder = sweep_dir / plan.jobs[number].folder
        upto = [value for when, value in curve_of(folder, criterion).items() if when <= epoch]
        if not upto or read_status(folder) not in ("completed", "interrupted"):
            return None
        figures.append(min(upto, key=criterion.cost))
    return statistics.fmean(figures)
