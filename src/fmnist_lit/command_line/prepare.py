"""From the words of a command line to a checked configuration in a folder of its own."""

import argparse
import contextlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from fmnist_lit.command_line.compose import Composer, composer, options_of
from fmnist_lit.command_line.folders import claim, make_folder, require_room
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_configuration
from fmnist_lit.config.overrides import (
    as_given,
    expand_globs,
    first_values,
    merge,
    parse,
    quoted,
    representatives,
    without_repeats,
)
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.tree import plain
from fmnist_lit.processes import ranks
from fmnist_lit.run import resume
from fmnist_lit.run.find import find_initial
from fmnist_lit.run.latest import LATEST, latest_run


@dataclass(frozen=True)
class Start:
    """What a command line comes to: the run or sweep folder, and the overrides for Hydra."""

    folder: Path
    overrides: list[str]
    sweep_launcher: DictConfig | None = None  # of a sweep, the configuration of Hydra's launcher
    complete: bool = False  # resuming a run that has nothing left to do

    def run_folders(self) -> list[Path]:
        """The folders of the runs that have begun."""
        if self.sweep_launcher is None:
            return [self.folder]
        from fmnist_lit.sweep.plan import run_folders  # a run needs nothing of it

        return [self.folder / name for name in run_folders(self.folder)]


def check_sources(args: argparse.Namespace) -> None:
    """Refuse to read configurations from where reading them could run code."""
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun: not supported, it would load a pickle; give the overrides instead")
    for flag, value in (("--config-path", args.config_path), ("--config-name", args.config_name)):
        if value is not None:
            raise ConfigError(f"{flag}={value}: not supported; add a folder of configurations with --config-dir")
    for override in parse(args.overrides):
        if override.key_or_group == "hydra.searchpath" and re.search(r"pkg:|\$\{", as_given(override)):
            raise ConfigError(f"{override.input_line}: must be folders; a package would be imported")


def prepare_together(args: argparse.Namespace, place: ranks.Place, locks: contextlib.ExitStack) -> Start:
    """``prepare`` in rank 0, which alone writes; the others get what came of it, so that all share a folder.

    Raises:
        ConfigError: in rank 0, which says what is wrong for all.
        SystemExit: with 2, in the others then.
    """
    if place.rank:
        received = ranks.receive(place)
        if not received:
            raise SystemExit(2)
        folder, overrides, complete = json.loads(received)
        return Start(Path(folder), [*overrides, "hydra.output_subdir=null"], complete=complete)
    try:
        start = prepare(args, locks)
    except ConfigError:
        ranks.broadcast(place, "")
        raise
    ranks.broadcast(place, json.dumps([str(start.folder), start.overrides, start.complete]))
    return start


