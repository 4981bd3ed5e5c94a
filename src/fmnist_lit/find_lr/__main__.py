"""python -m fmnist_lit.find_lr [overrides]: which learning rate should this run have?"""

import argparse
import contextlib
import math
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from hydra.types import RunMode
from omegaconf import DictConfig

from fmnist_lit.command_line.compose import composer
from fmnist_lit.command_line.folders import make_folder
from fmnist_lit.command_line.job import reason_in_a_line
from fmnist_lit.command_line.launch import understand
from fmnist_lit.command_line.prepare import folder_of
from fmnist_lit.config import ConfigError
from fmnist_lit.config.check import check_configuration
from fmnist_lit.config.overrides import as_given, key_of, parse
from fmnist_lit.config.rules import title_of
from fmnist_lit.config.trust import trust_words
from fmnist_lit.find_lr.curve import Range, finding_of
from fmnist_lit.processes import ranks
from fmnist_lit.processes.signals import InterruptedRunError, stop_request
from fmnist_lit.processes.streams import run_printing
from fmnist_lit.run.find import find_initial
from fmnist_lit.run.names import relative, shell_command, unique

FOLDER = "hydra.run.dir"
FEWEST_STEPS, MOST_STEPS = 20, 10_000
EPILOG = """\
All other words are those of `python -m fmnist_lit`: groups, key=value, --config-dir, --trust. The model trains for so
many steps from the start, each at a higher learning rate; the run's schedule, callbacks and loggers are left out. The
picture, the curve and the suggestion go into outputs/find_lr/."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Test the range for the configuration that the command line composes.

    Returns:
        The exit code: 0 there is a suggestion, 1 there is none or the test failed, 2 a bad argument, 128 + the number
            of a signal.
    """
    own, rest = parse_own(arguments)
    with stop_request.listening(), contextlib.ExitStack() as locks:
        try:
            wanted = require_range(own)
            args = understand(rest, locks)
            cfg = compose_run(args)
            return report(cfg, wanted, args, locks)
        except ConfigError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        except InterruptedRunError as stop:
            print(f"Interrupted by {stop}.", file=sys.stderr)
            return 128 + stop.signum
        except Exception as error:
            if "HYDRA_FULL_ERROR" in os.environ:
                raise
            print(f"error: {reason_in_a_line(error)}", file=sys.stderr)
            return 1


