"""A command line, from its words to its exit code."""

import argparse
import contextlib
import functools
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra import version
from hydra._internal.utils import _run_hydra, get_args_parser

from fmnist_lit.command_line.compose import CONF, composer, options_of
from fmnist_lit.command_line.help import help_text
from fmnist_lit.command_line.job import run_job
from fmnist_lit.command_line.prepare import Start, check_sources, prepare, prepare_together
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import expand_globs, first_values, parse, path_as_typed
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.trust import split_trust, trusting
from fmnist_lit.processes import ranks
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.run.files import read_json
from fmnist_lit.run.status import EXIT_CODES, is_pruned


def launch(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 0 completed, 1 failed or diverged, 2 a bad configuration, 128 + the number of a signal.
    """
    place = ranks.outside()
    follows = place is not None and place.rank > 0
    locks = contextlib.ExitStack()
    try:
        args = understand(arguments, locks)
        if args.help:
            if not follows:
                print(help_text([CONF, *([Path(args.config_dir)] if args.config_dir else [])]))
            return 0
        if asks_hydra(args):
            if args.cfg:  # Hydra's own words for what cannot be composed fill a screen
                with composer(args) as compose:
                    compose(*first_values(expand_globs(parse(args.overrides), options_of(args))))
            if args.shell_completion:
                check_completion(args.overrides)
                sys.argv[0] = "fmnist-lit"  # what a shell can complete; python -m is for it about python
            if not follows:
                hydra_application()(args)
            return 0
        start = begin(args, locks)
        if start.complete:
            if not follows:
                print(nothing_left(start))
            return 0
        with lead(start):
            hydra_application()(args)
    except SystemExit as end:  # a signal, a refusal, fail_fast, or a launcher that gave up
        return int(end.code or 0)
    except (InterruptedRunError, KeyboardInterrupt):  # before the first job, or between two
        signum = signal.Signals(stop_request.signum or signal.SIGINT)
        print(f"Interrupted by {signum.name}.", file=sys.stderr)
        return 128 + signum
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    finally:
        locks.close()
    if follows:
        return 0
    return exit_code(start.run_folders())


def understand(arguments: Sequence[str], locks: contextlib.ExitStack) -> argparse.Namespace:
    """The words of a command line, as Hydra names them; whom they trust is trusted until ``locks`` close.

    Raises:
        ConfigError: if they are no command line, or read configurations from where reading them could run code.
    """
    packages, rest = split_trust(arguments)
    parser = get_args_parser()
    parser.error = refuse  # type: ignore[method-assign]  # argparse would print all flags, and exit
    args = parser.parse_intermixed_args(rest)
    locks.enter_context(trusting(packages))
    args.overrides = [path_as_typed(word) for word in args.overrides]
    if args.config_dir:
        args.config_dir = expanded(args.config_dir, f"--config-dir={args.config_dir}")
    data_dir = os.environ.pop("FMNIST_DATA_DIR", None)
    if data_dir:  # empty is as good as unset
        os.environ["FMNIST_DATA_DIR"] = expanded(data_dir, f"FMNIST_DATA_DIR={data_dir}")
    check_sources(args)
    return args


def refuse(message: str) -> NoReturn:
    """Say what argparse does not understand."""
    raise ConfigError(message)


def asks_hydra(args: argparse.Namespace) -> bool:
    """Whether a command line only wants to be shown something."""
    return bool(args.hydra_help or args.cfg or args.info or args.shell_completion)


def begin(args: argparse.Namespace, locks: contextlib.ExitStack) -> Start:
    """Check what a command line would run and make its folder; ``args`` then holds what Hydra is to be told."""
    place = ranks.outside()
    start = prepare(args, locks) if place is None else prepare_together(args, place, locks)
    args.overrides = list(start.overrides)
    return start


def lead(start: Start) -> contextlib.AbstractContextManager[None]:
    """Lead the jobs of a sweep, if it is one."""
    if start.sweep_launcher is None:
        return contextlib.nullcontext()
    from fmnist_lit.command_line.sweeps import leading_sweep  # a run needs nothing of it

    return leading_sweep(start.folder, start.sweep_launcher)


def hydra_application() -> Callable[[argparse.Namespace], Any]:
    """What ``hydra.main`` makes of ``run_job``, but for words that are not those of ``sys.argv``."""
    version.setbase("1.3")
    return functools.partial(
        _run_hydra, args_parser=get_args_parser(), task_function=run_job, config_path=str(CONF), config_name="config"
    )


def nothing_left(start: Start) -> str:
    """What to say of a run that is to be resumed and has ended."""
    return f"{start.folder} is complete; a higher trainer.max_epochs goes on with it"


def check_completion(words: Sequence[str]) -> None:
    """Refuse to complete for a shell that Hydra does not know.

    Raises:
        ConfigError: saying which it does.
    """
    if not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", " ".join(words)):
        raise ConfigError(f"-sc {' '.join(words)}: must be install=, uninstall= or query= with bash, zsh or fish")


def exit_code(run_dirs: Iterable[Path]) -> int:
    """The worst of the statuses in run folders; a run that left none has failed, one that was pruned has not."""
    ended = (read_json(run_dir / "results.json") for run_dir in run_dirs)
    return max(
        (0 if is_pruned(results) else EXIT_CODES.get(str(results.get("status")), 1) for results in ended), default=1
    )
