"""From a command line to a checked configuration in a folder of its own, and from there to Hydra."""

import argparse
import contextlib
import difflib
import functools
import itertools
import json
import math
import os
import re
import secrets
import shlex
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import filelock
import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fmnist_lit import config, ranks, resume
from fmnist_lit.config import ConfigError
from fmnist_lit.run import run
from fmnist_lit.signals import InterruptedRunError, stop_request
from fmnist_lit.status import EXIT_CODES, FINISHED
from fmnist_lit.sweep import plan, workers

INSTALLED_CONF = Path(__file__).parent / "conf"
CONF = INSTALLED_CONF if INSTALLED_CONF.is_dir() else Path(__file__).parents[2] / "conf"

PATH_KEYS = ("ckpt_path", "hydra.run.dir", "hydra.sweep.dir")  # which never take several values
LEAST_ROOM = 65_536  # bytes, of what a run writes before it trains
CHECK_ALL = 24  # jobs; composing a configuration takes about 40 ms, and each job is checked again before it runs


# Hydra's plugins that are extras in pyproject.toml, and what they have to be told
EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=submitit_local": "submitit",
    "hydra/launcher=submitit_slurm": "submitit",
    "hydra/launcher=ray": "ray",
    "hydra/sweeper=optuna": "optuna",
}
PLUGIN_SETTINGS = {
    "JoblibLauncher": "hydra.launcher.pre_dispatch=n_jobs",  # no job waits in a process that is about to stop
    "RayLauncher": "hydra.launcher.ray.remote.max_retries=0",  # what was killed goes on when the sweep is continued
    "OptunaSweeper": "hydra.sweeper.direction=maximize",  # the validation accuracy
}


def unique(overrides: str = "") -> str:
    """The end of a new folder's name: what was overridden, for people to recognise it by, and a random part."""
    return "_".join(filter(None, [plan.slug(overrides)[:80] if overrides else "", secrets.token_hex(3)]))


OmegaConf.register_new_resolver("unique", unique)

Compose = Callable[..., DictConfig]  # of overrides


