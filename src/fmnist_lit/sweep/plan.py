"""The jobs of a sweep: what they are called, which of them are still to do, and the file that lists them."""

import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.config import ConfigError
from fmnist_lit.files import read_json, write_json
from fmnist_lit.status import FINISHED

LONGEST_NAME = 160  # bytes; file systems stop at 255


@dataclass(frozen=True)
class Job:
    """A run of a sweep: its folder within the sweep's, and the overrides that make it, without the sweep's own."""

    folder: str
    overrides: tuple[str, ...]


def values(override: Override) -> list[str]:
    """Each value that an override takes, as an override of its own; of an interval, the ends."""
    if not override.is_sweep_override():
        return [override.input_line]
    if override.is_discrete_sweep():
        return [f"{override.get_key_element()}={value}" for value in override.sweep_string_iterator()]
    interval = override.value()
    return [f"{override.get_key_element()}={end}" for end in (interval.start, interval.end)]


def jobs(overrides: Sequence[Override], varied: Sequence[str]) -> list[Job]:
    """Every combination of the values, in Hydra's order, in folders named by the ``varied`` keys."""
    task = [line for line in overrides if not line.is_hydra_override() and not line.key_or_group.startswith("sweep.")]
    combinations = itertools.product(*(values(override) for override in task))
    return [Job(folder_name(job, set(varied)), tuple(job)) for job in combinations]


def varied_keys(overrides: Sequence[Override], sweep_dir: Path) -> list[str]:
    """The keys that take more than one value, in this command or in an earlier one for the same folder."""
    earlier = read_json(sweep_dir / "sweep.json").get("varied", [])
    return list(dict.fromkeys([*earlier, *(line.key_or_group for line in overrides if line.is_sweep_override())]))


def varied_in_job(hydra: DictConfig) -> list[str]:
    """The keys that vary in the sweep that a job is of, from the job's ``hydra`` node; none outside a sweep."""
    if hydra.mode != RunMode.MULTIRUN:
        return []
    fixed = hydra.job.config.override_dirname.exclude_keys
    return [name for name in map(key, hydra.overrides.task) if name not in fixed]


def folder_name(job: Sequence[str], varied: set[str]) -> str:
    """The folder of the job with these overrides: what varies, sorted by key."""
    return slug(",".join(sorted(line for line in job if key(line) in varied)))


def key(line: str) -> str:
    """The key of an override as written on a command line."""
    return line.split("=", 1)[0].lstrip("+~")


def slug(text: str) -> str:
    """Text as a folder name; what a file system or a shell would trip over becomes _."""
    name = re.sub(r"[^\w.=,+-]+", "_", text) or "defaults"
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return (
        f"{name.encode()[: LONGEST_NAME - 9].decode(errors='ignore')}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"
    )


OmegaConf.register_new_resolver("job_name", slug)  # in every process that runs a job


def save(sweep_dir: Path, command: str, varied: Sequence[str], planned: Sequence[Job]) -> None:
    """Write ``sweep.json``, keeping the jobs that an earlier command planned.

    Raises:
        ConfigError: if a job of the same name was planned with other overrides.
    """
    file = sweep_dir / "sweep.json"
    known = {job["folder"]: job["overrides"] for job in read_json(file).get("jobs", [])}
    for job in planned:
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


def planned(sweep_dir: Path) -> list[dict[str, Any]]:
    """The jobs in ``sweep.json``: the folder and the overrides of each."""
    return json.loads((sweep_dir / "sweep.json").read_text())["jobs"]


def still_to_do(sweep_dir: Path, batch: Sequence[Sequence[str]], varied: set[str]) -> Iterator[list[str]]:
    """Of a batch of jobs, those that have not ended; one that was interrupted goes on from its last checkpoint."""
    for job in batch:
        folder = sweep_dir / folder_name(job, varied)
        if status(folder) in FINISHED:
            continue
        checkpoint = folder / "checkpoints" / "last.ckpt"
        resumable = status(folder) in ("interrupted", "running") and checkpoint.is_file()
        yield [*job, *([f"ckpt_path='{checkpoint.absolute()}'"] if resumable else [])]


def status(run_dir: Path) -> str | None:
    """The status in a run folder; None if it has none that can be read."""
    return read_json(run_dir / "results.json").get("status")