def parse_own(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and the words that are for Hydra."""
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_lit.find_lr",
        usage="%(prog)s [options] [group=option] [key=value] …",
        description="Find a learning rate by a range test with Lightning's tuner.",
        epilog=EPILOG,
        allow_abbrev=False,
    )
    parser.add_argument("--min-lr", type=float, default=1e-6, metavar="LR", help="of the first step, default 1e-6")
    parser.add_argument("--max-lr", type=float, default=10.0, metavar="LR", help="of the last step, default 10")
    parser.add_argument("--steps", type=int, default=100, metavar="N", help="steps between them, default 100")
    return parser.parse_known_args(arguments)


def require_range(own: argparse.Namespace) -> Range:
    """The learning rates that our options ask for.

    Raises:
        ConfigError: if they are none.
    """
    for name, value in (("--min-lr", own.min_lr), ("--max-lr", own.max_lr)):
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{name} {value:g}: must be a finite number > 0")
    if own.min_lr >= own.max_lr:
        raise ConfigError(f"--min-lr {own.min_lr:g} --max-lr {own.max_lr:g}: the second must be the higher one")
    if not FEWEST_STEPS <= own.steps <= MOST_STEPS:
        raise ConfigError(f"--steps {own.steps}: must be a whole number from {FEWEST_STEPS} to {MOST_STEPS}")
    return Range(own.min_lr, own.max_lr, own.steps)


def compose_run(args: argparse.Namespace) -> DictConfig:
    """The checked configuration of the run that the command line would start, with a folder of ours.

    Raises:
        ConfigError: if it is none, or of a kind whose learning rate cannot be found so.
    """
    if args.cfg or args.info or args.hydra_help or args.shell_completion:
        raise ConfigError("find_lr prints no configuration; python -m fmnist_lit does, with the same words")
    if (place := ranks.outside()) is not None:
        raise ConfigError(f"find_lr under {place.starter}: it takes one process; start it by itself")
    given = parse(args.overrides)
    if several := [as_given(override) for override in given if override.is_sweep_override()]:
        raise ConfigError(f"{several[0]}: several values; find_lr takes one configuration")
    with composer(args) as compose:
        cfg = compose(*map(as_given, given))
        if args.multirun or cfg.hydra.mode == RunMode.MULTIRUN:
            raise ConfigError(f"{'-m' if args.multirun else 'study'}: find_lr takes one configuration, not a sweep")
        check_configuration(cfg)
    if cfg.ckpt_path is not None:
        raise ConfigError(f"ckpt_path={cfg.ckpt_path}: find_lr trains from the start; leave it out")
    if cfg.init_from is not None:
        find_initial(cfg.init_from)
    if cfg.optimizer.get("lr") is None:
        raise ConfigError(f"optimizer.lr: {cfg.optimizer._target_} has none that could be found")
    if cfg.trainer.get("fast_dev_run"):
        raise ConfigError(f"trainer.fast_dev_run={cfg.trainer.fast_dev_run}: would skip the steps; leave it out")
    if (processes := ranks.num_processes(cfg)) > 1:
        as_much = f"trainer.devices=1 data.batch_size={processes * cfg.data.batch_size} is as much"
        raise ConfigError(f"trainer.devices={cfg.trainer.devices}: find_lr takes one; {as_much}")
    return cfg


def report(cfg: DictConfig, wanted: Range, args: argparse.Namespace, locks: contextlib.ExitStack) -> int:
    """Test the range, say what came of it, and keep it in a folder; the exit code."""
    # torch takes seconds to import: a mistyped word is answered before
    from fmnist_lit.find_lr.range_test import run_range_test
    from fmnist_lit.find_lr.rendering import draw_curve, write_range_test

    with tempfile.TemporaryDirectory() as scratch:
        measured = run_range_test(cfg, wanted, Path(scratch))
    curve, finding, data = measured.curve, finding_of(measured.curve, wanted), title_of(measured.dataset)
    named = any(key_of(word) == FOLDER for word in args.overrides)
    folder = make_folder(FOLDER, lambda: folder_of(cfg, FOLDER) if named else new_folder(cfg), named, locks)
    command = go_on_with(args, finding.suggestion)
    words = [word for word in args.overrides if key_of(word) != FOLDER]
    title = f"{data}: {' '.join(words) or 'the defaults'}"
    facts = {
        "suggestion": finding.suggestion,
        "lightning_suggestion": measured.lightning,
        "words": finding.words,
        "command": command,
        "overrides": words,
        "dataset": measured.dataset,
        "min_lr": wanted.lowest,
        "max_lr": wanted.highest,
        "steps": wanted.steps,
        "steps_taken": len(curve.rates),
        "seed": cfg.seed,
        "num_threads": cfg.num_threads,
    }
    write_range_test(folder, curve, draw_curve(curve, finding, title), facts)
    print(f"{data}: {len(curve.rates)} steps, from a learning rate of {wanted.lowest:g} up; {finding.words}")
    for remark in remarks(cfg):
        print(f"  {remark}")
    if command is None:
        print(f"No suggestion. The curve is in {relative(folder.absolute())}")
        return 1
    print(f"  suggestion    optimizer.lr={finding.suggestion:.2g} (Lightning's own: {measured.lightning:.2g})")
    print(f"  picture       {relative(folder.absolute()) / 'find_lr.png'}")
    print(f"  go on with    {command}")
    return 0


def new_folder(cfg: DictConfig) -> Path:
    """A name for the folder, as those of runs have it."""
    return Path("outputs", "find_lr", f"{time.strftime('%Y-%m-%d_%H-%M-%S')}_{unique(cfg.hydra.job.override_dirname)}")


def remarks(cfg: DictConfig) -> list[str]:
    """What of the run the test did not do, or did not vary."""
    others = [f"optimizer.{key}={cfg.optimizer[key]:g}" for key in cfg.optimizer if key.endswith("_lr")]
    found = [f"{other} rises in proportion in the test, and stays as it is in a run" for other in others]
    schedule = cfg.scheduler._target_.rpartition(".")[2]
    if schedule != "ConstantLR":
        found.append(
            f"the test has a schedule of its own in place of {schedule}; optimizer.lr is the highest rate of that"
        )
    return found


def go_on_with(args: argparse.Namespace, suggestion: float | None) -> str | None:
    """The whole command of a run at the suggestion."""
    if suggestion is None:
        return None
    flags = [*trust_words(), *(["--config-dir", args.config_dir] if args.config_dir else [])]
    words = [word for word in args.overrides if key_of(word) not in (FOLDER, "optimizer.lr")]
    return shell_command(["python", "-m", "fmnist_lit", *flags, *words, f"optimizer.lr={suggestion:.2g}"])


if __name__ == "__main__":
    sys.exit(run_printing(main))
