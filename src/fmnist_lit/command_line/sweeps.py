"""What a command line does for a sweep that it does not do for a run: plan, lead, and sum up."""

import argparse
import contextlib
import copy
import dataclasses
import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit.command_line.messages import already_led, no_such_option
from fmnist_lit.config import ConfigError
from fmnist_lit.config.criterion import Criterion
from fmnist_lit.config.overrides import as_given, key_of, parse, quoted, representatives, values_of
from fmnist_lit.config.trust import VARIABLE, trust_words, trusted_packages
from fmnist_lit.processes import workers
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.run.files import read_json, remove_orphans
from fmnist_lit.run.names import shell_command
from fmnist_lit.run.status import has_ended
from fmnist_lit.run.study import STUDY
from fmnist_lit.sweep import plan
from fmnist_lit.sweep.halving import halving_of
from fmnist_lit.sweep.job_folders import facts_of, filled_in, is_too_long, require_inside, subdir_of
from fmnist_lit.sweep.job_loader import in_job
from fmnist_lit.sweep.jobs import CURVES
from fmnist_lit.sweep.search import check_search, folder_of_trial, require_same_study
from fmnist_lit.sweep.space import SearchSpace
from fmnist_lit.sweep.summary import summarize
from fmnist_lit.sweep.values import LABELS

SUMMARY = "++hydra.callbacks.summary._target_=fmnist_lit.sweep.callback.SummaryCallback"
FOR_THE_WHOLE = ("study", "select.metric", "select.mode", *LABELS)  # what a job takes, and cannot vary in a sweep
JOB_FACTS = re.compile(r"\$\{(hydra[.:]job\.(num|id|name|override_dirname)\}|job_name:)")
PLUGIN_SETTINGS = {
    "JoblibLauncher": "hydra.launcher.pre_dispatch=n_jobs",  # no job waits in a process that is about to stop
    "RayLauncher": "hydra.launcher.ray.remote.max_retries=0",  # what was killed goes on when the sweep is continued
}


def require_sweepable(cfg: DictConfig, swept: Sequence[Override], params: Sequence[Override]) -> None:
    """Refuse what the sweeper cannot make jobs of.

    The arguments are as for ``plan_sweep``; ``params`` is what a study adds to the command line.

    Raises:
        ConfigError: naming the first such override.
    """
    sweeper = cfg.hydra.runtime.choices["hydra/sweeper"]
    if sweeper == "optuna":
        raise ConfigError(no_such_option("hydra/sweeper", sweeper, ()))
    if is_search(cfg):
        check_search(cfg.hydra.sweeper)
    for override in params:
        if override.is_hydra_override():
            key = override.key_or_group
            raise ConfigError(f"hydra.sweeper.params: {key} is for the whole sweep; give it on the command line")
    for override in swept:
        line, key = as_given(override), override.key_or_group
        if override.is_sweep_override() and (plan.is_for_the_whole(key) or key in FOR_THE_WHOLE):
            raise ConfigError(f"{line}: several values; {key} has one for the whole sweep")
        if override.is_interval_sweep() and not is_search(cfg):
            raise ConfigError(
                f"{line}: hydra/sweeper={sweeper} takes values, not an interval; list some, as in "
                f"{override.get_key_element()}={','.join(value.partition('=')[2] for value in values_of(override))}, "
                "or sample it with hydra/sweeper=search"
            )
    if cfg.sweep.halving:
        require_halving(cfg, swept)
    if is_search(cfg):
        space_of(cfg, swept)
    limits = {"sweeper.max_batch_size": cfg.hydra.sweeper, "launcher.max_members": cfg.hydra.launcher}
    for key, node in limits.items():
        size = node.get(key.partition(".")[2])
        if size is not None and (type(size) is not int or size < 1):
            raise ConfigError(f"hydra.{key}={size}: must be a whole number from 1, or null for no limit")


def require_halving(cfg: DictConfig, swept: Sequence[Override]) -> None:
    """Refuse to halve jobs that cannot be compared in the middle; the arguments are as for ``plan_sweep``.

    Raises:
        ConfigError: saying why.
    """
    told, criterion = f"sweep.halving={cfg.sweep.halving}", Criterion.of(cfg.select)
    if is_search(cfg):
        raise ConfigError(f"{told}: is for a grid; a search has hydra.sweeper.pruner=halving")
    for override in swept:
        if override.is_sweep_override() and override.key_or_group in ("trainer.max_epochs", "trainer.max_steps"):
            raise ConfigError(f"{told}: all jobs must be of one length, not {as_given(override)}")
    if cfg.trainer.max_steps != -1 or cfg.trainer.max_epochs < cfg.sweep.halving:
        raise ConfigError(
            f"{told}: needs trainer.max_epochs of {cfg.sweep.halving} or more, and no trainer.max_steps; "
            f"they are {cfg.trainer.max_epochs} and {cfg.trainer.max_steps}"
        )
    if criterion.column not in CURVES:
        raise ConfigError(f"{told}: select.metric={criterion.metric} has no column in metrics.csv to compare")


