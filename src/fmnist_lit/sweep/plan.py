"""The plan of a sweep, ``sweep.json``: its jobs, their folders and their order, which is what Hydra is made to run."""

import functools
import hashlib
import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import key_of, quoted, values_of
from fmnist_lit.run.files import read_json, write_json
from fmnist_lit.run.status import has_ended, read_status
from fmnist_lit.sweep.jobs import yaml_or_none
from fmnist_lit.sweep.values import LABELS

OWN_NAMES = (
    *("plots", "summary.csv", "summary.md", "summary.html", "sweep.json", "multirun.yaml", "study.log"),
    *(".submitit", ".lock"),
)
PARSER = OverridesParser.create()

Setting = tuple[str, str, str]  # the key; the key with what removes or places it; the value


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep: its folder within the sweep's, and its overrides without those for Hydra itself."""

    folder: str
    overrides: tuple[str, ...]


@dataclass(frozen=True)
class Halving:
    """How the jobs of a grid become fewer.

    Attributes:
        factor: one in so many configurations goes on.
        rungs: after how many epochs, and last the full length.
    """

    factor: int
    rungs: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """What ``sweep.json`` says.

    Attributes:
        command: the command line of the sweep, quoted for a shell.
        varied: the keys in which jobs differ.
        jobs: of this command and of earlier ones for the same folder, in the order in which they start; the number of
            a job is its place. Empty where the sweeper chooses them as it goes.
        asked: the numbers of those that the last command asks for.
        trials: how many jobs a search comes to, which samples them as it goes; 0 for a grid.
        space: of a search, the command line with what a study adds.
        halving: of a grid, if its jobs become fewer as they train.
    """

    command: str
    varied: tuple[str, ...]
    jobs: tuple[PlannedJob, ...]
    asked: tuple[int, ...]
    trials: int = 0
    space: tuple[str, ...] = ()
    halving: Halving | None = None