def launch(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 0 completed, 1 failed or diverged, 2 a bad configuration, 128 + the number of a signal.
    """
    args = get_args_parser().parse_intermixed_args(list(arguments))
    flags = [argument for argument in arguments if argument not in args.overrides]
    args.overrides = [path_as_typed(word) for word in args.overrides]
    if not os.environ.get("FMNIST_DATA_DIR"):
        os.environ.pop("FMNIST_DATA_DIR", None)  # empty is as good as unset
    try:
        check_sources(args)
        if args.cfg:  # Hydra's own words for what cannot be composed fill a screen
            with composer(args) as compose:
                compose(*first_values(parse(args.overrides)))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run)
    place = ranks.outside()
    follows = place is not None and place.rank > 0
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        if not follows:
            main()
        return 0
    try:
        start = prepare(args) if place is None else prepare_together(args, place)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if start.complete:
        if not follows:
            print(f"{start.folder} is complete; a higher trainer.max_epochs goes on with it")
        return 0
    sys.argv[1:] = [*flags, *start.overrides]
    ended = None
    leading = workers.leading(start.folder, start.launcher) if start.is_sweep else contextlib.nullcontext()
    try:
        with leading:
            try:
                main()
            except SystemExit as end:  # a signal, a refusal, fail_fast, or a launcher that gave up
                ended = end.code
            except (InterruptedRunError, KeyboardInterrupt):  # between two jobs, or before the first
                signum = signal.Signals(stop_request.signum or signal.SIGINT)
                print(f"Interrupted by {signum.name}.", file=sys.stderr)
                ended = 128 + signum
            finally:
                if start.is_sweep:
                    workers.wait_for_submitted_jobs(start.folder)
                    conclude(start.folder, pictures=ended is None or ended < 128)  # a signal does not wait for them
    except filelock.Timeout:
        print(f"error: {already_led(start.folder)}", file=sys.stderr)
        return 2
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if ended is not None:
        return int(ended)
    if follows:
        return 0
    folders = [path.parent for path in start.folder.glob("*/results.json")] if start.is_sweep else [start.folder]
    return exit_code(folders)


@dataclass(frozen=True)
class Start:
    """What a command line comes to: the run or sweep folder, and the overrides for Hydra."""

    folder: Path
    overrides: list[str]
    is_sweep: bool = False
    launcher: DictConfig | None = None  # of a sweep
    complete: bool = False  # resuming a run that has nothing left to do


def check_sources(args: argparse.Namespace) -> None:
    """Refuse to read configurations from where reading them could run code."""
    if args.experimental_rerun:
        raise ConfigError("--experimental-rerun: not supported, it would load a pickle; give the overrides instead")
    for flag, value in (("--config-path", args.config_path), ("--config-name", args.config_name)):
        if value is not None:
            raise ConfigError(f"{flag}={value}: not supported; add a folder of configurations with --config-dir")
    for override in parse(args.overrides):
        if override.key_or_group == "hydra.searchpath" and re.search(r"pkg:|\$\{", override.input_line):
            raise ConfigError(f"{override.input_line}: must be folders; a package would be imported")


def prepare_together(args: argparse.Namespace, place: ranks.Place) -> Start:
    """``prepare`` in rank 0; the other ranks get what came of it, so that all share a folder.

    Raises:
        ConfigError: in rank 0, which says what is wrong for all.
        SystemExit: with 2, in the others then.
    """
    if place.rank:
        told = ranks.hear(place)
        if not told:
            raise SystemExit(2)
        folder, overrides, complete = json.loads(told)
        return Start(Path(folder), [*overrides, "hydra.output_subdir=null"], complete=complete)
    try:
        start = prepare(args)
    except ConfigError:
        ranks.tell(place, "")
        raise
    ranks.tell(place, json.dumps([str(start.folder), start.overrides, start.complete]))
    return start


def prepare(args: argparse.Namespace) -> Start:
    """Check every configuration that the command line would run, then make its folder.

    Raises:
        ConfigError: if anything is not allowed; no folder is left behind.
    """
    with composer(args) as compose:
        given = parse(args.overrides)
        cfg = compose(*first_values(given))
        multirun = args.multirun or cfg.hydra.mode == RunMode.MULTIRUN
        if multirun:
            params = parse([f"{key}={value}" for key, value in (cfg.hydra.sweeper.get("params") or {}).items()])
            if any(override.key_or_group == "hydra.searchpath" for override in params):
                raise ConfigError("hydra.sweeper.params: hydra.searchpath may be given on the command line only")
            swept = merge(params, given)
        elif several := [override for override in given if override.is_sweep_override()]:
            raise ConfigError(f"{several[0].input_line}: several values; add -m to run them all")
        else:
            swept = given
        if multirun and (place := ranks.outside()) is not None:
            raise ConfigError(
                f"-m under {place.starter}: start a sweep by itself, trainer=ddp starts the processes of each job"
            )
        for overrides in representatives(swept):
            cfg = compose(*overrides)
            config.check(cfg)
            ranks.check(cfg)
        if cfg.ckpt_path is not None:
            if multirun:
                raise ConfigError(f"ckpt_path={cfg.ckpt_path}: resumes one run; it cannot be part of a sweep")
            run_dir, checkpoint = resume.locate(cfg.ckpt_path)
            if run_dir is not None:
                return prepare_resume(run_dir, checkpoint, given, compose)
        key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
        named = any(override.key_or_group == key for override in given)
        folder = make_folder(key, lambda: Path(OmegaConf.select(compose(*first_values(given)), key)), named)
        overrides = list(args.overrides) if named else [*args.overrides, f"{key}={quoted(folder)}"]
        if multirun:
            grid = "GridSweeper" in cfg.hydra.sweeper._target_
            if workers.is_held(folder / workers.LOCK) or workers.jobs_alive(folder):
                raise ConfigError(already_led(folder))
            if not grid:
                if any(folder.glob("*/results.json")):
                    raise ConfigError(f"{key}={folder}: holds a sweep already, and only a grid can go on; name another")
                # two samples may be alike
                overrides.append("hydra.sweep.subdir='${hydra.job.num}_${job_name:${hydra.job.override_dirname}}'")
            overrides += [
                f"++{setting}"
                for plugin, setting in PLUGIN_SETTINGS.items()
                if plugin in (cfg.hydra.launcher._target_ + cfg.hydra.sweeper._target_)
                and plan.key(setting) not in {override.key_or_group for override in given}
            ]
            varied = plan.varied_keys(swept, folder)
            fixed = [override.key_or_group for override in swept if override.key_or_group not in varied]
            overrides.append(f"hydra.job.config.override_dirname.exclude_keys={[*fixed, 'ckpt_path']}")
            jobs = plan.jobs(swept, varied) if grid else []
            plan.save(folder, shlex.join(["python", "-m", "fmnist_lit", *sys.argv[1:]]), varied, jobs)
        return Start(folder, overrides, is_sweep=multirun, launcher=cfg.hydra.launcher)


def prepare_resume(run_dir: Path, checkpoint: Path, given: Sequence[Override], compose: Compose) -> Start:
    """Go on with the run that ``checkpoint`` belongs to, with its command line under the given one.

    In its own folder, unless the given command line names another.
    """
    own = ("ckpt_path", "hydra.run.dir")
    folder = run_dir
    if any(override.key_or_group == "hydra.run.dir" for override in given):
        folder = Path(compose(*first_values(given)).hydra.run.dir).absolute()
    in_place = folder.resolve() == run_dir.resolve()
    under, over = (
        [override for override in overrides if override.key_or_group not in own]
        for overrides in (parse(resume.earlier_overrides(run_dir)), given)
    )
    overrides = [override.input_line for override in merge(under, over)]
    overrides += [f"ckpt_path={quoted(checkpoint)}", f"hydra.run.dir={quoted(folder)}"]
    cfg = compose(*overrides)
    config.check(cfg)
    ranks.check(cfg)
    now = OmegaConf.to_container(cfg, resolve=False)
    del now["hydra"]
    earlier = resume.earlier_config(run_dir)
    resume.require_same(earlier, now, run_dir)
    if resume.is_complete(run_dir, earlier, now):
        return Start(run_dir, overrides, complete=True)
    if in_place:
        require_room("ckpt_path", folder)
        overrides.append("hydra.output_subdir=null")  # Hydra writes over what is there; resume.keep_configuration
    else:
        make_folder("hydra.run.dir", lambda: folder, named=True)
    return Start(folder, overrides)


def merge(under: Sequence[Override], over: Sequence[Override]) -> list[Override]:
    """Two command lines as one; where both set a key, the second does."""
    keys = {override.key_or_group for override in over}
    return [*(override for override in under if override.key_or_group not in keys), *over]


def make_folder(key: str, draw: Callable[[], Path], named: bool) -> Path:
    """Make the folder that ``draw`` names; exclusively, unless a person named it.

    Raises:
        ConfigError: if it cannot be made, or holds a run already, which a second one would overwrite.
    """
    while True:
        folder = draw()
        try:
            folder.mkdir(parents=True, exist_ok=named)
            require_room(key, folder)
        except FileExistsError as error:
            if named:
                raise ConfigError(f"{key}={folder}: is a file, must be a folder") from error
            continue  # a run started in the same second drew the same name
        except OSError as error:
            raise ConfigError(f"{key}={folder}: cannot be made: {error.strerror}") from error
        if (folder / "results.json").exists():
            raise ConfigError(
                f"{key}={folder}: holds a run already; name another, or resume it with ckpt_path={folder}"
            )
        return folder


def require_room(key: str, folder: Path) -> None:
    """Refuse a folder that nothing can be written to, before Hydra tries and leaves halves.

    Raises:
        ConfigError: with the system's reason, such as a full disk.
    """
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(LEAST_ROOM))
    except OSError as error:
        raise ConfigError(f"{key}={folder}: cannot be written to: {error.strerror}") from error


def already_led(sweep_dir: Path) -> str:
    """An error text for a sweep that runs."""
    return f"hydra.sweep.dir={sweep_dir}: a sweep, or a job that one left, is running in it; wait for it or stop it"


@contextlib.contextmanager
def composer(args: argparse.Namespace) -> Iterator[Compose]:
    """Compose configurations as Hydra itself will for this command line, running nothing; each once, it takes 40 ms."""
    extra = [f"hydra.searchpath=[{quoted(Path(args.config_dir).absolute())}]"] if args.config_dir else []

    @functools.cache
    def compose(*overrides: str) -> DictConfig:
        try:
            return hydra.compose("config", [*extra, *overrides], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(explain(error)) from error

    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        yield compose


def explain(error: Exception) -> str:
    """Hydra's message in a line, with the nearest known key or the options there are."""
    text = str(error).strip()
    if match := re.search(r"Could not override '([^']+)'", text):
        if match[1] in config.RULES:
            return f"{match[1]}: the chosen {match[1].split('.')[0]} has no such key"
        return config.unknown_key(match[1], [*config.RULES, *config.TOP_LEVEL_KEYS])
    if match := re.search(r"Could not find '([^']+)/([^'/]+)'\s+Available options in '[^']+':((?:\n\t\S+)+)", text):
        group, option, options = match[1], match[2], match[3].split()
        if extra := EXTRAS.get(f"{group}={option}"):
            return f"{group}={option}: is not installed; pip install 'fmnist_lit[{extra}]'"
        nearest = difflib.get_close_matches(option, options, n=1)
        return f"{group}={option}: must be one of {', '.join(options)}" + (
            f"; did you mean {nearest[0]}?" if nearest else ""
        )
    whole = f"{text} ({error.__cause__})" if error.__cause__ else text
    return " ".join(whole.split())[:300]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Hydra's overrides from the words of a command line."""
    parsed = []
    for word in overrides:
        try:
            override = OverridesParser.create().parse_override(word)
        except HydraException as error:
            raise ConfigError(f"{word}: not what Hydra understands; write key=value") from error
        if not override.key_or_group:
            raise ConfigError(f"{word}: has no key; write key=value")
        named = isinstance(override.value(), str | QuotedString | list) or override.is_sweep_override()
        if override.key_or_group in (*config.GROUPS, "without") and not (named or override.is_delete()):
            raise ConfigError(f"{word}: must be the name of a file in conf/{override.key_or_group}")
        parsed.append(override)
    return parsed


def first_values(overrides: Sequence[Override]) -> list[str]:
    """One configuration of a sweep."""
    return [plan.values(override)[0] for override in overrides]


def representatives(overrides: Sequence[Override]) -> Iterator[list[str]]:
    """The configurations of a sweep if they are few, else enough that each value of each override is seen once."""
    choices = [plan.values(override) for override in overrides]
    if math.prod(map(len, choices)) <= CHECK_ALL:
        yield from map(list, itertools.product(*choices))
        return
    first = [values[0] for values in choices]
    yield first
    for index, values in enumerate(choices):
        for value in values[1:]:
            yield [*first[:index], value, *first[index + 1 :]]


def path_as_typed(word: str) -> str:
    """Take a path for what it is: unquoted, the names of our own folders mean something else in Hydra's grammar."""
    key, _, value = word.partition("=")
    if key not in PATH_KEYS or not value or value[0] in "'\"":
        return word
    try:
        override = OverridesParser.create().parse_override(word)
        if not override.is_sweep_override() and isinstance(override.value(), str | None):
            return word
    except HydraException:
        pass
    return f"{key}={quoted(Path(value))}"


def quoted(path: Path) -> str:
    """A path as Hydra's override grammar takes it, whatever characters it has."""
    escaped = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def exit_code(run_dirs: Iterable[Path]) -> int:
    """The worst of the statuses in run folders; a run that left none has failed."""
    return max((EXIT_CODES.get(plan.status(run_dir), 1) for run_dir in run_dirs), default=1)


def conclude(sweep_dir: Path, pictures: bool) -> None:
    """Write a sweep's summary however it ended, and show it."""
    from fmnist_lit.sweep.summary import summarize

    try:
        summary = summarize([sweep_dir], pictures=pictures)
    except OSError as error:  # a full disk
        print(f"error: {sweep_dir}: the summary cannot be written: {error}", file=sys.stderr)
        return
    print(f"\n{summary.text}\n\nsummary.html, summary.md, summary.csv and plots are in {sweep_dir}")
    if any(plan.status(sweep_dir / job["folder"]) not in FINISHED for job in plan.planned(sweep_dir)):
        here = shlex.quote(f"hydra.sweep.dir={sweep_dir}")
        print(f"To go on with what is missing, give the same command with {here}")