def is_search(cfg: DictConfig) -> bool:
    """Whether a sweep samples its jobs."""
    return "SearchSweeper" in cfg.hydra.sweeper._target_


def space_of(cfg: DictConfig, swept: Sequence[Override]) -> SearchSpace:
    """What a search samples from; the arguments are as for ``plan_sweep``."""
    return SearchSpace.of(swept, cfg.hydra.sweeper.when or ())


def checked_configurations(cfg: DictConfig, swept: Sequence[Override]) -> Iterator[list[str]]:
    """The command lines of jobs that are checked before any of them runs; the arguments are as for ``plan_sweep``."""
    return space_of(cfg, swept).corners() if is_search(cfg) else representatives(swept)


def require_folders(
    cfg: DictConfig, swept: Sequence[Override], given: Sequence[Override], compose: Callable[..., DictConfig]
) -> None:
    """Refuse jobs that cannot have a folder, before there is one; the arguments are as for ``plan_sweep``.

    Raises:
        ConfigError: naming the first folder that is not possible.
    """
    if is_search(cfg):
        subdir_of_samples(given)
        space = space_of(cfg, swept)
        folder_of_trial(cfg.hydra, 0, next(space.corners()), space.keys)
        require_same_study(Path(cfg.hydra.sweep.dir), space, Criterion.of(cfg.select))
        return
    varied = [override.key_or_group for override in swept if override.is_sweep_override()]
    _, folder_of = folder_namer(cfg, varied, swept, given, compose)
    for number, job in enumerate(plan.combinations(swept)):
        folder_of(number, job)


def plan_sweep(
    folder: Path,
    command: Sequence[str],
    cfg: DictConfig,
    swept: Sequence[Override],
    given: Sequence[Override],
    compose: Callable[..., DictConfig],
) -> list[str]:
    """Write ``sweep.json``.

    Args:
        folder: the sweep's.
        command: the words of a command line that does the same.
        cfg: the configuration of one of its jobs, with the ``hydra`` node.
        swept: the command line with what a study adds.
        given: the command line alone.
        compose: gives the configuration that overrides make.

    Returns:
        The overrides that Hydra needs beside those of the command line.

    Raises:
        ConfigError: if another sweep is in the folder, a job runs in it, or a job cannot have a folder.
    """
    is_grid = not is_search(cfg)
    given_keys = {override.key_or_group for override in given}
    if workers.jobs_alive(folder):
        raise ConfigError(already_led(folder))
    for place in (folder, folder / "plots"):
        remove_orphans(place)
    overrides = [SUMMARY]
    was_search = (folder / STUDY).exists() or "trials" in read_json(folder / "sweep.json")
    if was_search == is_grid and plan.run_folders(folder):
        held = "search" if was_search else "grid"
        raise ConfigError(f"hydra.sweep.dir={folder}: holds a {held}; name another folder")
    if not is_grid:
        overrides += subdir_of_samples(given)
    overrides += [
        f"++{setting.format(select=cfg.select)}"
        for plugin, setting in PLUGIN_SETTINGS.items()
        if plugin in (cfg.hydra.launcher._target_ + cfg.hydra.sweeper._target_) and key_of(setting) not in given_keys
    ]
    varied = plan.varied_keys(swept, folder)
    if trusted_packages():  # for workers that do not inherit the environment, such as Ray's on another machine
        overrides.append(f"++hydra.job.env_set.{VARIABLE}={quoted(','.join(trusted_packages()))}")
    if not is_grid:
        plan.plan_search(
            folder,
            shlex.join(command),
            space_of(cfg, swept).keys,
            cfg.hydra.sweeper.n_trials,
            [as_given(override) for override in swept],
        )
        return overrides
    exclude, folder_of = folder_namer(cfg, varied, swept, given, compose)
    overrides.append(exclude)
    planned = plan.write_plan(folder, shlex.join(command), varied, plan.combinations(swept), folder_of)
    if cfg.sweep.halving:
        halving = halving_of(planned, cfg.sweep.halving, cfg.trainer.max_epochs)
        plan.save_plan(folder, dataclasses.replace(planned, halving=halving))
    say_what_is_equal(swept)
    return overrides


def subdir_of_samples(given: Sequence[Override]) -> list[str]:
    """The override for the folders of jobs that a sweeper chooses as it goes; two of them may be alike."""
    for override in given:
        if override.key_or_group == "hydra.sweep.subdir":
            if not re.search(r"\$\{hydra[.:]job\.(num|id)\}", as_given(override)):
                raise ConfigError(
                    f"{as_given(override)}: samples may be alike; have ${{hydra.job.num}} in it to tell them apart"
                )
            return []
    return ["hydra.sweep.subdir='${hydra.job.num}_${job_name:${hydra.job.override_dirname}}'"]


