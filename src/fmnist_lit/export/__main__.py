"""python -m fmnist_lit.export RUN_OR_CKPT --format onnx|torch|safetensors: a file for other programs."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from fmnist_lit.config import ConfigError
from fmnist_lit.config.paths import expanded
from fmnist_lit.config.trust import add_trust_option, trust
from fmnist_lit.processes.streams import run_printing
from fmnist_lit.run.find import NoSuchRunError, find_trained

SUFFIXES = {"onnx": ".onnx", "torch": ".pt2", "safetensors": ".safetensors"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Export what the command line names.

    Returns:
        The exit code: 0 written and verified, 1 it could not be, 2 a bad argument.
    """
    parser = argparse.ArgumentParser(
        prog="python -m fmnist_lit.export", description="Write a trained classifier for other programs, and verify it."
    )
    parser.add_argument("run", metavar="RUN_OR_CKPT", help="a run folder or a checkpoint")
    parser.add_argument("--format", choices=tuple(SUFFIXES), required=True, help="ONNX, torch.export, or plain weights")
    parser.add_argument("--output", metavar="FILE", help="default: export/… in the run folder")
    parser.add_argument("--data-dir", metavar="DIR", help="where the data set is whose test images verify the export")
    add_trust_option(parser)
    args = parser.parse_args(arguments)
    try:
        trust(args.trust)
        trained = find_trained(args.run)
    except (NoSuchRunError, ConfigError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    try:
        named = args.output and Path(expanded(args.output, f"--output {args.output}"))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    output = named or trained.folder / "export" / f"{trained.file.stem}{SUFFIXES[args.format]}"
    if output.is_dir() or output.suffix != SUFFIXES[args.format]:
        print(f"error: --output {output}: must be the name of a {SUFFIXES[args.format]} file", file=sys.stderr)
        return 2
    from fmnist_lit.export.formats import export_verified
    from fmnist_lit.trained.load import load_trained

    try:
        print(export_verified(load_trained(trained.file), args.format, output, args.data_dir))
    except (RuntimeError, ValueError, ImportError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run_printing(main))
