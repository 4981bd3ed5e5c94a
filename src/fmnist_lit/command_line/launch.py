"""A command line, from its words to its exit code."""

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import hydra
from hydra._internal.utils import get_args_parser

from fmnist_lit.command_line.help import help_text
from fmnist_lit.command_line.job import run_job
from fmnist_lit.command_line.prepare import CONF, check_sources, composer, options_of, prepare, prepare_together
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import expand_globs, first_values, parse, path_as_typed
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.trust import split_trust, trusting
from fmnist_lit.processes import ranks
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.run.status import EXIT_CODES, read_status


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """A command line as Hydra takes it apart, without having run anything."""
    return get_args_parser().parse_intermixed_args(list(arguments))


def make_sense(args: argparse.Namespace) -> None:
    """Take paths as people type them, also in ``$FMNIST_DATA_DIR``, and refuse sources that could run code.

    Raises:
        ConfigError: naming the word that is not possible.
    """
    args.overrides = [path_as_typed(word) for word in args.overrides]
    if args.config_dir:
        args.config_dir = expanded(args.config_dir, f"--config-dir={args.config_dir}")
    data_dir = os.environ.pop("FMNIST_DATA_DIR", None)
    if data_dir:  # empty is as good as unset
        os.environ["FMNIST_DATA_DIR"] = expanded(data_dir, f"FMNIST_DATA_DIR={data_dir}")
    check_sources(args)


def launch(arguments: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The exit code: 0 completed, 1 failed or diverged, 2 a bad configuration, 128 + the number of a signal.
    """
    packages, rest = split_trust(arguments)
    args = parse_arguments(rest)
    flags = [argument for argument in rest if argument not in args.overrides]
    hydra_main = hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(run_job)
    place = ranks.outside()
    follows = place is not None and place.rank > 0
    locks = contextlib.ExitStack()
    try:
        locks.enter_context(trusting(packages))
        make_sense(args)
        if args.config_dir:
            flags.append(f"--config-dir={args.config_dir}")  # the last one counts
        if args.help:
            if not follows:
                print(help_text([CONF, *([Path(args.config_dir)] if args.config_dir else [])]))
            return 0
        if args.hydra_help or args.cfg or args.info or args.shell_completion:
            if args.cfg:  # Hydra's own words for what cannot be composed fill a screen
                with composer(args) as compose:
                    compose(*first_values(expand_globs(parse(args.overrides), options_of(args))))
            if args.shell_completion:
                check_completion(args.overrides)
                sys.argv[0] = "fmnist-lit"  # what a shell can complete; python -m is for it about python
            if not follows:
                sys.argv[1:] = [*flags, *args.overrides]
                hydra_main()
            return 0
        start = prepare(args, locks) if place is None else prepare_together(args, place, locks)
        if start.complete:
            if not follows:
                print(f"{start.folder} is complete; a higher trainer.max_epochs goes on with it")
            return 0
        sys.argv[1:] = [*flags, *start.overrides]
        leading: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
        if start.sweep_launcher is not None:
            from fmnist_lit.command_line.sweeps import leading_sweep

            leading = leading_sweep(start.folder, start.sweep_launcher)
        with leading:
            hydra_main()
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


def check_completion(words: Sequence[str]) -> None:
    """Refuse to complete for a shell that Hydra does not know.

    Raises:
        ConfigError: saying which it does.
    """
    if not re.fullmatch(r"(install|uninstall|query)=(bash|zsh|fish)", " ".join(words)):
        raise ConfigError(f"-sc {' '.join(words)}: must be install=, uninstall= or query= with bash, zsh or fish")


def exit_code(run_dirs: Iterable[Path]) -> int:
    """The worst of the statuses in run folders; a run that left none has failed."""
    return max((EXIT_CODES.get(read_status(run_dir) or "", 1) for run_dir in run_dirs), default=1)