def say_what_is_equal(swept: Sequence[Override]) -> None:
    """Tell of values that are one job although they were given twice."""
    for override in swept:
        values = values_of(override)
        if len({plan.setting_of(value) for value in values}) < len(values):
            print(f"{as_given(override)}: equal values are one job")


def folder_namer(
    cfg: DictConfig,
    varied: Sequence[str],
    swept: Sequence[Override],
    given: Sequence[Override],
    compose: Callable[..., DictConfig],
) -> tuple[str, Callable[[int, Sequence[str]], str]]:
    """What names a job's folder by its number and its overrides, as ``hydra.sweep.subdir`` says.

    The arguments are as for ``plan_sweep``; ``varied`` are the keys in which jobs differ.

    Returns:
        The override that makes ``hydra.job.override_dirname`` what varies; and the function.
    """
    unnamed = [override.key_or_group for override in swept if override.key_or_group not in varied]
    unnamed = [*dict.fromkeys([*unnamed, "ckpt_path", *cfg.hydra.job.config.override_dirname.exclude_keys])]
    exclude = f"hydra.job.config.override_dirname.exclude_keys={unnamed}"
    for_hydra = [as_given(override) for override in given if override.is_hydra_override()]
    subdir = subdir_of(cfg.hydra)
    needs_config = "${" in JOB_FACTS.sub("", subdir)

    def folder_of(number: int, overrides: Sequence[str]) -> str:
        facts = facts_of(cfg.hydra, number, (line for line in overrides if key_of(line) not in unnamed))
        try:
            folder = (
                with_facts(compose(*for_hydra, exclude, *overrides), facts)
                if needs_config
                else filled_in(subdir, facts)
            )
        except OmegaConfBaseException as error:
            raise ConfigError(f"hydra.sweep.subdir={subdir}: {str(error).splitlines()[0]}") from error
        require_inside(folder)
        if is_too_long(folder):
            raise ConfigError(f"hydra.sweep.subdir={folder}: too long for the name of a folder")
        return Path(folder).as_posix()

    return exclude, folder_of


def with_facts(cfg: DictConfig, facts: Mapping[str, Any]) -> str:
    """``hydra.sweep.subdir`` of a job's configuration, with what its launcher would set."""
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, "hydra.job", facts)
    with in_job(cfg):
        return str(OmegaConf.select(cfg, "hydra.sweep.subdir"))


def command_of(args: argparse.Namespace) -> list[str]:
    """The words of a command line that does the same in whatever folder it is given.

    Only what names configurations is made absolute; other paths, such as ``data.data_dir``, are part of what a job is.
    """
    words = ["python", "-m", "fmnist_lit", *trust_words()]
    if args.config_dir:
        words += ["--config-dir", str(Path(args.config_dir).absolute())]
    if args.multirun:
        words.append("-m")
    for word in args.overrides:
        (override,) = parse([word])
        folders = override.value()
        if override.key_or_group == "hydra.searchpath" and isinstance(folders, list):
            absolute = (name if "://" in str(name) else str(Path(str(name)).absolute()) for name in folders)
            word = f"{override.get_key_element()}=[{','.join(quoted(name) for name in absolute)}]"
        words.append(word)
    return words


@contextlib.contextmanager
def leading_sweep(folder: Path, launcher: DictConfig) -> Iterator[None]:
    """Lead the jobs of a sweep, and write and show its summary however it ends.

    Raises:
        SystemExit: with 128 + the number of a signal that came between two jobs.
    """
    by_signal = False
    with workers.leading(folder, launcher):
        try:
            yield
        except SystemExit as end:
            by_signal = isinstance(end.code, int) and end.code >= 128
            raise
        except (InterruptedRunError, KeyboardInterrupt):
            by_signal = True
            signum = signal.Signals(stop_request.signum or signal.SIGINT)
            print(f"Interrupted by {signum.name}.", file=sys.stderr)
            raise SystemExit(128 + signum) from None
        finally:
            workers.wait_for_submitted_jobs(folder)
            conclude(folder, charts=not by_signal)  # a signal does not wait for them


def conclude(sweep_dir: Path, charts: bool) -> None:
    """Write a sweep's summary however it ended, and show it."""
    try:
        summary = summarize([sweep_dir], charts=charts)
    except OSError as error:  # a full disk
        print(f"error: {sweep_dir}: the summary cannot be written: {error}", file=sys.stderr)
        return
    print(f"\n{summary.text}\n\nsummary.html, summary.md, summary.csv and plots are in {sweep_dir}")
    planned = plan.read_plan(sweep_dir)
    unasked = len(planned.asked) < planned.trials
    if unasked or not all(has_ended(sweep_dir / planned.jobs[number].folder) for number in planned.asked):
        words = [word for word in shlex.split(planned.command) if key_of(word) != "hydra.sweep.dir"]
        words.append(f"hydra.sweep.dir={quoted(sweep_dir.absolute())}")
        print(f"To go on with what is missing: {shell_command(words)}")
