"""From words to a run or a sweep in this process, by the same steps as from a command line."""

import argparse
import contextlib
import logging
import signal
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from fmnist_lit.api.guest import being_a_guest, keeping_torch
from fmnist_lit.command_line import job
from fmnist_lit.command_line.launch import asks_hydra, begin, hydra_application, lead, nothing_left, understand
from fmnist_lit.command_line.prepare import Start
from fmnist_lit.config import ConfigError
from fmnist_lit.config.overrides import key_of
from fmnist_lit.config.trust import trust_words
from fmnist_lit.processes.signals import InterruptedRunError, stop_request


class Ended(NamedTuple):
    """What a command line came to.

    Attributes:
        folder: of the run or of the sweep.
        context: the words with which to go on with it: whom it trusts, and where its configurations are.
        error: what a run failed by, if it did and if that is known.
    """

    folder: Path
    context: tuple[str, ...]
    error: BaseException | None


def words_of(overrides: Sequence[str], trust: Iterable[str] = ()) -> list[str]:
    """The words of a command line.

    Raises:
        TypeError: if one of them is none.
    """
    for word in overrides:
        if not isinstance(word, str):
            raise TypeError(f"{word!r}: must be text as on a command line, such as 'optimizer.lr=0.1'")
    packages = [trust] if isinstance(trust, str) else trust
    return [*(f"--trust={package}" for package in packages), *overrides]


def carry_out(words: Sequence[str], *, sweep: bool) -> Ended:
    """Run what a command line says and wait for its end.

    Args:
        words: of the command line, without ``-m``.
        sweep: whether it is to be a sweep.

    Raises:
        ConfigError: if anything is not allowed, with the command line's sentence.
        KeyboardInterrupt: if Ctrl-C, or a notebook's stop button, interrupted it. Any other signal is passed on to
            whoever handled it before.
        Exception: what a launcher or a sweeper of Hydra's raised.
    """
    start: Start | None = None
    context: tuple[str, ...] = ()
    signum: int | None = None
    errors: list[BaseException] = []
    try:
        with being_a_guest(), contextlib.ExitStack() as locks:
            args = understand([*words, "--multirun" if sweep else "--run"], locks)
            require_a_run(args)
            context = context_of(args)
            start = begin(args, locks)
            if start.complete:
                print(nothing_left(start))
            else:
                with keeping_torch(), noticing_errors() as errors, lead(start):
                    hydra_application()(args)
    except InterruptedRunError as stop:
        signum = stop.signum
    except SystemExit as end:
        signum = signal_of(end)
    if signum is not None:
        deliver(signum, start)
    if start is None:  # one of several ranks that torchrun started
        raise ConfigError("rank 0 says what is not allowed")
    return Ended(start.folder.absolute(), context, errors[-1] if errors else None)


def require_a_run(args: argparse.Namespace) -> None:
    """Refuse flags that make a command line show something.

    Raises:
        ConfigError: if there is one.
    """
    if args.help or asks_hydra(args):
        raise ConfigError("a flag that shows something and runs nothing is for the command line: python -m fmnist_lit")


def context_of(args: argparse.Namespace) -> tuple[str, ...]:
    """Of a command line, what a run folder does not keep."""
    config_dir = [f"--config-dir={Path(args.config_dir).absolute()}"] if args.config_dir else []
    return *trust_words(), *config_dir, *(word for word in args.overrides if key_of(word) == "hydra.searchpath")


def signal_of(end: SystemExit) -> int | None:
    """The signal that ended what Hydra ran; None where its files say how it ended.

    Raises:
        ConfigError: if a job was refused.
        Exception: what went wrong outside the jobs, of which Hydra exits.
    """
    if isinstance(end.__cause__, ConfigError):
        raise end.__cause__ from None
    if isinstance(end.__context__, Exception) and not end.__suppress_context__:
        raise end.__context__
    return end.code - 128 if isinstance(end.code, int) and end.code > 128 else None


def deliver(signum: int, start: Start | None) -> None:
    """Let a signal, once the run has stopped, do in this process what it does there.

    Raises:
        KeyboardInterrupt: saying how to go on, if that is what the signal does, or if nothing has begun.
    """
    told = f"by {signal.Signals(signum).name}"
    if start is not None and start.sweep_launcher is not None:
        told += f"; the same sweep with hydra.sweep.dir={start.folder} goes on with what is missing"
    elif start is not None and (start.folder / "checkpoints" / "last.ckpt").exists():
        told += f"; fmnist_lit.load_run({str(start.folder)!r}).resume() goes on"
    if stop_request.received:  # not only by a process of the run
        try:
            signal.raise_signal(signum)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(told) from None
    if start is None:
        raise KeyboardInterrupt(told)


@contextlib.contextmanager
def noticing_errors() -> Iterator[list[BaseException]]:
    """The errors by which jobs fail; they are written to train.log and go no further."""
    errors: list[BaseException] = []

    def notice(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            errors.append(record.exc_info[1])
        return True

    job.log.addFilter(notice)
    try:
        yield errors
    finally:
        job.log.removeFilter(notice)
