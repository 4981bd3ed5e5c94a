"""Which jobs of a sweep train as one batched model, and why the others train by themselves."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit.config.check import TRACKERS
from fmnist_lit.config.tree import plain
from fmnist_lit.processes import ranks
from fmnist_lit.sweep.job_loader import in_job

GROUPS = ("model", "data", "trainer")  # that jobs of a stack have in common, but for these keys; others may differ
MAY_DIFFER = {
    "model": ("dropout",),
    "trainer": (
        *("max_epochs", "max_steps", "max_time", "gradient_clip_val", "gradient_clip_algorithm"),
        *("accumulate_grad_batches", "checkpoint_every_n_steps"),
    ),
}
NOT_ALIKE = "no other job has the same model, data and trainer"


@dataclass(frozen=True)
class Stacking:
    """How jobs, named by their places among those to launch, are put together.

    Attributes:
        stacks: the jobs of each stack; a job that trains by itself is a stack of one.
        reasons: of those, why.
    """

    stacks: list[list[int]]
    reasons: dict[int, str]

    def told(self, numbers: Sequence[int]) -> list[str]:
        """What to say of it, a line each; ``numbers`` are those of the jobs in the sweep, from 0."""
        together = [
            f"stacked: jobs {spans_of(numbers[job] for job in jobs)} train as one model of {len(jobs)}"
            for jobs in self.stacks
            if len(jobs) > 1
        ]
        by_reason: dict[str, list[int]] = defaultdict(list)
        for job, reason in self.reasons.items():
            by_reason[reason].append(numbers[job])
        return together + [
            f"not stacked: job{'s' * (len(alone) > 1)} {spans_of(alone)}: {reason}"
            for reason, alone in by_reason.items()
        ]


def stacks(configurations: Iterable[DictConfig], max_members: int | None) -> Stacking:
    """Put jobs together, in the order of the first of each stack; ``max_members`` is the most in one, if there is."""
    alike: dict[str, list[int]] = defaultdict(list)
    reasons: dict[int, str] = {}
    for job, cfg in enumerate(configurations):
        try:
            reason, same = why_by_itself(cfg), what_is_the_same(cfg)
        except OmegaConfBaseException as error:
            reason = f"not all of it is known before it runs: {str(error).splitlines()[0]}"
        if reason is not None:
            reasons[job], same = reason, f"job {job}"
        alike[same].append(job)
    most = max_members or max(map(len, alike.values()))
    parts = [jobs[first : first + most] for jobs in alike.values() for first in range(0, len(jobs), most)]
    for jobs in parts:
        if len(jobs) == 1:
            reasons.setdefault(jobs[0], NOT_ALIKE)
    return Stacking(sorted(parts), dict(sorted(reasons.items())))


def what_is_the_same(cfg: DictConfig) -> str:
    """All of a job's configuration that its stack has in common, in words.

    Raises:
        OmegaConfBaseException: if it refers to what Hydra fills in when the job runs.
    """
    with in_job(cfg):
        same: dict[str, Any] = {group: plain(cfg[group], resolve=True) for group in GROUPS}
        same["num_threads"] = cfg.num_threads
    for group, keys in MAY_DIFFER.items():
        same[group] = {key: value for key, value in same[group].items() if key not in keys}
    return json.dumps(same, sort_keys=True, default=str)


def why_by_itself(cfg: DictConfig) -> str | None:
    """What about a job cannot be stacked; None if nothing is known before it runs."""
    if cfg.model._target_ != "fmnist_lit.model.MLP":
        return f"model._target_={cfg.model._target_}, only fmnist_lit.model.MLP can be stacked"
    if cfg.trainer.precision != "32-true":
        return f"trainer.precision={cfg.trainer.precision}, only 32-true can be stacked"
    if ranks.num_processes(cfg) > 1:
        return f"trainer.devices={cfg.trainer.devices}, only runs on one device can be stacked"
    if cfg.trainer.steps_per_batch == 1 or cfg.debug:
        why = f"debug={cfg.debug}" if cfg.debug else "trainer.steps_per_batch=1"
        return f"{why}, which is for looking at single steps"
    trackers = [node._target_ for node in cfg.logger.values() if node and node.get("_target_") in TRACKERS]
    return f"{trackers[0]} follows one run a process" if trackers else None


def spans_of(numbers: Iterable[int]) -> str:
    """Numbers of jobs as people count them, spans of them in short."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][-1]:
            spans[-1][-1] += 1
        else:
            spans.append([number, number + 1])
    return ", ".join(f"{first + 1}" if end == first + 1 else f"{first + 1}–{end}" for first, end in spans)