def combinations(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """Every combination of the values, in Hydra's order, without what is for Hydra or the sweep as a whole."""
    task = [line for line in overrides if not is_for_the_whole(line.key_or_group)]
    return list(itertools.product(*(values_of(override) for override in task)))


def is_for_the_whole(key: str) -> bool:
    """Whether a key is for the sweep, or for Hydra, and cannot differ between jobs."""
    return key.split(".")[0].split("/")[0] in ("hydra", "sweep")


def varied_keys(overrides: Sequence[Override], sweep_dir: Path) -> list[str]:
    """The keys that take more than one value, in this command or in an earlier one for the same folder."""
    earlier = read_json(sweep_dir / "sweep.json").get("varied", [])
    return list(dict.fromkeys([*earlier, *(line.key_or_group for line in overrides if line.is_sweep_override())]))


@functools.cache
def setting_of(line: str) -> Setting:
    """What an override sets; equal for ``0.1`` and ``1e-1``, not for ``1`` and ``1.0``, which Lightning tells apart."""
    try:
        parsed = PARSER.parse_override(line)
    except (HydraException, RecursionError):
        return key_of(line), key_of(line), line
    deletes = "~" if parsed.is_delete() else ""
    place = f"@{parsed.package}" if parsed.package else ""
    return parsed.key_or_group, f"{deletes}{parsed.key_or_group}{place}", repr(parsed.value())


def settings_of(overrides: Iterable[str]) -> frozenset[Setting]:
    """What a job is recognised by: all it sets, whatever the order and the spelling; the last one of a key counts."""
    settings = {name: (key, name, value) for key, name, value in map(setting_of, overrides)}
    others = ("ckpt_path", *LABELS)
    return frozenset(s for s in settings.values() if not is_for_the_whole(s[0]) and s[0] not in others)


def write_plan(
    sweep_dir: Path,
    command: str,
    varied: Sequence[str],
    jobs: Sequence[Sequence[str]],
    folder_of: Callable[[int, Sequence[str]], str],
) -> Plan:
    """Write ``sweep.json``: the jobs that earlier commands planned, where they are, and then those that are new.

    Jobs that set the same are one. A folder whose name is taken, also where a file system tells no upper case from
    lower, gets a suffix made of what the job sets.

    Args:
        sweep_dir: the sweep's folder.
        command: the command line, quoted for a shell.
        varied: the keys in which jobs differ.
        jobs: the overrides of each job that the command asks for.
        folder_of: the name of the folder for a number and overrides.

    Raises:
        ConfigError: if an earlier command planned a job that varies to the same values with other overrides.
    """
    planned = known_jobs(sweep_dir)
    numbers = {settings_of(job.overrides): number for number, job in enumerate(planned)}
    earlier = {varied_part(settings, varied): number for settings, number in numbers.items()}
    taken = {comparable(name) for name in [*OWN_NAMES, *(job.folder for job in planned)]}
    asked = []
    for overrides in jobs:
        settings = settings_of(overrides)
        if settings not in numbers:
            if (number := earlier.get(varied_part(settings, varied))) is not None:
                raise ConfigError(conflict(sweep_dir, planned[number], overrides))
            folder = folder_of(len(planned), overrides)
            if comparable(folder) in taken:
                folder += f"_{hashlib.sha256(repr(sorted(settings)).encode()).hexdigest()[:8]}"
            taken.add(comparable(folder))
            numbers[settings] = len(planned)
            planned.append(PlannedJob(folder, ()))
        number = numbers[settings]
        planned[number] = PlannedJob(planned[number].folder, tuple(overrides))  # as this command spells them
        asked.append(number)
    plan = Plan(command, tuple(varied), tuple(planned), tuple(sorted(set(asked))))
    save_plan(sweep_dir, plan)
    return plan


def plan_search(sweep_dir: Path, command: str, varied: Sequence[str], trials: int, space: Sequence[str]) -> Plan:
    """Write the ``sweep.json`` of a search, with the jobs that an earlier command of it listed.

    Args:
        sweep_dir: the sweep's folder.
        command: the command line, quoted for a shell.
        varied: the keys in which jobs may differ.
        trials: how many jobs there are to be.
        space: the command line with what a study adds.
    """
    try:
        jobs = read_plan(sweep_dir).jobs
    except (OSError, ValueError, LookupError, TypeError):  # the study has them too
        jobs = ()
    plan = Plan(command, tuple(varied), jobs, tuple(range(min(len(jobs), trials))), trials, tuple(space))
    save_plan(sweep_dir, plan)
    return plan


def save_plan(sweep_dir: Path, plan: Plan) -> None:
    """Write ``sweep.json``."""
    listed = [{"folder": job.folder, "overrides": list(job.overrides)} for job in plan.jobs]
    content: dict[str, Any] = {
        "command": plan.command,
        "varied": list(plan.varied),
        "jobs": listed,
        "asked": list(plan.asked),
    }
    if plan.trials:
        content |= {"trials": plan.trials, "space": list(plan.space)}
    if plan.halving:
        content["halving"] = asdict(plan.halving)
    write_json(sweep_dir / "sweep.json", content)


def varied_part(settings: frozenset[Setting], varied: Sequence[str]) -> frozenset[Setting]:
    """Of what a job sets, what varies in the sweep."""
    return frozenset(setting for setting in settings if setting[0] in varied)


def comparable(folder: str) -> str:
    """A name as the least discerning of file systems compares it."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", folder).casefold())


def conflict(sweep_dir: Path, job: PlannedJob, overrides: Sequence[str]) -> str:
    """An error text for a job that was planned with other overrides."""
    old, new = settings_of(job.overrides), settings_of(overrides)
    has = [line for line in job.overrides if setting_of(line) in old - new]
    wanted = [line for line in overrides if setting_of(line) in new - old]
    return (
        f"hydra.sweep.dir={sweep_dir}: its job {job.folder} has {' '.join(has) or 'nothing for that'}, "
        f"not {' '.join(wanted) or 'the default'}; name another folder"
    )


def known_jobs(sweep_dir: Path) -> list[PlannedJob]:
    """The jobs of earlier commands: as ``sweep.json`` lists them, and in which folders they are.

    Where ``hydra.sweep.subdir`` was set, version 0.1 listed other folders than Hydra used; a damaged file lists none.
    """
    try:
        jobs = [job for job in read_plan(sweep_dir).jobs if is_inside(job.folder)]
    except (OSError, ValueError, LookupError, TypeError):
        jobs = []
    places = {settings_of(job.overrides): place for place, job in enumerate(jobs)}
    listed = {job.folder for job in jobs}
    for folder in run_folders(sweep_dir):
        lines = None if folder in listed else yaml_or_none(sweep_dir / folder / ".hydra" / "overrides.yaml")
        if isinstance(lines, list):
            overrides = tuple(map(str, lines))
            place = places.setdefault(settings_of(overrides), len(jobs))
            if place == len(jobs):
                jobs.append(PlannedJob(folder, overrides))
            elif not (sweep_dir / jobs[place].folder).exists():
                jobs[place] = PlannedJob(folder, jobs[place].overrides)
    return jobs


def is_inside(folder: str) -> bool:
    """Whether a name is that of a folder below the one it is relative to."""
    path = Path(folder)
    return not path.is_absolute() and not path.drive and ".." not in path.parts and path != Path()


def read_plan(sweep_dir: Path) -> Plan:
    """What ``sweep.json`` says.

    Raises:
        OSError, ValueError, LookupError, TypeError: if it cannot be read, is no JSON, or says something else.
    """
    content = json.loads((sweep_dir / "sweep.json").read_bytes())
    jobs = tuple(PlannedJob(str(job["folder"]), tuple(map(str, job["overrides"]))) for job in content["jobs"])
    asked = content.get("asked", range(len(jobs)))  # version 0.1 did not say
    of_search = int(content.get("trials", 0)), tuple(map(str, content.get("space", ())))
    halving = content.get("halving")
    halving = halving and Halving(int(halving["factor"]), tuple(map(int, halving["rungs"])))
    varied = tuple(map(str, content["varied"]))
    return Plan(str(content["command"]), varied, jobs, tuple(map(int, asked)), *of_search, halving)


def run_folders(sweep_dir: Path) -> list[str]:
    """The run folders in a sweep's folder, relative to it; deeper ones too where a plan may have laid them there.

    Raises:
        OSError: if it is no folder that can be read.
    """
    deep = (sweep_dir / "sweep.json").exists()
    waiting, found = [sweep_dir], []
    while waiting:
        for folder in sorted(entry for entry in waiting.pop().iterdir() if entry.is_dir()):
            if (folder / ".hydra").is_dir() or (folder / "results.json").exists():
                found.append(folder.relative_to(sweep_dir).as_posix())
            elif deep and folder.name not in OWN_NAMES:
                waiting.append(folder)
    return found


def still_to_do(sweep_dir: Path, plan: Plan) -> Iterator[tuple[int, list[str]]]:
    """The jobs that the last command asks for and that have not ended, as numbers and overrides for Hydra."""
    for number in plan.asked:
        if not has_ended(sweep_dir / plan.jobs[number].folder):
            yield number, job_to_run(sweep_dir, plan.jobs[number])


def job_to_run(sweep_dir: Path, job: PlannedJob) -> list[str]:
    """The overrides for Hydra of a job, which resumes from its last checkpoint if it was interrupted."""
    folder = sweep_dir / job.folder
    checkpoint = folder / "checkpoints" / "last.ckpt"
    resumable = read_status(folder) in ("interrupted", "running") and checkpoint.is_file()
    resumed = [f"ckpt_path={quoted(checkpoint.absolute())}"] if resumable else []
    return [*job.overrides, *resumed, f"hydra.sweep.subdir={quoted(Path(job.folder))}"]