def prepare(args: argparse.Namespace, locks: contextlib.ExitStack) -> Start:
    """Check every configuration that the command line would run, then make its folder and lock it.

    Args:
        args: the command line.
        locks: to be closed when the run, or the sweep, has ended.

    Raises:
        ConfigError: if anything is not allowed; no folder is left behind.
    """
    with composer(args) as compose:
        given = expand_globs(parse(args.overrides), options_of(args))
        cfg = compose(*first_values(given))
        multirun = args.multirun or cfg.hydra.mode == RunMode.MULTIRUN
        if multirun and args.run:
            raise ConfigError(
                "--run: -m, hydra.mode=MULTIRUN and every study ask for a sweep; start that without --run, "
                "from Python with fmnist_lit.sweep"
            )
        if multirun:
            from fmnist_lit.command_line import sweeps  # a run needs nothing of it

            params = parse([f"{key}={value}" for key, value in (cfg.hydra.sweeper.get("params") or {}).items()])
            params = expand_globs(params, options_of(args))
            swept = without_repeats(merge(params, given))
            sweeps.require_sweepable(cfg, swept, params)
        elif several := [override for override in given if override.is_sweep_override()]:
            raise ConfigError(f"{several[0].input_line}: several values; add -m to run them all")
        else:
            swept = given
        if multirun and (place := ranks.outside()) is not None:
            raise ConfigError(
                f"-m under {place.starter}: start a sweep by itself, trainer=ddp starts the processes of each job"
            )
        for overrides in sweeps.checked_configurations(cfg, swept) if multirun else representatives(swept):
            cfg = compose.accept(parse(overrides))
            ranks.require_world_size(cfg)
            if cfg.init_from is not None:
                find_initial(cfg.init_from)
        if cfg.ckpt_path is not None:
            if {"ckpt_path", "init_from"} <= {override.key_or_group for override in given}:
                raise ConfigError(
                    f"init_from={cfg.init_from}: ckpt_path goes on with its own weights, give one of them"
                )
            if multirun:
                raise ConfigError(f"ckpt_path={cfg.ckpt_path}: resumes one run; it cannot be part of a sweep")
            run_dir, checkpoint = resume.locate(earlier_run(cfg))
            if run_dir is not None:
                return prepare_resume(run_dir, checkpoint, given, compose, locks)
        if multirun:
            sweeps.require_folders(cfg, swept, given, compose)
        key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        named = any(override.key_or_group == key for override in given)
        folder = make_folder(key, lambda: folder_of(compose(*first_values(given)), key), named, locks)
        overrides = [as_given(override) for override in given]
        if not named:
            overrides.append(f"{key}={quoted(folder)}")
        if cfg.ckpt_path is not None and not any(override.key_or_group == "ckpt_path" for override in given):
            overrides.append(f"ckpt_path={quoted(checkpoint)}")  # a file of configurations names it, maybe by ~
        if not multirun:
            return Start(folder, overrides)
        overrides += sweeps.plan_sweep(folder, sweeps.command_of(args), cfg, swept, given, compose)
        return Start(folder, overrides, sweep_launcher=cfg.hydra.launcher)


def earlier_run(cfg: DictConfig) -> str:
    """The run or checkpoint that ``ckpt_path`` names; of ``latest`` it is said which one that is.

    Raises:
        ConfigError: if there is none.
    """
    if cfg.ckpt_path != LATEST:
        return str(cfg.ckpt_path)
    folder = folder_of(cfg, "hydra.run.dir").parent
    newest = latest_run(folder)
    if newest is None:
        raise ConfigError(f"ckpt_path={LATEST}: there is no run with a checkpoint in {folder}")
    print(f"ckpt_path={LATEST} is {newest}")
    return str(newest)


def folder_of(cfg: DictConfig, key: str) -> Path:
    """The folder that a composed configuration names."""
    name = str(OmegaConf.select(cfg, key))
    return Path(expanded(name, f"{key}={name}"))


def prepare_resume(
    run_dir: Path, checkpoint: Path, given: Sequence[Override], compose: Composer, locks: contextlib.ExitStack
) -> Start:
    """Go on with the run that ``checkpoint`` belongs to, with its command line under the given one.

    In its own folder, unless the given command line names another.
    """
    own = ("ckpt_path", "hydra.run.dir")
    folder = run_dir
    if any(override.key_or_group == "hydra.run.dir" for override in given):
        folder = folder_of(compose(*first_values(given)), "hydra.run.dir").absolute()
    in_place = folder.resolve() == run_dir.resolve()
    under, over = (
        [override for override in overrides if override.key_or_group not in own]
        for overrides in (parse(resume.earlier_overrides(run_dir)), given)
    )
    overrides = [as_given(override) for override in merge(under, over)]
    overrides += [f"ckpt_path={quoted(checkpoint)}", f"hydra.run.dir={quoted(folder)}"]
    cfg = compose(*overrides)
    check_configuration(cfg)
    ranks.require_world_size(cfg)
    now = plain(cfg, resolve=False)
    del now["hydra"]
    earlier = resume.earlier_config(run_dir)
    resume.require_same(earlier, now, run_dir)
    if resume.is_complete(run_dir, earlier, now):
        return Start(run_dir, overrides, complete=True)
    overrides += resume.own_data(run_dir, checkpoint, cfg.data, {override.key_or_group for override in given})
    if in_place:
        require_room("ckpt_path", folder)
        claim("ckpt_path", folder, locks)
        overrides.append("hydra.output_subdir=null")  # Hydra writes over what is there; resume.keep_configuration
    else:
        make_folder("hydra.run.dir", lambda: folder, named=True, locks=locks)
    return Start(folder, overrides)
