"""How far a sweep is: the line that is said before each of its jobs."""

import time
from collections.abc import Iterable
from dataclasses import dataclass

from fmnist_lit.config.overrides import key_of
from fmnist_lit.sweep.halving import epochs_in_all
from fmnist_lit.sweep.plan import Plan
from fmnist_lit.sweep.table import SweepTable
from fmnist_lit.sweep.verdict import describe_settings

BAR = 20  # characters


@dataclass(frozen=True)
class Progress:
    """What is known of a sweep at a time.

    Attributes:
        plan: its jobs.
        best: the best configuration so far with its figure, in words; empty if no job has completed.
        share: of the jobs have ended, from 0 to 1; of a grid that is halved, of its epochs.
        seconds_left: how long the rest takes if it goes on as it went since the command was given; None if no job of
            this command has ended, or none has trained an epoch.
        time: of ``time.time``, when this was so.
    """

    plan: Plan
    best: str
    share: float
    seconds_left: float | None
    time: float

    @classmethod
    def of(cls, plan: Plan, table: SweepTable, begun: float) -> "Progress":
        """What a table tells; ``begun`` is when the sweep's command was given."""
        asked = {plan.jobs[number].folder for number in plan.asked}
        jobs = [job for job in table.jobs if job.folder in asked]
        halving = plan.halving
        done = {job.run_dir: max(job.curve, default=0) if halving else int(job.has_ended) for job in jobs}
        total = epochs_in_all(halving, len(jobs)) if halving else max(len(jobs), plan.trials)
        now, all_done = time.time(), min(total, sum(done.values()))
        by_this_command = sum(much for run_dir, much in done.items() if much and run_dir.stat().st_mtime > begun)
        left = (now - begun) / by_this_command * (total - all_done) if by_this_command else None
        best = ""
        if table.ranked:
            first = table.ranked[0]
            named = describe_settings(first.settings)
            best = first.criterion.shown(first.value) + (f" ({named})" if named else "")
        return cls(plan, best, all_done / max(1, total), left, now)

    def line(self, number: int, overrides: Iterable[str], *, bar: bool = False) -> str:
        """What to say before a job starts.

        Args:
            number: its place in the plan, from 0.
            overrides: its own, of which those are said that vary.
            bar: draw how much is done.
        """
        done = round(BAR * self.share)
        most = max(len(self.plan.jobs), self.plan.trials)  # a search samples its jobs as it goes
        total = f" of {most}" if number < most else ""
        drawn = f" [{'#' * done}{'-' * (BAR - done)}]" if bar else ""
        varied = " ".join(word for word in overrides if key_of(word) in self.plan.varied)
        until = [f"to epoch {word.partition('=')[2]}" for word in overrides if key_of(word) == "sweep.until_epoch"]
        parts = [f"job {number + 1}{total}{drawn}", varied, *until]
        if self.best:
            parts.append(f"best so far {self.best}")
        if self.seconds_left is not None:
            parts.append(f"about {duration(max(0.0, self.seconds_left - (time.time() - self.time)))} left")
        return " · ".join(filter(None, parts))


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    for length, unit in ((3600, "h"), (60, "min")):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
