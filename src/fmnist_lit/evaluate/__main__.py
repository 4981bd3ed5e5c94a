"""python -m fmnist_lit.evaluate RUN_OR_CKPT…: accuracy, mistakes and calibration of trained classifiers."""

import argparse
import sys
from collections.abc import Sequence

from fmnist_lit.config import ConfigError
from fmnist_lit.config.trust import add_trust_option, trust
from fmnist_lit.processes.streams import run_printing
from fmnist_lit.run.find import NoSuchRunError, find_trained


def main(arguments: Sequence[str] | None = None) -> int:
    """Evaluate what the command line names.

    Returns:
        The exit code: 0 all are evaluated, 1 some could not be, 2 a bad argument.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_lit.evaluate",
        description="Evaluate trained runs; tables and charts go into evaluation/ beside each checkpoint.",
    )
    parser.add_argument(
        "runs", nargs="+", metavar="RUN_OR_CKPT", help="run folders or checkpoints; several are compared"
    )
    parser.add_argument("--split", choices=("test", "val", "train"), default="test", help="of the run's own data set")
    parser.add_argument(
        "--data-dir",
        metavar="DIR",
        help="where the data set is, if neither in $FMNIST_DATA_DIR nor where the run had it",
    )
    add_trust_option(parser)
    args = parser.parse_args(arguments)
    try:
        trust(args.trust)
        found = [find_trained(run) for run in args.runs]
    except (NoSuchRunError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # torch takes seconds to import: a mistyped path is answered before
    from fmnist_lit.evaluate.measure import evaluate
    from fmnist_lit.evaluate.rendering import comparison_table, write_evaluation

    evaluations, failed = [], False
    for trained in found:
        try:
            evaluation, images = evaluate(trained, args.split, args.data_dir)
            evaluations.append(evaluation)
            print(evaluation.summary + (f"\n\n{evaluation.per_class_table}" if len(found) == 1 else ""))
            print(f"\nevaluation.json, evaluation.md and charts are in {write_evaluation(evaluation, images)}\n")
        except (RuntimeError, ArithmeticError, ValueError, OSError) as error:
            print(f"error: {error}", file=sys.stderr)
            failed = True
    if len(evaluations) > 1:
        print(comparison_table(evaluations))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_printing(main))
