"""The plan of a sweep: its jobs, their folders, which of them are still to do, and ``sweep.json``, which lists them."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Override

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import key_of, quoted, values_of
from fmnist_lit.run.files import read_json, write_json
from fmnist_lit.run.names import slug
from fmnist_lit.run.status import FINISHED, read_status


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep: its folder within the sweep's, and its overrides without those for Hydra itself."""

    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What ``sweep.json`` says.

    Attributes:
        command: the command line of the sweep, quoted for a shell.
        varied: the keys in which jobs differ.
        jobs: in the order in which they start; empty where the sweeper chooses them as it goes.
    """

    command: str
    varied: tuple[str, ...]
    jobs: tuple[PlannedJob, ...]


def all_jobs(overrides: Sequence[Override], varied: Sequence[str]) -> list[PlannedJob]:
    """Every combination of the values, in Hydra's order, in folders named by the ``varied`` keys."""
    task = [line for line in overrides if not line.is_hydra_override() and not line.key_or_group.startswith("sweep.")]
    combinations = itertools.product(*(values_of(override) for override in task))
    return [PlannedJob(folder_name(job, set(varied)), tuple(job)) for job in combinations]


def varied_keys(overrides: Sequence[Override], sweep_dir: Path) -> list[str]:
    """The keys that take more than one value, in this command or in an earlier one for the same folder."""
    earlier = read_json(sweep_dir / "sweep.json").get("varied", [])
    return list(dict.fromkeys([*earlier, *(line.key_or_group for line in overrides if line.is_sweep_override())]))


def folder_name(job: Sequence[str], varied: set[str]) -> str:
    """The folder of the job with these overrides: what varies, sorted by key."""
    return slug(",".join(sorted(line for line in job if key_of(line) in varied)))


def write_plan(sweep_dir: Path, command: str, varied: Sequence[str], jobs: Sequence[PlannedJob]) -> None:
    """Write ``sweep.json``, keeping the jobs that an earlier command planned.

    Raises:
        ConfigError: if a job of the same name was planned with other overrides.
    """
    file = sweep_dir / "sweep.json"
    known = {job["folder"]: job["overrides"] for job in read_json(file).get("jobs", [])}
    for job in jobs:
        if sorted(known.setdefault(job.folder, list(job.overrides))) != sorted(job.overrides):
            raise ConfigError(
                f"hydra.sweep.dir={sweep_dir}: its job {job.folder} is {' '.join(known[job.folder])}, "
                f"not {' '.join(job.overrides)}; name another folder"
            )
    content = {
        "command": command,
        "varied": list(varied),
        "jobs": [{"folder": folder, "overrides": overrides} for folder, overrides in known.items()],
    }
    write_json(file, content)


def read_plan(sweep_dir: Path) -> Plan:
    """What ``sweep.json`` says.

    Raises:
        OSError, ValueError, LookupError, TypeError: if it cannot be read, is no JSON, or says something else.
    """
    content = json.loads((sweep_dir / "sweep.json").read_bytes())
    jobs = (PlannedJob(str(job["folder"]), tuple(map(str, job["overrides"]))) for job in content["jobs"])
    return Plan(str(content["command"]), tuple(map(str, content["varied"])), tuple(jobs))


def still_to_do(sweep_dir: Path, batch: Sequence[Sequence[str]], varied: set[str]) -> Iterator[list[str]]:
    """Of a batch of jobs, those that have not ended; one that was interrupted resumes from its last checkpoint."""
    for job in batch:
        folder = sweep_dir / folder_name(job, varied)
        if read_status(folder) in FINISHED:
            continue
        checkpoint = folder / "checkpoints" / "last.ckpt"
        resumable = read_status(folder) in ("interrupted", "running") and checkpoint.is_file()
        yield [*job, *([f"ckpt_path={quoted(checkpoint.absolute())}"] if resumable else [])]
